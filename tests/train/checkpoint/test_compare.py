from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shards.errors import CheckpointError
from shards.stream.digests import Digests
from tests.train.checkpoint.material import described
from tests.train.recipes import mae_recipe
from train.checkpoint import check_resumable, check_samples, code_version, setting_changes

pytestmark = pytest.mark.torch


def test_every_changed_setting_is_a_line() -> None:
    before = mae_recipe().model_dump(mode="json")
    now = mae_recipe(optim={"base_lr": 0.1, "betas": [0.5, 0.5]}, run={"steps": 20}).model_dump(mode="json")
    assert setting_changes(before, now) == [
        "optim.base_lr was 0.001, now 0.1",
        "optim.betas was [0.9, 0.95], now [0.5, 0.5]",
        "run.steps was 10, now 20",
    ]


def test_a_setting_that_the_earlier_release_did_not_have_is_no_change() -> None:
    before = mae_recipe().model_dump(mode="json")
    del before["model"]["drop_path"], before["run"]["compile"]
    assert setting_changes(before, mae_recipe().model_dump(mode="json")) == []
    check_resumable(described(1, recipe=before), mae_recipe(), where=Path("x"))


def test_a_setting_that_decides_about_the_tensors_is_refused() -> None:
    checkpoint = described(1, recipe=mae_recipe().model_dump(mode="json"))
    with pytest.raises(CheckpointError, match=r"model\.size was nano, the recipe says tiny"):
        check_resumable(checkpoint, mae_recipe(model={"size": "tiny"}), where=Path("x"))


HERE = Digests(samples="md5sum128:aa", order="sha256:11", num_samples=4, earlier="sha256:x")
OTHER = Digests(samples="md5sum128:bb", order="sha256:22", num_samples=4)


def test_other_samples_are_refused_with_both_digests() -> None:
    with pytest.raises(CheckpointError, match=r"lock is not what this run.*digest sha256:x, here md5sum128:bb"):
        check_samples(described(1), OTHER, data="lock")
    now = {"stream": {"epoch": 0, "batch": 1, "samples": HERE.samples, "order": HERE.order}}
    with pytest.raises(CheckpointError, match="digest md5sum128:aa, here md5sum128:bb"):
        check_samples(described(1, **now), OTHER, data="lock")
    packed = Digests(samples="md5sum128:aa", order="sha256:22", num_samples=4)
    with pytest.raises(CheckpointError, match="digest of the order sha256:11, here sha256:22"):
        check_samples(described(1, **now), packed, data="lock")
    assert "another packing" in " ".join(check_samples(described(1, **now), packed, data="lock", accept_packing=True))


def test_a_checkpoint_says_what_it_does_not_pin_and_who_wrote_it() -> None:
    now = {"stream": {"epoch": 0, "batch": 1, "samples": HERE.samples, "order": HERE.order}}
    assert check_samples(replace(described(1, **now), code_version=code_version()), HERE, data="lock") == []
    unpinned, written = check_samples(replace(described(1), code_version="0.0.9"), HERE, data="lock")
    assert "pins the samples, not the order" in unpinned
    assert "written by biovfm 0.0.9" in written


def test_other_samples_name_what_was_withdrawn(tmp_path: Path) -> None:
    import pyarrow as pa

    from shards.dataset.dataset import Dataset
    from shards.schema import withdrawn_schema

    dataset = Dataset.create(str(tmp_path / "d"))
    row = {"withdrawal": "w", "kind": "pixels", "mark": "m", "source": "a", "reason": "consent"}
    rows = [{**row, "withdrawn_at": "2026-01-02T00:00:00+00:00"}] * 3
    dataset.append("withdrawn", "w", pa.Table.from_pylist(rows, schema=withdrawn_schema()))
    with pytest.raises(CheckpointError, match=r"3 samples were withdrawn on 2026-01-02 \(consent\)"):
        check_samples(described(1), OTHER, data=dataset.url)
    with pytest.raises(CheckpointError, match="3 samples were withdrawn"):
        check_samples(described(1), OTHER, data=str(tmp_path / "a.lock.yaml"), dataset=dataset.url)
