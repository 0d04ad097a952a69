"""Every DICOM file that pydicom ships: pydicom's own pixel pipeline, value by value, or a reason."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from infra.bench.dicom_table import dicom_files, outcome
from ingest.picture.normalise import to_picture
from ingest.raw.items import RawFile, RejectError
from ingest.readers import RawImage, ReadOptions
from ingest.readers.dicom import read
from ingest.settings import LimitSettings
from ingest.source.layout import FrameRule, Window

SHIPPED = Path(pydicom.__file__).parent / "data"
FILES = [path for path in dicom_files([str(SHIPPED)]) if "dicomdirtests" not in path.parts]
NEEDS_OTHER_CODEC = {"JPEG-lossy.dcm", "JPGExtended.dcm"}
"""Twelve-bit JPEG: decoded here, not by the plugins of pydicom that are installed."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_shipped_file_is_right_or_rejected_like_pydicom(path: Path) -> None:
    row = outcome(path)
    if row["images"]:
        assert not row["reason"]
        assert row["against_pydicom"] == "equal" or path.name in NEEDS_OTHER_CODEC
    else:
        assert row["reason"].partition(" ")[0] in {"no_image", "unreadable", "undecodable", "unsupported"}
        assert row["against_pydicom"].startswith("pydicom too")


def test_the_shipped_files_are_really_there() -> None:
    assert len(FILES) > 80


def made(pixels: Any, **attributes: Any) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.Modality = "CT"
    colour = pixels.shape[-1] == 3
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    if pixels.ndim - colour == 3:
        dataset.NumberOfFrames = pixels.shape[0]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def images(data: bytes, **options: Any) -> list[RawImage]:
    return list(read(RawFile.of_bytes(data, "a.dcm"), ReadOptions(**options)))


RAMP = np.arange(-1024, 1024, dtype=np.int16).reshape(32, 64)


def expected_linear(values: Any, center: float, width: float) -> Any:
    """PS3.3 C.11.2.1.2.1, written out again for 0 to 255."""
    out = ((values - (center - 0.5)) / (width - 1) + 0.5) * 255
    out = np.where(values <= center - 0.5 - (width - 1) / 2, 0, out)
    return np.where(values > center - 0.5 + (width - 1) / 2, 255, out)


def test_linear_window_after_rescale() -> None:
    (image,) = images(made(RAMP, RescaleSlope=2, RescaleIntercept=10, WindowCenter=[40, 9], WindowWidth=[400, 9]))
    np.testing.assert_array_equal(image.pixels, RAMP * 2.0 + 10)
    np.testing.assert_allclose(to_picture(image), expected_linear(RAMP * 2.0 + 10, 40, 400), atol=0.51)
    assert image.windowed


def test_monochrome1_is_inverted_after_the_window() -> None:
    options = {"WindowCenter": 0, "WindowWidth": 500}
    (dark,) = images(made(RAMP, **options))
    (bright,) = images(made(RAMP, PhotometricInterpretation="MONOCHROME1", **options))
    np.testing.assert_array_equal(to_picture(bright), 255 - to_picture(dark))


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_other_window_functions(function: str) -> None:
    (image,) = images(made(RAMP, WindowCenter=10, WindowWidth=300, VOILUTFunction=function))
    x = RAMP.astype(float)
    exact = np.clip((x - 10) / 300 + 0.5, 0, 1) * 255
    sigmoid = 255 / (1 + np.exp(-4 * (x - 10) / 300))
    np.testing.assert_allclose(to_picture(image), exact if function == "LINEAR_EXACT" else sigmoid, atol=0.51)


@pytest.mark.parametrize("width", [0, 0.5, -3, ""])
def test_width_under_one_falls_back_to_percentiles_without_padding(width: Any) -> None:
    padded = RAMP.copy()
    padded[:10] = -2000
    (image,) = images(made(padded, WindowCenter=0, WindowWidth=width, PixelPaddingValue=-2000))
    assert not image.windowed
    kept = padded[10:]
    assert (image.low, image.high) == pytest.approx(tuple(np.percentile(kept, (0.5, 99.5))))


def test_window_of_the_spec_serves_where_the_file_has_none() -> None:
    (image,) = images(made(RAMP), window=Window(center=0, width=100))
    assert (image.low, image.high, image.windowed) == (-50, 50, True)


def test_colour_planes_and_frames() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 30, 40, 3), dtype=np.uint8)
    for array, planar in ((pixels, 0), (np.ascontiguousarray(np.moveaxis(pixels, -1, 1)), 1)):
        data = made(pixels, PlanarConfiguration=planar, PixelData=array.tobytes())
        found = images(data, frames=FrameRule(every=2))
        assert [image.frame for image in found] == ["f0000", "f0002"]
        np.testing.assert_array_equal(found[1].pixels, pixels[2])


def test_each_frame_of_an_enhanced_file_has_its_own_rescale_and_window() -> None:
    def item(**attributes: Any) -> Dataset:
        dataset = Dataset()
        for name, value in attributes.items():
            setattr(dataset, name, value)
        return dataset

    groups = [
        item(
            PixelValueTransformationSequence=Sequence([item(RescaleSlope=1, RescaleIntercept=100 * number)]),
            FrameVOILUTSequence=Sequence([item(WindowCenter=50 * number, WindowWidth=200)]),
        )
        for number in range(2)
    ]
    found = images(made(np.stack([RAMP, RAMP]), PerFrameFunctionalGroupsSequence=Sequence(groups)))
    np.testing.assert_array_equal(found[1].pixels, RAMP.astype(int) + 100)
    np.testing.assert_allclose(to_picture(found[1]), expected_linear(RAMP + 100.0, 50, 200), atol=0.51)


def test_hostile_headers_are_reasons() -> None:
    data = made(RAMP)
    cases = {
        "unreadable": b"only a text that is called .dcm" * 20,
        "undecodable": made(RAMP, PixelData=RAMP.tobytes()[:100]),
        "decompression_bomb": made(RAMP, Rows=60000, Columns=60000),
        "unsupported": _with_syntax(data, "1.2.840.10008.1.2.4.102"),
    }
    for reason, bad in cases.items():
        with pytest.raises(RejectError) as caught:
            images(bad)
        assert caught.value.reason == reason, reason
    with pytest.raises(RejectError):
        images(data, limits=LimitSettings(max_voxels=100))


def _with_syntax(data: bytes, syntax: str) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset["PixelData"].is_undefined_length = True
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0\0\0\1" * 8])
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def test_ultrasound_regions_and_burned_in_flag() -> None:
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 8, 4
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 56, 28
    (image,) = images(made(RAMP, SequenceOfUltrasoundRegions=Sequence([region])))
    assert image.burned_in
    assert image.region == (4, 8, 28, 56)
    (image,) = images(made(RAMP, BurnedInAnnotation="YES"))
    assert image.burned_in
    assert image.region is None
