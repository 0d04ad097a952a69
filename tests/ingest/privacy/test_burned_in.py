"""What becomes of pictures with text in their pixels, and what the index says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from ingest.privacy.burned_in import without_text
from ingest.raw.items import RejectError
from ingest.readers.base import BurnedIn, RawImage
from tests.ingest.material import encoded, ingest, photo, public_spec, tables, write_folder
from tests.ingest.readers.test_dicom import STORAGE, made

YES, UNKNOWN = BurnedIn("yes", "BurnedInAnnotation"), BurnedIn("unknown", "SOPClassUID")
IMAGE = RawImage(pixels=np.arange(3000, dtype=np.uint8).reshape(50, 60), region=(10, 5, 40, 50))


@pytest.mark.parametrize("said", [YES, UNKNOWN])
def test_crop_cuts_down_to_the_regions_whether_text_is_known_or_not(said: BurnedIn) -> None:
    image, cropped = without_text(replace(IMAGE, burned_in=said), "crop")
    assert cropped
    assert image.pixels.shape == (30, 45)
    assert image.burned_in == ("unknown", "SequenceOfUltrasoundRegions")


def test_an_ultrasound_image_without_known_text_is_not_thrown_away() -> None:
    image, cropped = without_text(replace(IMAGE, burned_in=UNKNOWN), "reject")
    assert not cropped
    assert image.pixels.shape == (50, 60)


@pytest.mark.parametrize(("policy", "region"), [("reject", IMAGE.region), ("crop", None)])
def test_known_text_that_cannot_be_cut_off_is_a_reject(policy: Any, region: Any) -> None:
    with pytest.raises(RejectError):
        without_text(replace(IMAGE, burned_in=YES, region=region), policy)


@pytest.mark.slow
def test_the_index_says_what_is_known_and_what_says_so(tmp_path: Path) -> None:
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 20
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 128, 96
    sonogram = made(photo(1, channels=1), Modality="US", SOPClassUID=f"{STORAGE}6.1")
    bordered = made(
        photo(2, channels=1),
        Modality="US",
        SOPClassUID=f"{STORAGE}6.1",
        SequenceOfUltrasoundRegions=Sequence([region]),
    )
    named = made(photo(3, channels=1), Modality="US", BurnedInAnnotation="YES")
    files = {"a.dcm": sonogram, "b.dcm": bordered, "c.dcm": named, "d.png": encoded(photo(4))}
    raw = write_folder(tmp_path / "raw", files)
    spec = public_spec("us", "US")
    for policy, kept in (("keep", "abcd"), ("reject", "abd"), ("crop", "abd")):
        ingest(raw, tmp_path / policy, spec, burned_in=policy)
        rows = {row["raw_path"][0]: row for row in tables(tmp_path / policy)["index"]}
        assert "".join(sorted(rows)) == kept
        assert (rows["a"]["burned_in"], rows["a"]["burned_in_by"]) == ("unknown", "SOPClassUID")
        assert (rows["d"]["burned_in"], rows["d"]["burned_in_by"]) == ("unknown", "")
        assert rows["b"]["height"] == (76 if policy == "crop" else 96)
    said = {row["raw_path"]: row["burned_in"] for row in tables(tmp_path / "keep")["index"]}
    assert said["c.dcm"] == "yes"


def test_the_dataset_states_its_deidentification(tmp_path: Path) -> None:
    import json

    raw = write_folder(tmp_path / "raw", {"a.png": encoded(photo(1))})
    ingest(raw, tmp_path / "d", public_spec())
    said = json.loads((tmp_path / "d" / "dataset.json").read_text())["deidentification"]
    assert said["profile"]["code"] == "113100"
    assert said["options"]["clean_pixel_data"]["applied"] == "by policy"
    assert said["options"]["clean_recognizable_visual_features"]["applied"] == "no"
