"""What earlier releases wrote is read, resumed and verified: the promise to people who already have data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ingest.job.identity import PIPELINE_VERSION
from ingest.job.run import run_job
from ingest.settings import IngestSettings
from ingest.source.spec import from_flags
from shards.dataset.dataset import Dataset
from shards.dataset.verify import verify
from shards.decode import Crops
from shards.errors import ConfigError
from shards.stream.stream import Stream
from shards.subset import Lock
from shards.subset import verify as verify_lock
from tests.ingest.material import shard_bytes, tables

DATA = Path(__file__).parent / "data"


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    """A copy of all witnesses whose paths are those of this machine."""
    folder = tmp_path / "witness"
    shutil.copytree(DATA, folder)
    for path in folder.rglob("*"):
        if path.is_file() and b"WITNESS" in (data := path.read_bytes()):
            path.write_bytes(data.replace(b"WITNESS", str(folder).encode()))
    return folder


def test_the_dataset_is_sound_and_says_what_it_said(witness: Path) -> None:
    dataset = Dataset.open(str(witness / "dataset"))
    report = verify(dataset, deep=True)
    assert not report.problems
    assert not report.orphans
    rows = tables(witness / "dataset")
    assert {m: sum(row["modality"] == m for row in rows["index"]) for m in ("CT", "Fundus", "MR")} == {
        "CT": 1,
        "Fundus": 17,
        "MR": 7,
    }
    assert sorted(row["reason"] for row in rows["rejects"]) == [
        "duplicate",
        "near_duplicate",
        "too_small",
        "unreadable",
    ]
    assert len(rows["fingerprints"]) == 25


@pytest.mark.slow
def test_the_lock_holds_and_streams_in_the_same_order(witness: Path) -> None:
    lock = Lock.read(witness / "subset.lock.yaml")
    verify_lock(lock, Dataset.open(str(witness / "dataset")))
    order = [json.loads(line) for line in (witness / "order.jsonl").read_text().splitlines()]
    with Stream(
        str(witness / "subset.lock.yaml"), crops=[Crops(size_px=32)], global_batch=8, seed=0, num_epochs=1
    ) as stream:
        assert [list(batch.keys) for batch in stream] == order


@pytest.mark.slow
def test_a_killed_job_of_an_earlier_pipeline_is_done_by_the_rules_of_today(witness: Path, tmp_path: Path) -> None:
    """Nothing was committed yet, so nothing keeps the old rules; what was staged by them is not mixed in."""
    spec = from_flags(name="cells", modality="Microscopy", deidentified=True)
    settings = IngestSettings(unit_files=8)
    report = run_job(spec, str(witness / "raw" / "cells"), str(witness / "half"), workers=0, settings=settings)
    assert (report.resumed_units, report.kept) == (0, 40)
    run_job(spec, str(witness / "raw" / "cells"), str(tmp_path / "fresh"), workers=0, settings=settings)
    assert shard_bytes(witness / "half") == shard_bytes(tmp_path / "fresh")
    assert not (witness / "half" / "staging").exists()


@pytest.mark.slow
def test_a_dataset_of_an_earlier_pipeline_takes_no_new_samples_unasked(witness: Path) -> None:
    spec = from_flags(name="cells", modality="Microscopy", deidentified=True)
    dataset, raw = str(witness / "dataset"), str(witness / "raw" / "cells")
    before = sorted((witness / "dataset").rglob("*"))
    with pytest.raises(ConfigError, match=r"pipeline version 2; .*--remap NEW_DATASET .*--keep-pipeline"):
        run_job(spec, raw, dataset, workers=0)
    assert sorted((witness / "dataset").rglob("*")) == before
    report = run_job(spec, raw, dataset, workers=0, keep_pipeline=True)
    assert report.kept == 40
    assert "made by pipeline version 2" in report.notes[0]
    opened = Dataset.open(dataset)
    assert [job.get("pipeline_version", 2) for job in opened.jobs()] == [2, 2, 2, PIPELINE_VERSION]
    assert not verify(opened, deep=True).problems
    assert run_job(spec, raw, dataset, workers=0).repeated


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mae", "dinov2"])
def test_a_run_resumes_from_its_checkpoint_to_the_same_losses(witness: Path, method: str) -> None:
    from train.recipe_files import load_recipe
    from train.run import pretrain

    run = witness / method
    before = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    recipe = load_recipe(str(run / "recipe.yaml"), {})
    assert pretrain(recipe, data=str(witness / "subset.lock.yaml"), out=run).steps == 6
    after = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in after] == [1, 2, 3, 4, 5, 6]
    assert [row["keys_checksum"] for row in after] == [row["keys_checksum"] for row in before]
    np.testing.assert_allclose([row["loss"] for row in after], [row["loss"] for row in before], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mae", "dinov2"])
def test_an_exported_model_is_loaded_by_timm(witness: Path, method: str) -> None:
    import timm
    import torch

    model = timm.create_model(f"local-dir:{witness / method / 'export'}", pretrained=True, num_classes=0)
    with torch.inference_mode():
        assert torch.isfinite(model.eval()(torch.zeros(1, 3, 64, 64))).all()


@pytest.mark.torch
def test_a_results_file_is_read(witness: Path) -> None:
    from eval.probes.results import read_results

    (result,) = read_results(witness / "results.jsonl")
    assert result.task == "breastmnist"
    assert result.metrics["auc"].value == pytest.approx(0.827485380116959)
