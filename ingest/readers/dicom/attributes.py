"""Which attributes of a DICOM file are looked at, and how their values are taken.

None of their text leaves these modules but the modality, through a table; group identifiers go straight into a keyed
hash.
"""

from __future__ import annotations

import io
import zlib
from functools import cache
from typing import Any, BinaryIO, Final

from ingest.raw.budget import claim, claim_array
from ingest.raw.items import RejectError
from ingest.readers.dicom.videos import is_video
from ingest.settings import LimitSettings

_META_BYTES: Final = 4096
_META_LENGTH: Final = b"\x02\0\0\0UL\x04\0"
_DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
_BEYOND: Final = 1 << 63
"""No whole number of the standard is as large (PS3.5 6.2, but for unsigned 64-bit lengths)."""

_COPIES: Final = 3
"""Arrays of a frame's size that are held while it becomes a picture."""

PIXELS: Final = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

ALLOWED: Final = (
    *("Modality", "SOPClassUID", "ImageType", "PatientID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("BurnedInAnnotation", "SpecimenLabelInImage", "ConversionType"),
    *("SequenceOfUltrasoundRegions", "RegionLocationMinX0", "RegionLocationMinY0"),
    *("RegionLocationMaxX1", "RegionLocationMaxY1", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"),
    *("PixelMeasuresSequence", "PlaneOrientationSequence", "ImageOrientationPatient"),
    *("ModalityLUTSequence", "VOILUTSequence", "LUTDescriptor", "LUTData", "WindowCenter", "WindowWidth"),
    *("VOILUTFunction", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("PixelValueTransformationSequence", "FrameVOILUTSequence", *PIXELS),
    *("RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor"),
    *("BluePaletteColorLookupTableDescriptor", "AlphaPaletteColorLookupTableDescriptor"),
    *("RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData"),
    *("SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData"),
    *("SegmentedBluePaletteColorLookupTableData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
"""The attributes that are read; all others are dropped unparsed."""


@cache
def accept_any_value() -> None:
    """Let pydicom keep values that break the standard's rules, without a word about them."""
    import pydicom.config

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


@cache
def _allowed_tags() -> list[Any]:
    """`ALLOWED` as numbers: looking a name up costs as much as parsing an element."""
    from pydicom.tag import Tag

    return [Tag(name) for name in ALLOWED]


def parse(stream: BinaryIO, limits: LimitSettings) -> Any:
    """The allowed attributes of a file.

    Args:
        stream: The file.
        limits: How much it may be inflated to, where its syntax is the deflated one.

    Raises:
        RejectError: It is no DICOM file.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    accept_any_value()
    claim(stream.seek(0, io.SEEK_END), limits, "the file")
    stream.seek(0)
    _check_deflated(stream, limits)
    try:
        dataset = pydicom.dcmread(stream, force=True, specific_tags=_allowed_tags())
    # pydicom raises NotImplementedError of transfer syntaxes and private encodings that it does not read
    except (InvalidDicomError, OSError, ValueError, AttributeError, NotImplementedError, KeyError, TypeError) as error:
        raise RejectError("unreadable", type(error).__name__) from error
    _add_transfer_syntax(dataset)
    return dataset


def _check_deflated(stream: BinaryIO, limits: LimitSettings) -> None:
    """Raise RejectError where a file of the deflated syntax inflates to more than may be held."""
    head = stream.read(_META_BYTES)
    stream.seek(0)
    if _DEFLATED not in head:
        return
    at = head.find(_META_LENGTH)
    if at < 0 or len(head) < at + 12:
        return
    stream.seek(at + 12 + int.from_bytes(head[at + 8 : at + 12], "little"))
    inflater, size = zlib.decompressobj(wbits=-15), 0
    while not inflater.eof and (packed := inflater.unconsumed_tail or stream.read(1 << 16)):
        try:
            size += len(inflater.decompress(packed, 1 << 22))
        except zlib.error:
            break  # the parser says what is wrong
        claim(size * 2, limits, "deflated data")
    stream.seek(0)


def check_image(dataset: Any, limits: LimitSettings) -> None:
    """Raise RejectError where the file holds no pixels, or absurdly many."""
    if not any(name in dataset for name in PIXELS):
        raise RejectError("no_image" if "SOPClassUID" in dataset else "unreadable", "no pixel data")
    rows, columns = (number_of(dataset, name, 0) for name in ("Rows", "Columns"))
    if min(rows, columns) < 1:
        raise RejectError("unreadable", "no rows or columns")
    if rows * columns > limits.max_pixels:
        raise RejectError("decompression_bomb", f"{columns}x{rows} pixels")
    if rows * columns * num_frames(dataset) > limits.max_voxels and not is_video(dataset):
        raise RejectError("decompression_bomb", "too many frames")
    samples, bits = number_of(dataset, "SamplesPerPixel", 1), number_of(dataset, "BitsAllocated", 8)
    if not (1 <= samples <= 4 and 1 <= bits <= 64):
        raise RejectError("unreadable", f"{samples} samples per pixel of {bits} bits")
    claim_array((rows, columns, samples), -(-bits // 8), limits, "a frame", copies=_COPIES)


def _add_transfer_syntax(dataset: Any) -> None:
    """Files without a meta header: the encoding that the parser found says the syntax."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    meta = getattr(dataset, "file_meta", None)
    if meta is None:
        meta = dataset.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" in meta:
        return
    implicit, little = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


@cache
def _tag(name: str) -> Any:
    from pydicom.tag import Tag

    return Tag(name)


def value_of(dataset: Any, name: str, default: Any = None) -> Any:
    """An attribute's value, or the default where it is missing.

    By its number: most attributes are missing, and pydicom raises and catches an error for a name that is.
    """
    tag = _tag(name)
    return dataset[tag].value if tag in dataset else default


def number_of(dataset: Any, name: str, default: int) -> int:
    """An attribute as an integer, or the default where it is missing or no number."""
    value = value_of(dataset, name, default)
    try:
        number = int(value if value not in (None, "") else default)
    except (TypeError, ValueError, OverflowError):
        return default
    return number if abs(number) < _BEYOND else default


def code_of(dataset: Any, name: str) -> str:
    """A coded attribute of one value, upper case."""
    return str(value_of(dataset, name, "") or "").strip().upper()


def codes_of(dataset: Any, name: str) -> tuple[str, ...]:
    """A coded attribute of several values, upper case."""
    value = value_of(dataset, name)
    if value in (None, ""):
        return ()
    parts = value.split("\\") if isinstance(value, str) else value
    try:
        return tuple(str(part).strip().upper() for part in parts)
    except TypeError:
        return ()


def num_frames(dataset: Any) -> int:
    """Frames that the header states, at least one."""
    return max(1, number_of(dataset, "NumberOfFrames", 1))


def frame_item(dataset: Any, number: int, name: str) -> Any:
    """The item of a functional group macro of one frame, the shared one, or None."""
    groups = value_of(dataset, "PerFrameFunctionalGroupsSequence") or ()
    shared = value_of(dataset, "SharedFunctionalGroupsSequence") or ()
    for group in (*groups[number : number + 1], *shared[:1]):
        if items := value_of(group, name):
            return items[0]
    return None


def pair_of(item: Any, name: str) -> tuple[float, float] | None:
    """Two positive numbers, or None."""
    try:
        first, second = (float(value) for value in value_of(item, name) or ())
    except (TypeError, ValueError):
        return None
    return (first, second) if 0 < first < 1e6 and 0 < second < 1e6 else None


def pixel_size(dataset: Any, number: int) -> tuple[float, float]:
    """Height and width of a pixel of one frame, in a common unit; equal where the file does not say.

    The spacing in the patient comes first, then that on the detector, then `PixelAspectRatio`.
    """
    measures = frame_item(dataset, number, "PixelMeasuresSequence")
    candidates = [(measures, "PixelSpacing")] if measures is not None else []
    names = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
    for item, name in (*candidates, *((dataset, name) for name in names)):
        found = pair_of(item, name)
        if found is not None:
            return found
    return 1.0, 1.0
