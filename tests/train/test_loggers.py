"""Weights & Biases and MLflow: stand-ins say what is asked of them, the real ones (where installed) take it."""

from __future__ import annotations

import errno
import io
import struct
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shards.errors import ConfigError
from tests.train.recipes import mae_recipe
from train.loggers import open_loggers
from train.recipe import Recipe
from train.record import _without_full_disk


def recipe(*loggers: str) -> Recipe:
    return mae_recipe(watch={"loggers": loggers})


class FakeMlflow:
    """Remembers calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def start_run(self, run_id: str | None, run_name: str) -> Any:
        self.calls.append(("start_run", run_id))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or f"new-{run_name}"))

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **_: self.calls.append((name, arguments))


def test_going_on_means_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    for _ in range(2):
        (logger,) = open_loggers(tmp_path / "run", recipe("mlflow"))
        logger.log({"loss": 1.0}, 1)
        logger.close()
    names = [name for name, _ in fake.calls]
    assert [value for name, value in fake.calls if name == "start_run"] == [None, "new-run"]
    assert names.count("log_params") == 1
    assert names.count("log_metrics") == names.count("end_run") == 2


def test_the_settings_become_flat_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    open_loggers(tmp_path, recipe("mlflow"))
    (parameters,) = dict(fake.calls)["log_params"]
    assert parameters["method.name"] == "mae"
    assert parameters["run.steps"] == recipe().run.steps


def test_what_is_missing_or_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"wandb, which is missing.*biovfm\[wandb\]"):
        open_loggers(tmp_path, recipe("wandb"))

    def refuse(**_: object) -> None:
        raise RuntimeError("no api key\nsecond line")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))
    with pytest.raises(ConfigError, match="wandb does not start: no api key second line"):
        open_loggers(tmp_path, recipe("wandb"))
    assert not (tmp_path / "loggers.json").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_mlflow_keeps_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for start in (1, 3):
        (logger,) = open_loggers(tmp_path / "run", recipe("mlflow"))
        for step in (start, start + 1):
            logger.log({"loss": 1 / step, "lr": 0.1}, step)
        logger.close()
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("biovfm").experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert sorted((item.step, item.value) for item in history) == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert run.data.params["method.name"] == "mae"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_wandb_keeps_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "run").mkdir()
    for start in (1, 3):
        (logger,) = open_loggers(tmp_path / "run", recipe("wandb"))
        for step in (start, start + 1):
            logger.log({"loss": 1 / step}, step)
        logger.close()
    files = sorted((tmp_path / "run").rglob("*.wandb"))
    assert len({path.name for path in files}) == 1, "the second attempt is the same run"
    rows = [row for path in files for row in offline_history(path)]
    assert sorted(rows) == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]


def offline_history(path: Path) -> list[tuple[int, float]]:
    """`(step, loss)` of a run that wandb keeps on disk: records of a LevelDB log, here all in its first block."""
    from wandb.proto import wandb_internal_pb2

    data, at, rows = path.read_bytes(), 7, []
    assert len(data) < 1 << 15
    while at < len(data):
        (length,) = struct.unpack_from("<H", data, at + 4)
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data[at + 7 : at + 7 + length])
        at += 7 + length
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            rows.append((int(items["_step"]), float(items["loss"])))
    return rows


def test_a_full_disk_in_tensorboards_thread_prints_no_traceback() -> None:
    """Its thread fails as it would on a full disk; a thread of anybody else's is still told."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    class Full(io.RawIOBase):
        def write(self, _data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    def elsewhere() -> None:
        raise OSError(errno.ENOSPC, "elsewhere")

    told: list[str] = []
    hook = _without_full_disk(lambda found: told.append(str(found.exc_value)))
    for action in (lambda: RecordWriter(Full()).write(b"x"), elsewhere):
        try:
            action()
        except OSError as error:
            hook(threading.ExceptHookArgs((type(error), error, error.__traceback__, None)))
    assert told == ["[Errno 28] elsewhere"]
