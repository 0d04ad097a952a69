"""What a probe says of its own numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eval.medmnist.data import load_task
from eval.probes.knn import knn
from eval.probes.linear import probe
from eval.probes.results import ProbeResult
from shards.errors import SourceError
from tests.eval.builders import write_archive

pytestmark = pytest.mark.torch

Change = Callable[[dict[str, np.ndarray]], None]


def changed(folder: Path, change: Change, name: str = "breastmnist") -> Path:
    """An archive with something odd about it."""
    path = write_archive(folder, name)
    arrays = dict(np.load(path))
    change(arrays)
    np.savez(path, **arrays)
    return path


def probed(folder: Path, change: Change, name: str = "breastmnist") -> ProbeResult:
    task = load_task(name, root=changed(folder, change, name))
    (result,) = probe("pixels", [task], cache=folder / "cache", num_resamples=20)
    return result


def only(split: str, value: int) -> Change:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[f"{split}_labels"][:] = value

    return change


@pytest.mark.parametrize("classify", [probe, knn])
def test_training_images_of_one_class_are_refused(tmp_path: Path, classify: Callable[..., object]) -> None:
    task = load_task("breast", root=changed(tmp_path, only("train", 0)))
    with pytest.raises(SourceError, match="all 60 training images are of one class"):
        classify("pixels", [task], cache=tmp_path / "cache")


def test_a_test_split_of_one_class_has_no_auc_and_says_so(tmp_path: Path) -> None:
    result = probed(tmp_path, only("test", 0))
    assert result.record()["metrics"]["auc"] is None
    assert "breastmnist: no test image of class 1 (normal, benign): there is no AUC over all classes" in result.notes


def test_a_validation_split_of_one_class_is_said(tmp_path: Path) -> None:
    assert any("no val image of class 0" in note for note in probed(tmp_path, only("val", 1)).notes)


def test_a_label_that_no_image_has_is_said(tmp_path: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["train_labels"][:, 3] = 0

    notes = probed(tmp_path, change, "chestmnist").notes
    assert any("no train image of infiltration: nothing was learnt of it" in note for note in notes)


def test_images_that_are_all_the_same_are_said(tmp_path: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["train_images"][:] = 7

    assert any("all the same image" in note for note in probed(tmp_path, change).notes)


def test_an_empty_split_is_one_line(tmp_path: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["val_images"], arrays["val_labels"] = arrays["val_images"][:0], arrays["val_labels"][:0]

    with pytest.raises(SourceError, match="there is no val image"):
        probed(tmp_path, change)


def test_a_penalty_at_the_edge_of_its_grid_is_said(tmp_path: Path) -> None:
    task = load_task("breast", root=write_archive(tmp_path, "breastmnist"))
    for grid, said in (((1e-7, 1e-6), True), ((1e-9, 1e-3, 1e9), False)):
        (result,) = probe("pixels", [task], cache=tmp_path / "cache", inverse_penalties=grid, num_resamples=20)
        at_edge = result.settings["C"] in (grid[0], grid[-1])
        assert any("lies at the edge" in note for note in result.notes) == at_edge
        assert at_edge or not said
