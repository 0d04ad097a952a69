"""Every DICOM file that pydicom ships: pydicom's own pixel pipeline, value by value, or a reason."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import imagecodecs
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


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_shipped_file_is_right_or_rejected_like_pydicom(path: Path) -> None:
    row = outcome(path)
    if row["images"]:
        assert not row["reason"]
        assert row["against_pydicom"] == "equal" or path.name in NEEDS_OTHER_CODEC
    else:
        reason = row["reason"].partition(" ")[0]
        assert reason in {"no_image", "unreadable", "undecodable", "unsupported", "other_object"}
        assert reason == "other_object" or row["against_pydicom"].startswith("pydicom too")


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


STORAGE = "1.2.840.10008.5.1.4.1.1."
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


@pytest.mark.filterwarnings("ignore:The pixel data is:UserWarning")
def test_bytes_beyond_the_stated_frames_are_no_images() -> None:
    (image,) = images(made(RAMP, PixelData=RAMP.tobytes() * 3))
    np.testing.assert_array_equal(image.pixels, RAMP)
    stack = np.stack([RAMP, RAMP + 1])
    assert len(images(made(stack, PixelData=stack.tobytes() * 2))) == 2


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_jpeg_gives_the_values_that_were_stored(bits: int, signed: int) -> None:
    values = np.random.default_rng(bits).integers(0, 1 << bits, (40, 56)).astype(f"u{1 if bits == 8 else 2}")
    stored = bytes(imagecodecs.ljpeg_encode(values, bitspersample=bits))
    options = {"BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": signed}
    (image,) = images(_lossless(values, stored, **options))
    expected = values.astype(np.int64)
    if signed:
        expected = np.where(expected >= 1 << (bits - 1), expected - (1 << bits), expected)
    np.testing.assert_array_equal(image.pixels, expected)
    with pytest.raises(RejectError, match="undecodable"):
        images(_lossless(values, stored, SamplesPerPixel=3, PhotometricInterpretation="RGB", **options))


def _lossless(values: Any, stored: bytes, **attributes: Any) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(made(values, **attributes)))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
    dataset.PixelData = pydicom.encaps.encapsulate([stored])
    dataset["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def test_hostile_headers_are_reasons() -> None:
    data = made(RAMP)
    cases = {
        "unreadable": b"only a text that is called .dcm" * 20,
        "undecodable": made(RAMP, PixelData=RAMP.tobytes()[:100]),
        "decompression_bomb": made(RAMP, Rows=60000, Columns=60000),
        "unsupported": _with_syntax(data, "1.2.840.10008.1.2.4.94"),
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
    assert image.region == (4, 8, 28, 56)
    assert image.burned_in == ("no", "SOPClassUID")
    (image,) = images(made(RAMP, BurnedInAnnotation="YES"))
    assert image.burned_in == ("yes", "BurnedInAnnotation")
    assert image.region is None


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"BurnedInAnnotation": "NO", "SOPClassUID": f"{STORAGE}77.1.5.1"}, ("no", "BurnedInAnnotation")),
        ({"BurnedInAnnotation": "NO", "SOPClassUID": f"{STORAGE}6.1"}, ("unknown", "SOPClassUID")),
        ({"SOPClassUID": f"{STORAGE}3.1"}, ("unknown", "SOPClassUID")),
        ({"SOPClassUID": f"{STORAGE}7", "Modality": "CR"}, ("unknown", "SOPClassUID")),
        ({"SOPClassUID": f"{STORAGE}1.1", "ConversionType": "DI"}, ("unknown", "ConversionType")),
        ({"SOPClassUID": f"{STORAGE}1.1", "Modality": "DX"}, ("unknown", "")),
        ({"SOPClassUID": f"{STORAGE}4.1", "Modality": "MR"}, ("no", "SOPClassUID")),
    ],
)
def test_what_says_that_text_is_burned_in(attributes: dict[str, str], said: tuple[str, str]) -> None:
    (image,) = images(made(RAMP, **attributes))
    assert image.burned_in == said


@pytest.mark.parametrize(
    ("attributes", "reason", "detail"),
    [
        ({"SOPClassUID": f"{STORAGE}66.4"}, "other_object", "segmentation"),
        ({"SOPClassUID": f"{STORAGE}481.2"}, "other_object", "radiotherapy"),
        ({"SOPClassUID": f"{STORAGE}11.1"}, "other_object", "presentation state"),
        ({"SOPClassUID": f"{STORAGE}88.67"}, "other_object", "report"),
        ({"SOPClassUID": f"{STORAGE}104.1"}, "other_object", "encapsulated document"),
        ({"SOPClassUID": f"{STORAGE}9.1.1"}, "other_object", "waveform"),
        ({"SOPClassUID": f"{STORAGE}30"}, "other_object", "parametric map"),
        ({"SOPClassUID": "1.2.3.4", "Modality": "RTDOSE"}, "other_object", "radiotherapy"),
        ({"SOPClassUID": "", "Modality": "SEG"}, "other_object", "segmentation"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen_capture", "ImageType"),
        ({"ImageType": ["DERIVED", "SECONDARY", "DOSE_INFO"]}, "screen_capture", "ImageType"),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"]}, "screen_capture", "ImageType"),
        ({"Modality": "SM", "ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}, "slide_label", "label"),
        ({"Modality": "SM", "ImageType": ["ORIGINAL", "PRIMARY", "OVERVIEW"]}, "slide_label", "overview"),
        ({"Modality": "SM", "SpecimenLabelInImage": "YES"}, "slide_label", "label in the image"),
    ],
)
def test_what_is_no_image_of_a_modality_is_rejected_whatever_its_pixels(
    attributes: dict[str, Any], reason: str, detail: str
) -> None:
    with pytest.raises(RejectError) as caught:
        images(made(RAMP, **attributes))
    assert (caught.value.reason, caught.value.detail) == (reason, detail)


@pytest.mark.parametrize(
    "attributes",
    [
        {"SOPClassUID": f"{STORAGE}481.1", "Modality": "RTIMAGE"},
        {"Modality": "MR", "ImageType": ["ORIGINAL", "PRIMARY", "PROTON_DENSITY"]},
        {"Modality": "MG", "ImageType": ["ORIGINAL", "PRIMARY", "SCREENING"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "LOWDOSE"]},
        {"Modality": "SM", "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "SpecimenLabelInImage": "NO"},
    ],
)
def test_what_only_sounds_alike_is_an_image(attributes: dict[str, Any]) -> None:
    assert len(images(made(RAMP, **attributes))) == 1


def gray_stack(count: int = 5, size: tuple[int, int] = (32, 64)) -> Any:
    rng = np.random.default_rng(4)
    return rng.integers(0, 256, (count, *size), dtype=np.uint8)


def encapsulated(frames: list[bytes], stack: Any) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(made(stack)))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    dataset.PixelData = pydicom.encaps.encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def coded(frame: Any) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpeg2k_encode(frame, level=0, codecformat="j2k", reversible=True))


def test_a_broken_frame_costs_that_frame_and_missing_ones_are_told_once() -> None:
    stack = gray_stack()
    frames = [coded(frame) for frame in stack]
    frames[2] = b"\xff\x4f" + bytes(30)
    found = images(encapsulated(frames, stack))
    assert [(image.frame, image.fault) for image in found] == [
        *(("f0000", ""), ("f0001", ""), ("f0002", "undecodable"), ("f0003", ""), ("f0004", ""))
    ]
    np.testing.assert_array_equal(found[4].pixels, stack[4])
    few = images(encapsulated(frames[:4], stack))
    assert [image.fault for image in few] == ["", "", "undecodable", "", "missing_frames"]
    assert few[4].detail == "1 of 5 stated frames are not in the file"


def test_whole_frames_of_a_cut_file_are_kept() -> None:
    stack = gray_stack()
    found = images(made(stack, PixelData=stack.tobytes()[: 3 * stack[0].size + 100]))
    assert [image.fault for image in found] == ["", "", "", "missing_frames"]
    np.testing.assert_array_equal(found[2].pixels, stack[2])


def test_bits_above_those_stored_are_no_values_even_where_a_codec_returns_them() -> None:
    values = np.arange(2048, dtype=np.uint16).reshape(1, 32, 64) * 2
    overlay = values | np.uint16(0x8000)
    for count in (1, 2):
        dataset = pydicom.dcmread(io.BytesIO(encapsulated([coded(overlay[0])] * count, np.repeat(overlay, count, 0))))
        dataset.BitsStored, dataset.HighBit = 12, 11
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        for image in images(buffer.getvalue()):
            np.testing.assert_array_equal(image.pixels, values[0])


@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_those_stored_are_no_values_of_uncompressed_frames(signed: bool) -> None:
    values = (np.arange(2 * 2048, dtype=np.uint16).reshape(2, 32, 64) & 0x7FF) | 0x8000
    want = values & 0xFFF
    for count in (1, 2):
        options = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": int(signed)}
        for image, stored in zip(
            images(made(values[:count] if count > 1 else values[0], **options)), want, strict=False
        ):
            np.testing.assert_array_equal(image.pixels, stored)


@pytest.mark.parametrize("count", [1, 3])
def test_samples_in_the_upper_bits_of_their_words_are_moved_down(count: int) -> None:
    values = np.stack([np.arange(2048, dtype=np.uint16).reshape(32, 64) + 7 * number for number in range(count)])
    words = values << 4 | 3
    data = made(words[0] if count == 1 else words, BitsStored=12, HighBit=15)
    found = images(data)
    assert [image.bit_depth for image in found] == [12] * count
    for image, expected in zip(found, values, strict=True):
        np.testing.assert_array_equal(image.pixels, expected)
    signed = RAMP << 4
    np.testing.assert_array_equal(images(made(signed, BitsStored=12, HighBit=15))[0].pixels, RAMP)
    packed = pydicom.dcmread(io.BytesIO(data))
    packed.compress("1.2.840.10008.1.2.5")
    buffer = io.BytesIO()
    packed.save_as(buffer)
    with pytest.raises(RejectError, match="unsupported"):
        images(buffer.getvalue())


def lut_item(first: int, entries: Any, bits: int) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "US" if first >= 0 else "SS", [len(entries) & 0xFFFF, first, bits])
    item.add_new(0x00283006, "US", [int(entry) for entry in entries])
    return item


@pytest.mark.parametrize("bits", [12, 16])
def test_a_lookup_table_is_shown_over_the_depth_of_its_entries(bits: int) -> None:
    table = np.linspace(0, 4095, 256).astype(int)
    values = np.arange(2048, dtype=np.int16).reshape(32, 64) - 100
    (image,) = images(made(values, VOILUTSequence=Sequence([lut_item(-50, table, bits)])))
    assert (image.low, image.high, image.windowed) == (0, 4095, True)
    np.testing.assert_array_equal(image.pixels, table[np.clip(values + 50, 0, 255)])


def test_a_lookup_table_follows_a_rescale_that_is_no_integer() -> None:
    table = np.arange(256) * 16
    values = np.arange(2048, dtype=np.int16).reshape(32, 64)
    lut = Sequence([lut_item(0, table, 12)])
    (image,) = images(made(values, RescaleSlope=0.5, RescaleIntercept=0, VOILUTSequence=lut))
    np.testing.assert_array_equal(image.pixels, table[np.clip(np.rint(values * 0.5), 0, 255).astype(int)])


def test_frames_without_a_window_share_one_range() -> None:
    stack = np.stack([RAMP // 100, RAMP, RAMP // 2])
    found = images(made(stack))
    assert len({(image.low, image.high) for image in found}) == 1
    assert to_picture(found[0]).std() < to_picture(found[2]).std() < to_picture(found[1]).std()


def test_colour_of_twelve_bits_in_words_of_sixteen_keeps_its_brightness() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 4096, (30, 40, 3), dtype=np.uint16)
    (image,) = images(made(pixels))
    np.testing.assert_allclose(to_picture(image), pixels / 4095 * 255, atol=0.51)


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ({"PixelAspectRatio": [2, 1]}, (64, 64)),
        ({"PixelAspectRatio": [1, 2]}, (32, 128)),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (64, 64)),
        ({"PixelSpacing": [1, 1], "PixelAspectRatio": [1, 2]}, (32, 64)),
        ({"PixelAspectRatio": [0, 1]}, (32, 64)),
    ],
)
def test_pixels_that_are_not_square_are_stretched(attributes: dict[str, Any], shape: tuple[int, int]) -> None:
    (image,) = images(made(RAMP, **attributes))
    assert image.pixels.shape == shape
