"""Volumes that are in the data twice go as a whole: a real head, once more as other files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from ingest.duplicates.volumes import _increasing
from ingest.job.run import JobReport
from tests.ingest.duplicates.test_near import detailed
from tests.ingest.job.test_place import SPEC, dicom
from tests.ingest.material import encoded, ingest, public_spec, tables, write_folder

REAL = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
MR = public_spec("mr", "MR")


@pytest.fixture(scope="module")
def head() -> Any:
    """`(128, 96, 24)` int16 in the order of the file."""
    image: Any = nibabel.load(REAL)  # type: ignore[attr-defined]
    return np.asarray(image.dataobj)[..., 0].astype(np.int16)


def nifti(volume: Any) -> bytes:
    affine = np.diag([2.0, 2.0, 2.2, 1.0])
    return bytes(nibabel.Nifti1Image(volume, affine).to_bytes())


def spoilt(volume: Any, every: int) -> Any:
    """A second copy: other gray values, and every n-th slice too noisy for the near-duplicate rule."""
    rng = np.random.default_rng(5)
    copy = volume.astype(float) * 1.05 + rng.normal(0, 2, volume.shape)
    copy[..., ::every] += rng.normal(0, 0.12 * volume.max(), copy[..., ::every].shape)
    return copy.astype(np.int16)


def reasons(dataset: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in tables(dataset)["rejects"]:
        found[row["reason"]] = found.get(row["reason"], 0) + 1
    return found


def paths(dataset: Path) -> set[str]:
    return {row["raw_path"] for row in tables(dataset)["index"]}


def both(tmp_path: Path, files: dict[str, bytes], **dedup: Any) -> JobReport:
    return ingest(write_folder(tmp_path / "raw", files), tmp_path / "d", MR, dedup=dedup)


@pytest.mark.slow
def test_a_second_copy_goes_as_a_whole(head: Any, tmp_path: Path) -> None:
    files = {"a.nii": nifti(head), "b.nii": nifti(spoilt(head, 3))}
    report = both(tmp_path, files)
    assert paths(tmp_path / "d") == {"a.nii"}
    assert report.kept == 24
    assert report.reasons == {"near_duplicate": 24}
    keys = {row["key"] for row in tables(tmp_path / "d")["index"]}
    assert all(row["detail"] in keys for row in tables(tmp_path / "d")["rejects"])
    alone = ingest(tmp_path / "raw", tmp_path / "alone", MR, dedup={"vote": 0})
    assert 24 < alone.kept <= 24 + 8


@pytest.mark.slow
def test_fewer_than_half_in_common_is_dropped_slice_by_slice(head: Any, tmp_path: Path) -> None:
    other = spoilt(head, 1)
    other[..., :8] = spoilt(head, 1000)[..., :8]
    report = both(tmp_path, {"a.nii": nifti(head), "b.nii": nifti(other)})
    assert report.reasons["near_duplicate"] < 12
    assert paths(tmp_path / "d") == {"a.nii", "b.nii"}


@pytest.mark.slow
def test_slices_out_of_order_are_no_copy_of_the_volume(head: Any, tmp_path: Path) -> None:
    order = np.random.default_rng(2).permutation(24)
    mixed = spoilt(head, 3)[..., order]
    report = both(tmp_path, {"a.nii": nifti(head), "b.nii": nifti(mixed)})
    assert report.kept > 24


@pytest.mark.slow
def test_a_copy_that_counts_from_the_other_end_is_one(head: Any, tmp_path: Path) -> None:
    files = {f"{z:02d}.dcm": dicom(head[..., z].T[::-1, ::-1], z=-2.0 * z, series="7.7") for z in range(24)}
    first = write_folder(tmp_path / "a", {"a.nii": nifti(head)})
    second = write_folder(tmp_path / "b", files)
    ingest(first, tmp_path / "d", MR)
    report = ingest(second, tmp_path / "d", SPEC)
    assert (report.kept, report.volumes["volumes"]) == (0, 1)


@pytest.mark.slow
def test_the_committed_volume_stays_whatever_its_name(head: Any, tmp_path: Path) -> None:
    ingest(write_folder(tmp_path / "a", {"z.nii": nifti(spoilt(head, 3))}), tmp_path / "d", MR)
    report = ingest(write_folder(tmp_path / "b", {"a.nii": nifti(head)}), tmp_path / "d", public_spec("later", "MR"))
    assert report.kept == 0
    assert paths(tmp_path / "d") == {"z.nii"}


@pytest.mark.slow
def test_units_and_workers_do_not_change_the_vote(head: Any, tmp_path: Path) -> None:
    files = {"a.nii": nifti(head), "b.nii": nifti(spoilt(head, 3)), "c.nii": nifti(spoilt(head, 4)[::-1])}
    raw = write_folder(tmp_path / "raw", files)
    one = ingest(raw, tmp_path / "one", MR)
    ingest(raw, tmp_path / "many", MR, unit_files=1, workers=2)
    assert one.kept == 48
    rows = [
        sorted((row["raw_path"], row["raw_frame"]) for row in tables(tmp_path / d)["index"]) for d in ("one", "many")
    ]
    assert rows[0] == rows[1]
    assert reasons(tmp_path / "one") == reasons(tmp_path / "many")


@pytest.mark.slow
def test_single_images_take_no_part(tmp_path: Path) -> None:
    files = {f"p{n}/{i}.png": encoded(detailed(10 * n * (i > 1) + i)) for n in (0, 1) for i in range(4)}
    files |= {f"p1/{i}.jpg": encoded(detailed(i), "JPEG", quality=70) for i in range(2)}
    spec = public_spec(grouping={"by": "folder"})
    report = ingest(write_folder(tmp_path / "raw", files), tmp_path / "d", spec)
    assert report.kept == 6


def test_the_longest_chain_is_found_and_uses_each_slice_once() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        pairs = [(int(a), int(b)) for a, b in rng.integers(0, 9, (14, 2))]
        chain = _increasing(pairs)
        assert all(a < c and b < d for (a, b), (c, d) in pairwise(chain))
        assert len(chain) == _longest(sorted(set(pairs)))
    assert _increasing([]) == []


def _longest(pairs: list[tuple[int, int]]) -> int:
    best: dict[tuple[int, int], int] = {}
    for pair in pairs:
        best[pair] = 1 + max((n for (a, b), n in best.items() if a < pair[0] and b < pair[1]), default=0)
    return max(best.values(), default=0)
