"""Exports of runs whose folder lies on object storage, and into one."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch

from infra.cli import main
from shards.errors import CheckpointError
from shards.store import open_store
from tests.train.recipes import mae_recipe
from tests.train.streams import MemoryStream
from train.remote_folder import RemoteFolder
from train.run import pretrain
from train.run_export import export_anywhere, export_run

pytestmark = [pytest.mark.torch, pytest.mark.s3]


@pytest.fixture
def run(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A finished run on the store with checkpoints 5 and 10, and the local folder of the host that trained it."""
    torch.set_num_threads(1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "host"))
    url = f"{bucket}/runs/{uuid.uuid4().hex[:6]}"
    home = RemoteFolder(url)
    recipe = mae_recipe(checkpoint={"every": 5, "url": home.checkpoints})
    pretrain(recipe, data="memory", out=home.local, home=home, stream=MemoryStream)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-host"))
    return url, home.local


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_run_on_a_store_exports_what_its_host_exports(run: tuple[str, Path], tmp_path: Path) -> None:
    url, local = run
    for step in (None, 5, 0):
        here = export_run(local, step=step, out=tmp_path / "here" / str(step))
        there = export_anywhere(url, step=step, out=str(tmp_path / "there" / str(step)))
        assert there == str(tmp_path / "there" / str(step))
        assert weights(Path(there)) == weights(here)
        assert (Path(there) / "config.json").read_bytes() == (here / "config.json").read_bytes()
    assert not (tmp_path / "another-host").exists()


def test_an_export_goes_to_the_store(run: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    url, local = run
    five = export_run(local, step=5, out=local.parent / "five")
    assert main(["export", url, "--step", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"export": f"{url}/export"}
    store = open_store(f"{url}/export")
    assert store.read("model.safetensors") == weights(five)
    assert json.loads(store.read("config.json"))["biovfm"]["step"] == 5
    assert main(["export", str(local), "--out", f"{url}/elsewhere"]) == 0
    assert open_store(f"{url}/elsewhere").read("model.safetensors") == weights(local / "export")


def test_a_run_that_has_not_finished_is_exported(run: tuple[str, Path], tmp_path: Path) -> None:
    url, local = run
    store = open_store(url)
    store.delete([item.path for item in store.list() if item.path.startswith(("export/", "recipe"))])
    assert weights(Path(export_anywhere(url, out=str(tmp_path / "out")))) == weights(local / "export")
    export_anywhere(url, step=0, out=str(tmp_path / "start"))


def test_a_damaged_copy_is_named_and_the_one_before_is_taken(run: tuple[str, Path], tmp_path: Path) -> None:
    url, local = run
    store = open_store(f"{url}/checkpoints")
    name = next(item.path for item in store.list("step-00000010/") if item.path.endswith(".distcp"))
    data = bytearray(store.read(name))
    data[len(data) // 2] ^= 1
    store.replace(name, bytes(data))
    said: list[str] = []
    five = export_run(local, step=5, out=tmp_path / "five")
    assert weights(Path(export_anywhere(url, out=str(tmp_path / "out"), say=said.append))) == weights(five)
    assert any("another checksum" in line for line in said)
    with pytest.raises(CheckpointError, match="another checksum"):
        export_anywhere(url, step=10, out=str(tmp_path / "ten"))


def test_what_is_no_run_or_has_no_such_step(run: tuple[str, Path], bucket: str) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint of step 7 — there are: 5, 10"):
        export_anywhere(run[0], step=7)
    for step in (None, 0):
        with pytest.raises(CheckpointError, match=r"holds no checkpoint|is no run folder"):
            export_anywhere(f"{bucket}/nothing", step=step)


def test_a_probe_of_a_run_on_a_store(run: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from eval.probes.results import read_results
    from tests.eval.builders import write_archive

    url, local = run
    write_archive(tmp_path / "data", "breastmnist")
    more = ["--tasks", "breast", "--data", str(tmp_path / "data"), "--cache", str(tmp_path / "features")]
    more += ["--resamples", "20", "--device", "cpu", "--image-size", "32", "--json"]

    def probed(*words: str) -> list[dict[str, Any]]:
        assert main(["probe", *words, *more]) == 0
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["results"]
        return found

    (remote,) = probed(url, "--out", f"{url}/probes")
    (here,) = probed(str(local))
    assert remote["backbone"] == url
    assert remote["metrics"] == here["metrics"]
    assert remote["provenance"]["weights"] == here["provenance"]["weights"]
    assert remote["provenance"]["trainer"] == here["provenance"]["trainer"]
    assert [result.record() for result in read_results(f"{url}/probes")] == [remote]
    probed(url, "--out", f"{url}/probes")
    assert len(read_results(f"{url}/probes")) == 1  # the same result once
