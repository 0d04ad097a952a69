from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import CheckpointError
from tests.train.checkpoint.material import described
from tests.train.recipes import mae_recipe
from train.checkpoint import check_digest, check_resumable, setting_changes

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


def test_another_digest_is_refused() -> None:
    check_digest(described(1), "sha256:x", data="lock")
    with pytest.raises(CheckpointError, match="digest sha256:y, the checkpoint at step 1 has sha256:x"):
        check_digest(described(1), "sha256:y", data="lock")
