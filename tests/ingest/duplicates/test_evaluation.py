"""Copies made as MedMNIST makes them are found, reported, and excluded on request; an audit finds what a job let in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ingest.duplicates.audit import audit
from ingest.duplicates.evaluation import load_evaluation
from shards.dataset.dataset import Dataset
from shards.errors import ConfigError
from tests.ingest.duplicates.test_near import copies, detailed
from tests.ingest.material import encoded, ingest, public_spec, tables, write_folder


def medmnist(path: Path, seeds: range, *, side: int, crop: bool) -> Path:
    """A MedMNIST-like file whose test images are squashed or centre-cropped copies."""

    def small(seed: int) -> Any:
        picture = detailed(seed)
        height, width = picture.shape
        if crop:
            left = (width - height) // 2
            picture = picture[:, left : left + height]
        return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))

    images = np.stack([small(seed) for seed in seeds])
    np.savez(path, train_images=images[:0], val_images=images[:0], test_images=images)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("side", [28, 64, 128, 224])
def test_overlap_is_reported_or_excluded(tmp_path: Path, side: int, *, crop: bool) -> None:
    raw = write_folder(tmp_path / "raw", {f"{seed:02d}.png": encoded(detailed(seed)) for seed in range(12)})
    task = medmnist(tmp_path / "chestmnist.npz", range(6, 20), side=side, crop=crop)
    report = ingest(raw, tmp_path / "report", dedup={"evaluation": [str(task)]})
    assert (report.kept, report.eval_overlap) == (12, {"chestmnist": 6})
    report = ingest(raw, tmp_path / "exclude", dedup={"evaluation": [str(task)], "evaluation_policy": "exclude"})
    assert (report.kept, report.reasons) == (6, {"eval_overlap": 6})
    details = {row["raw_path"]: row["detail"] for row in tables(tmp_path / "exclude")["rejects"]}
    assert details == {f"{seed:02d}.png": f"chestmnist/test/{seed - 6}" for seed in range(6, 12)}


@pytest.mark.slow
def test_audit_of_a_finished_dataset(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "a", {f"{seed}.png": encoded(detailed(seed)) for seed in range(6)})
    again = {f"{seed}.jpg": encoded(copies(detailed(seed))["half"], "JPEG") for seed in range(2)}
    ingest(raw, tmp_path / "d", dedup={"near": False})
    ingest(write_folder(tmp_path / "b", again), tmp_path / "d", public_spec("zz"), dedup={"near": False})
    task = medmnist(tmp_path / "octmnist.npz", range(5, 7), side=28, crop=True)
    result = audit(Dataset.open(str(tmp_path / "d")), evaluation=[str(task)])
    assert (result.num_samples, result.near_duplicates, result.eval_overlap, result.skipped_buckets) == (8, 2, 1, 0)
    rows = [row for row in result.table.to_pylist() if not row["keep"]]
    assert {row["source"] for row in rows if row["reason"] == "near_duplicate"} == {"zz"}
    (match,) = [row for row in rows if row["reason"] == "eval_overlap"]
    assert match["representative"] == "octmnist/test/0"


def test_audit_of_nothing(tmp_path: Path) -> None:
    Dataset.create(str(tmp_path / "d"))
    result = audit(Dataset.open(str(tmp_path / "d")))
    assert (result.num_samples, len(result.table)) == (0, 0)


def test_a_wrong_evaluation_file_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"x\.npz"):
        load_evaluation([str(tmp_path / "x.npz")])


def test_command_writes_table_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    import pyarrow.parquet as pq

    from infra.cli import main

    raw = write_folder(tmp_path / "a", {f"{seed}.png": encoded(detailed(seed)) for seed in range(2)})
    raw = write_folder(raw, {"z.jpg": encoded(detailed(1), "JPEG", quality=50)})
    ingest(raw, tmp_path / "d", dedup={"near": False})
    assert main(["dedup", str(tmp_path / "d"), "--out", str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["num_samples"], said["near_duplicates"]) == (3, 1)
    assert pq.read_table(said["table"]).num_rows == 3
    page = Path(said["page"]).read_text(encoding="utf-8")
    assert page.count("<figure>") == 1
    assert page.count("data:image/png;base64,") >= 2
