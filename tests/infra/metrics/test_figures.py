"""The figures of each command are those that it reports itself; the lines of a JSON log are objects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from infra.cli import main
from infra.metrics.training import TrainingFigures
from shards.dataset.dataset import Dataset
from tests.ingest.material import encoded, photo, write_folder
from tests.shards.builders import add_source, jpeg
from tests.train.recipes import mae_recipe


def figures(path: Path) -> dict[tuple[str, ...], float]:
    """Sample name and label values → value, of what biovfm itself measures."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
        if sample.name.startswith("biovfm_")
    }


def test_a_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = Dataset.create(str(tmp_path / "dataset"))
    add_source(dataset, "demo", "US", [jpeg(number) for number in range(20)])
    path = tmp_path / "stream.prom"
    command = ["stream", dataset.url, "--workload", "raw", "--global-batch", "8", "--metrics-file", str(path), "--json"]
    assert main([*command, "--log-format", "json"]) == 0
    shown = capsys.readouterr()
    said = json.loads(shown.out)
    found = figures(path)
    assert found["biovfm_stream_images_total", "0", "dataset"] == said["images"] == 16
    assert found["biovfm_stream_read_bytes_total", "0", "dataset"] == said["bytes_read"] > 0
    assert found["biovfm_stream_batches_total", "0", "dataset"] == 2
    assert found["biovfm_stream_bad_samples_total", "0", "dataset"] == 0
    (line,) = [json.loads(line) for line in shown.err.splitlines()]
    assert (line["message"], line["run"], line["rank"], line["step"]) == ("batch", "dataset", 0, 0)


def test_an_ingest_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {f"{number}.png": encoded(photo(number)) for number in range(5)} | {"bad.jpg": b"\xff\xd8\xff"}
    raw = write_folder(tmp_path / "raw", files)
    path = tmp_path / "ingest.prom"
    command = ["ingest", "own", str(raw), str(tmp_path / "dataset"), "--modality", "US", "--workers", "0"]
    assert main([*command, "--metrics-file", str(path), "--json", "--log-format", "json"]) == 0
    shown = capsys.readouterr()
    found = figures(path)
    assert found["biovfm_ingest_raw_files", "own"] == found["biovfm_ingest_raw_files_read_total", "own"] == 6
    assert found["biovfm_ingest_raw_files_done", "own"] == 6
    assert found["biovfm_ingest_items_total", "kept", "own"] == found["biovfm_ingest_last_kept_images", "own"] == 5
    assert found["biovfm_ingest_last_rejected_items", "unreadable", "own"] == 1
    assert found["biovfm_ingest_last_pending_raw_files", "own"] == 0
    assert found["biovfm_ingest_last_success_timestamp_seconds", "own"] > 1.7e9
    assert found["biovfm_ingest_stage", "commit", "own"] == 1
    lines = [json.loads(line) for line in shown.err.splitlines()]
    assert lines
    assert {line["run"] for line in lines} == {"own"}


