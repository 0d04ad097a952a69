"""Files of one folder that are alike by nature are kept, and said."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from infra.cli import main
from ingest.duplicates.audit import audit
from ingest.duplicates.neighbours import CLOSE_NUMBERS, FEW_ALIKE, Neighbourhood, belong_together, neighbourhood_of
from shards.dataset.dataset import Dataset
from tests.ingest.material import encoded, ingest, photo, public_spec, write_folder


def slices(count: int = 20) -> list[bytes]:
    """Slices of a volume that changes slowly."""
    first, last = photo(1, channels=1).astype(float), photo(2, channels=1).astype(float)
    return [encoded((first + (last - first) * n / 400).round().astype(np.uint8)) for n in range(count)]


def numbered(count: int = 20) -> dict[str, bytes]:
    return {f"slice_{n:03d}.png": data for n, data in enumerate(slices(count))}


def standing(*paths: str) -> np.ndarray:
    return np.array([neighbourhood_of("s", path) for path in paths], np.int64)


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("a/slice_001.png", "a/slice_002.png", True),
        ("a/slice_001.png", f"a/slice_{1 + CLOSE_NUMBERS:03d}.png", True),
        ("a/slice_001.png", f"a/slice_{2 + CLOSE_NUMBERS:03d}.png", False),
        ("a/slice_001.png", "b/slice_002.png", False),
        ("a/slice_001.png", "a/slice_001.jpg", False),
        ("a/im1_t2.png", "a/im2_t2.png", False),
        ("a/scan.png", "a/copy.png", False),
        ("7", "8", True),
    ],
)
def test_names_that_differ_in_one_number_by_a_little(first: str, second: str, *, together: bool) -> None:
    assert belong_together(np.array([[0, 1]]), standing(first, second)).tolist() == [together]


def test_a_folder_of_which_a_good_part_is_alike() -> None:
    names = [chr(97 + n) + ".png" for n in range(20)]
    pairs = np.array([[n, n + 1] for n in range(FEW_ALIKE - 1)])
    assert belong_together(pairs, standing(*(f"x/{name}" for name in names))).all()
    assert not belong_together(pairs[:-1], standing(*(f"x/{name}" for name in names))).any()
    many = standing(*(f"x/{name}" for name in names), *(f"x/{n}_of.png" for n in range(1000, 1100)))
    assert not belong_together(pairs, many).any()


def test_nothing_stands_anywhere_where_groups_are_stated() -> None:
    assert not belong_together(np.array([[0, 1]]), np.array([Neighbourhood(), Neighbourhood()], np.int64)).any()
    assert belong_together(np.empty((0, 2), np.int64), np.empty((0, 3), np.int64)).shape == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("deidentified", [True, False])
def test_numbered_slices_are_kept_and_said(tmp_path: Path, *, deidentified: bool) -> None:
    raw = write_folder(tmp_path / "raw", numbered())
    spec = public_spec().model_copy(update={"deidentified": deidentified})
    report = ingest(raw, tmp_path / "d", spec, secret="words")
    assert (report.kept, report.rejected) == (20, 0)
    (note,) = report.notes
    assert "near duplicates were kept" in note
    assert "--group folder" in note
    assert audit(Dataset.open(str(tmp_path / "d"))).near_duplicates == 0


@pytest.mark.slow
def test_they_go_where_the_settings_say_so(tmp_path: Path) -> None:
    report = ingest(write_folder(tmp_path / "raw", numbered()), tmp_path / "d", dedup={"neighbours": "drop"})
    assert report.reasons["near_duplicate"] >= 10
    assert not report.notes


@pytest.mark.slow
def test_copies_of_slices_in_another_folder_still_go(tmp_path: Path) -> None:
    copies = {
        f"b/{name}": encoded(cv2.imdecode(np.frombuffer(data, np.uint8), 0), "JPEG")
        for name, data in numbered().items()
    }
    raw = write_folder(tmp_path / "raw", {f"a/{name}": data for name, data in numbered().items()} | copies)
    report = ingest(raw, tmp_path / "d")
    assert report.reasons["near_duplicate"] >= 15
    assert report.kept >= 20


@pytest.mark.slow
@pytest.mark.parametrize("inner", ["", "patient1/"])
def test_group_folder_works_in_the_raw_folder_itself(
    inner: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_folder(tmp_path / "raw", {f"{inner}{name}": data for name, data in numbered().items()})
    words = ["ingest", "mine", str(raw), str(tmp_path / "d"), "--modality", "MR", "--deidentified", "--workers", "0"]
    assert main([*words, "--group", "folder"]) == 0
    shown = capsys.readouterr()
    assert "20 items = 20 kept + 0 rejected" in " ".join(shown.out.split())
    assert "near duplicates" not in shown.err
    dataset = Dataset.open(str(tmp_path / "d"))
    assert len(dataset.query("SELECT DISTINCT group_id FROM samples")) == 1
