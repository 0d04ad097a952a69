"""Labelled images of a lock, from the table to the probe."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from eval.labelled.table import read_labels
from eval.labelled.task import load_labelled
from eval.medmnist.data import SPLITS
from eval.probes.results import read_results
from infra.cli import main
from ingest.privacy.pseudonyms import KeyedNames
from shards.dataset import Dataset
from shards.dataset.removal import remove_samples
from shards.errors import ConfigError
from shards.subset import Selection, create
from tests.shards.builders import add_source, jpeg

pytestmark = pytest.mark.torch


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """40 gray and 40 coloured images in groups of four, locked."""
    dataset = Dataset.create(str(tmp_path / "data"), encoding={}, pipeline_version=1)
    add_source(dataset, "gray", "CT", [jpeg(number, gray=True) for number in range(40)])
    add_source(dataset, "colour", "US", [jpeg(100 + number) for number in range(40)])
    path = tmp_path / "all.lock.yaml"
    create(dataset, Selection()).write(path)
    return path


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def samples(lock: Path) -> list[dict[str, str]]:
    dataset = Dataset.open(str(lock.parent / "data"))
    found = dataset.query("SELECT key, source, group_id FROM samples ORDER BY key").to_pylist()
    return [row | {"group_id": f"{row['source']} {row['group_id']}"} for row in found]


def by_source(lock: Path, **more: object) -> Path:
    rows = [{"key": row["key"], "coloured": int(row["source"] == "colour"), **more} for row in samples(lock)]
    return write(lock.parent / "coloured.csv", rows)


def test_images_labels_and_groups(lock: Path, tmp_path: Path) -> None:
    task = load_labelled(lock, read_labels(by_source(lock)), size_px=32, cache=tmp_path / "cache")
    assert (task.name, task.kind, task.size_px) == ("coloured", "binary-class", 32)
    assert sum(len(task.split(name)) for name in SPLITS) == 80
    for name in SPLITS:
        part = task.split(name)
        assert part.images.shape[1:] == (32, 32, 3)
        spread = np.ptp(part.images.astype(int), axis=3).reshape(len(part), -1).max(axis=1)
        assert np.array_equal(spread > 30, part.labels[:, 0] == 1)
    again = load_labelled(lock, read_labels(by_source(lock)), size_px=32, cache=tmp_path / "cache")
    assert again.digest == task.digest
    assert len(list((tmp_path / "cache" / "images").iterdir())) == 1


def test_samples_that_went_after_the_lock_was_made_are_labelled_still(lock: Path, tmp_path: Path) -> None:
    table = read_labels(by_source(lock))
    before = load_labelled(lock, table, size_px=16, cache=tmp_path / "cache")
    remove_samples(Dataset.open(str(tmp_path / "data")), [samples(lock)[0]["key"]], transaction="withdraw-x")
    after = load_labelled(lock, table, size_px=16, cache=tmp_path / "other")
    assert after.digest == before.digest


def test_the_probe_of_ones_own_labels(lock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.jsonl"
    line = ["probe", "pixels", "--labels", str(by_source(lock)), "--lock", str(lock), "--size", "28"]
    line += ["--cache", str(tmp_path / "cache"), "--resamples", "20", "--device", "cpu", "--out", str(out)]
    assert main([*line, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["task"] == "coloured"
    assert result["metrics"]["auc"]["value"] > 0.6
    assert result["auc_bounds"]["method"] == "cluster bootstrap"
    assert len(read_results(out)) == 1
    assert main([*line, "--page", str(tmp_path / "page.html")]) == 0
    assert "coloured" in capsys.readouterr().out
    assert "Published figures" not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("kind", ["multi-class", "ordinal-regression", "multi-label, binary-class"])
def test_the_other_kinds(lock: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, object]] = []
    for number, row in enumerate(samples(lock)):
        coloured = row["source"] == "colour"
        grade = {"grade": 2 * coloured + number % 2}
        rows.append({"key": row["key"], **({"mass": int(coloured), "edema": number % 2} if "label" in kind else grade)})
    line = ["probe", "pixels", "--labels", str(write(tmp_path / "own.csv", rows)), "--lock", str(lock), "--size", "28"]
    line += ["--cache", str(tmp_path / "cache"), "--resamples", "20", "--device", "cpu", "--json"]
    assert main([*line, *(["--ordinal"] if "ordinal" in kind else [])]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["kind"] == kind


def test_raw_paths_from_any_folder_on(lock: Path, tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "one"), encoding={}, pipeline_version=1)
    add_source(dataset, "gray", "CT", [jpeg(number) for number in range(20)])
    path = write(tmp_path / "raw.csv", [{"raw_path": f"{number}.jpg", "x": number % 2} for number in range(12)])
    task = load_labelled(str(tmp_path / "one"), read_labels(path), size_px=16, cache=tmp_path / "cache")
    assert sum(len(task.split(name)) for name in SPLITS) == 12


def test_rows_that_name_nothing_are_counted(lock: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows: list[dict[str, object]] = [{"key": row["key"], "x": n % 2} for n, row in enumerate(samples(lock))]
    rows += [{"key": "nobody", "x": 1}, {"key": "unlabelled", "x": ""}]
    load_labelled(lock, read_labels(write(tmp_path / "x.csv", rows)), size_px=16, cache=tmp_path / "cache")
    assert "1 rows name no image of the lock, 1 have no label" in caplog.text
    nothing = write(tmp_path / "y.csv", [{"key": "a", "x": 1}, {"key": "b", "x": 0}])
    with pytest.raises(ConfigError, match="none of its 2 labelled rows names an image"):
        load_labelled(lock, read_labels(nothing), size_px=16, cache=tmp_path / "cache")


def test_splits_of_ones_own_must_keep_groups_whole(lock: Path, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"key": row["key"], "x": n % 2, "split": SPLITS[n % 3]} for n, row in enumerate(samples(lock))
    ]
    with pytest.raises(ConfigError, match="groups have images in two splits"):
        load_labelled(lock, read_labels(write(tmp_path / "x.csv", rows)), size_px=16, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--labels", "x.csv"], "--labels needs --lock"),
        (["--lock", "x.lock.yaml"], "--lock needs --labels"),
        (["--label", "x"], "--label belongs to --labels"),
        (["--labels", "x.csv", "--lock", "x.lock.yaml", "--tasks", "breast"], "--tasks is for MedMNIST's tasks"),
        (["--labels", "x.csv", "--lock", "x.lock.yaml", "--published"], "--published is for MedMNIST's tasks"),
        (["--labels", "nothing.csv", "--lock", "x.lock.yaml"], "cannot read nothing.csv"),
    ],
)
def test_mistakes_are_one_line(more: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "pixels", *more]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_hidden_raw_paths_and_patients_are_found_by_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = Dataset.create(str(tmp_path / "data"))
    for number in range(40):
        names = KeyedNames("clinic", "the secret of the clinic")
        row = {"raw_path": names.path(f"ward/{number}/scan.png"), "group_id": names.group_id(f"P{number}")}
        add_source(dataset, "clinic", "CT", [jpeg(number, gray=number % 2 > 0)], job_id=f"job-{number}", row=row)
    by_path = write(tmp_path / "path.csv", [{"raw_path": f"{n}/scan.png", "x": n % 2} for n in range(40)])
    by_group = write(tmp_path / "group.csv", [{"group_id": f"P{n}", "x": n % 2} for n in range(40)])
    line = ["probe", "pixels", "--lock", dataset.url, "--size", "28", "--cache", str(tmp_path / "cache")]
    line += ["--resamples", "20", "--device", "cpu", "--json"]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))
    monkeypatch.delenv("BIOVFM_SECRET", raising=False)
    assert main([*line, "--labels", str(by_path)]) == 2
    assert "set BIOVFM_SECRET to the secret that made them" in capsys.readouterr().err
    monkeypatch.setenv("BIOVFM_SECRET", "the secret of the clinic")
    for table in (by_path, by_group):
        assert main([*line, "--labels", str(table)]) == 0
        (result,) = json.loads(capsys.readouterr().out)["results"]
        assert result["num_train"] + result["num_val"] + result["num_test"] == 40
        assert result["auc_bounds"]["method"] == "delong+newcombe"


def test_images_of_one_patient_are_resampled_together(
    lock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["probe", "pixels", "random:test_vit", "--labels", str(by_source(lock)), "--lock", str(lock), "--size", "28"]
    line += ["--cache", str(tmp_path / "cache"), "--resamples", "50", "--device", "cpu"]
    assert main([*line, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {result["auc_bounds"]["method"] for result in found["results"]} == {"cluster bootstrap"}
    assert "resample whole groups (cluster bootstrap)" in found["results"][0]["notes"][0]
    assert found["comparisons"][0]["method"] == "cluster bootstrap"


def test_a_split_without_images_and_a_measurement_are_said_in_one_line(
    lock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["probe", "pixels", "--lock", str(lock), "--size", "28", "--cache", str(tmp_path / "cache")]
    some = samples(lock)[:40]
    first = some[0]["group_id"]
    split = [{"split": "val" if row["group_id"] == first else "train"} for row in some]
    rows: list[dict[str, object]] = [{"key": row["key"], "x": n % 2, **split[n]} for n, row in enumerate(some)]
    assert main([*line, "--labels", str(write(tmp_path / "x.csv", rows))]) == 1
    assert "there is no test image" in capsys.readouterr().err.strip().splitlines()[-1]
    many: list[dict[str, object]] = [{"key": row["key"], "x": n} for n, row in enumerate(samples(lock)[:60])]
    assert main([*line, "--labels", str(write(tmp_path / "y.csv", many))]) == 2
    assert "60 different values" in capsys.readouterr().err.strip().splitlines()[-1]
