"""Files that lie beside images and are none are told by their names."""

from __future__ import annotations

import pytest

from ingest.job.select import MASKS, Sieve, mask_ending
from ingest.raw.items import RawItem
from ingest.source.layout import Layout
from tests.ingest.source.test_trees import ALL, spec_of


def taken(path: str, **layout: object) -> int | str:
    return Sieve(Layout.model_validate(layout))(RawItem(path=path))


@pytest.mark.parametrize(
    "name",
    [
        *("7_mask.png", "benign (1)_mask_1.png", "case-3_seg.nii.gz", "a-label.tif", "x_GT.jpg", "m_groundtruth2.png"),
        *("BraTS_001_seg.nii", "v_segmentation.nrrd", "v_labels.mha"),
    ],
)
def test_a_mask_beside_its_image_is_no_image(name: str) -> None:
    assert taken(f"d/{name}") == MASKS
    assert taken(f"d/{name}", include=["**/*"]) == MASKS
    assert taken(f"d/{name}", include=["**/*_mask*", "**/*[-_]label*", "**/*seg*"]) != MASKS


@pytest.mark.parametrize(
    "name",
    [
        "mask.png",
        "unmasked.png",
        "length_12.png",
        "a_masked.png",
        "weight.png",
        "a_seg.dcm",
        "v1_seg_12.png",
        "a_label.mp4",
        "label",
    ],
)
def test_what_only_sounds_alike_or_tells_itself_is_taken(name: str) -> None:
    assert taken(f"d/{name}") == 0


def test_a_glob_that_spells_the_word_takes_the_files() -> None:
    assert taken("d/a_seg.png", include=["**/*_seg.png"]) == 0
    assert taken("d/a_seg.png", include=["labels/**"]) == ""
    assert taken("labels/a_seg.png", include=["labels/**"]) == 0


def test_the_ending_of_a_packed_volume() -> None:
    assert mask_ending("a_seg.nii.gz") == "_seg"
    assert mask_ending("a.nii.gz") == ""


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_mask_beside_an_image_of_the_catalogue_is_never_taken(name: str) -> None:
    sieve, images = Sieve(spec_of(name).layout), [path for path in ALL[name].images if "://" not in path]
    for path in images:
        stem, _, extension = path.removesuffix(".gz").rpartition(".")
        if extension in ("png", "jpg", "jpeg", "tif", "bmp", "nrrd", "nii", "pgm", "ppm"):
            assert not isinstance(sieve(RawItem(path=f"{stem}_mask.{extension}")), int), path