def test_an_error_in_a_json_log_is_an_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ingest", "own", str(tmp_path / "none"), str(tmp_path / "dataset"), "--modality", "US"]
    assert main([*command, "--workers", "0", "--log-format", "json"]) == 1
    line = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (line["level"], line["run"]) == ("error", "own")
    assert "no raw data at" in line["message"]
    assert main([*command, "--workers", "0"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("biovfm: ")


EARLY = {
    "stream": (["stream", "nowhere", "--global-batch", "64", "--rank", "3"], {}, ("nowhere", 3)),
    "pretrain": (["pretrain", "nowhere", "--recipe", "none", "--out", "runs/a"], {"RANK": "1"}, ("a", 1)),
    "pretrain, no rank": (["pretrain", "nowhere", "--out", "runs/a"], {"RANK": "x"}, ("a", None)),
    "ingest": (["ingest", "nosuch", "raw", "d", "--num-tasks", "3", "--task-index", "2"], {}, ("nosuch", 2)),
    "ingest in a pod": (
        ["ingest", "nosuch", "raw", "d", "--num-tasks", "2"],
        {"JOB_COMPLETION_INDEX": "1"},
        ("nosuch", 1),
    ),
    "ingest in an array": (
        ["ingest", "nosuch", "raw", "d"],
        {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_ID": "1"},
        ("nosuch", 1),
    ),
    "a wrong option": (["ingest", "nosuch", "--nonsense"], {}, (None, None)),
}


@pytest.mark.parametrize("case", EARLY)
def test_errors_before_the_work_say_of_which_process_they_are(
    case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, variables, (run, rank) = EARLY[case]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main([*words, "--log-format", "json"]) in (1, 2)
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert line["level"] == "error"
    assert (line["run"], line["rank"], line["step"]) == (run, rank, None)


def test_a_task_of_a_shared_job_logs_its_index(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_folder(tmp_path / "raw", {f"{number}.png": encoded(photo(number)) for number in range(3)})
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    command = ["ingest", "own", str(raw), str(tmp_path / "d"), "--modality", "US", "--workers", "0", "--num-tasks=2"]
    assert main([*command, "--deidentified", "--log-format", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines
    assert {(line["run"], line["rank"]) for line in lines} == {("own", 1)}
    assert all("step" in line for line in lines)


@pytest.mark.slow
def test_a_training_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = Dataset.create(str(tmp_path / "dataset"))
    add_source(dataset, "demo", "US", [jpeg(number) for number in range(20)])
    recipe = tmp_path / "nano.yaml"
    recipe.write_text(mae_recipe(run={"steps": 4}).to_yaml())
    path, out = tmp_path / "run.prom", tmp_path / "run7"
    command = ["pretrain", dataset.url, "--recipe", str(recipe), "--out", str(out), "--metrics-file", str(path)]
    assert main([*command, "--json", "--log-format", "json"]) == 0
    shown = capsys.readouterr()
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    found = figures(path)
    assert found["biovfm_train_step", "run7"] == found["biovfm_train_target_steps", "run7"] == 4
    assert found["biovfm_train_loss", "run7"] == pytest.approx(last["loss"])
    assert found["biovfm_train_images_total", "run7"] == 32
    assert found["biovfm_train_step_duration_seconds_count", "run7"] == 4
    assert found["biovfm_train_gradient_norm", "encoder", "run7"] == pytest.approx(last["grad_norm_encoder"])
    assert found["biovfm_stream_images_total", "0", "run7"] >= 32
    lines = [json.loads(line) for line in shown.err.splitlines()]
    assert all({"run", "rank", "step"} <= line.keys() for line in lines)
    steps = [line for line in lines if line["message"] == "step"]
    assert {(line["run"], line["rank"]) for line in steps} == {("run7", 0)}
    assert steps[-1]["step"] == 4
    assert steps[-1]["loss"] == pytest.approx(last["loss"])
    assert main([*command, "--json", "--log-format", "json"]) == 0  # there is nothing left to do
    again = figures(path)
    assert again["biovfm_train_step", "run7"] == again["biovfm_train_target_steps", "run7"] == 4
    assert again["biovfm_train_images_total", "run7"] == 0
    assert ("biovfm_train_loss", "run7") not in again
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["step"] for line in lines if "4 steps of 8 images are" in line["message"]] == [4]


def test_training_says_nothing_before_it_is_known() -> None:
    registry = CollectorRegistry()
    training = TrainingFigures(registry, run="a", global_batch=8)

    def gauges() -> dict[str, float]:
        families = [family for family in registry.collect() if family.type == "gauge"]
        samples = [sample for family in families for sample in family.samples]
        return {sample.name: sample.value for sample in samples if not sample.name.endswith("_created")}

    assert gauges() == {}
    training.start(step=3, steps=9)
    assert gauges() == {"biovfm_train_step": 3, "biovfm_train_target_steps": 9}
