"""DICOM files: every frame, through the grayscale pipeline of the standard (PS3.3 C.11, PS3.4 N.2).

Stored values → modality LUT or rescale → VOI LUT or window → inversion of MONOCHROME1. Palettes are looked up, YBR
becomes RGB, planes are interleaved. A window narrower than 1 (real files carry 0) counts as none: then the 0.5 and
99.5 percentiles bound the range, padding left out.

Only the attributes named in `ALLOWED` are looked at (and, to put a series in order, those in `dicom_header`). None of
their text leaves this file but the modality, through a table; group identifiers go straight into a keyed hash.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import numpy as np

from ingest.raw.items import Place, RawFile, RejectError
from ingest.readers.base import Pixels, RawImage, ReadOptions, chosen_frames, percentile_range, window_range
from ingest.readers.volumes import square_pixels

MODALITY_TAGS: Final = {
    **dict.fromkeys(("CR", "DX", "XA", "RF", "MG", "RTIMAGE", "IO", "PX", "RG"), "X-Ray"),
    **dict.fromkeys(("NM", "PT"), "NM"),
    **dict.fromkeys(("US", "IVUS", "BDUS"), "US"),
    **dict.fromkeys(("SM", "GM"), "Microscopy"),
    **dict.fromkeys(("OPT", "OCT", "IVOCT"), "OCT"),
    "OPTBSV": "OCTA",
    "CT": "CT",
    "MR": "MR",
    "OP": "Fundus",
    "DMS": "Dermoscopy",
    "ES": "Endoscopy",
}
"""DICOM Modality (0008,0060) → tag. Others (SC, OT, SEG, RTDOSE …) say nothing about how the picture was made."""

ALLOWED: Final = (
    *("Modality", "SOPClassUID", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "BurnedInAnnotation"),
    *("SequenceOfUltrasoundRegions", "RegionLocationMinX0", "RegionLocationMinY0"),
    *("RegionLocationMaxX1", "RegionLocationMaxY1", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "LUTDescriptor", "LUTData", "WindowCenter", "WindowWidth"),
    *("VOILUTFunction", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("PixelValueTransformationSequence", "FrameVOILUTSequence", "PixelData", "FloatPixelData"),
    *("DoubleFloatPixelData", "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor"),
    *("BluePaletteColorLookupTableDescriptor", "AlphaPaletteColorLookupTableDescriptor"),
    *("RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData"),
    *("SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData"),
    *("SegmentedBluePaletteColorLookupTableData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
"""The attributes that are read; all others are dropped unparsed."""

_PIXELS: Final = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """The frames of a DICOM file, `f0000` … where there are several.

    A file that is a slice of a series (`options.place`) follows the rules of volumes: its number is the frame, its
    stack's range serves where it brings no window, and its pixels are made square.
    """
    if options.place is not None and not options.place.taken:
        raise RejectError("not_chosen", "the frame rule of the source")
    accept_any_value()
    with raw.open() as stream:
        dataset = _parse(stream, options)
        count = number_of(dataset, "NumberOfFrames", 1) or 1
        frames = chosen_frames(count, options.frames)
        facts = _Facts.of(dataset, options, several=count > 1)
        for number, stored in zip(frames, _stored(dataset, frames, count), strict=False):
            image = facts.image(stored, number)
            yield image if options.place is None or count > 1 else _in_place(image, options.place)


def _in_place(image: RawImage, place: Place) -> RawImage:
    pixels = square_pixels(image.pixels, *place.spacing)
    region = image.region if pixels is image.pixels else None
    return replace(image, pixels=pixels, frame=place.frame, part_of_volume=not place.alone, region=region)


def gray_values(raw: RawFile, options: ReadOptions) -> Pixels:
    """The values of a single-frame file after the modality LUT, without padding: what a range is estimated from.

    Raises:
        RejectError: It cannot be decoded.
    """
    accept_any_value()
    with raw.open() as stream:
        dataset = _parse(stream, options)
        stored = next(iter(_stored(dataset, range(1), 1)))
        return _without_padding(stored, _modality_values(stored, dataset, 0), dataset)


@cache
def accept_any_value() -> None:
    """Values are checked where they are used."""
    import pydicom.config

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


@cache
def _allowed_tags() -> list[Any]:
    """`ALLOWED` as numbers: looking a name up costs as much as parsing an element."""
    from pydicom.tag import Tag

    return [Tag(name) for name in ALLOWED]


def _parse(stream: Any, options: ReadOptions) -> Any:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        dataset = pydicom.dcmread(stream, force=True, specific_tags=_allowed_tags())
    except (InvalidDicomError, OSError, ValueError, AttributeError, NotImplementedError, KeyError, TypeError) as error:
        raise RejectError("unreadable", type(error).__name__) from error
    if not any(name in dataset for name in _PIXELS):
        raise RejectError("no_image" if "SOPClassUID" in dataset else "unreadable", "no pixel data")
    size = [number_of(dataset, name, 0) for name in ("Rows", "Columns")]
    if min(size) < 1:
        raise RejectError("unreadable", "no rows or columns")
    if size[0] * size[1] > options.limits.max_pixels:
        raise RejectError("decompression_bomb", f"{size[1]}x{size[0]} pixels")
    if size[0] * size[1] * (number_of(dataset, "NumberOfFrames", 1) or 1) > options.limits.max_voxels:
        raise RejectError("decompression_bomb", "too many frames")
    _add_transfer_syntax(dataset)
    return dataset


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


def _stored(dataset: Any, frames: Sequence[int], count: int) -> Iterator[Pixels]:
    """Stored values (colour already RGB) frame by frame, so that memory holds one frame at a time."""
    try:
        yield from _decoded(dataset, frames, count)
    except (NotImplementedError, RuntimeError) as error:
        known = dataset.file_meta.TransferSyntaxUID
        reason = "unsupported" if known.is_private or not _has_decoder(known) else "undecodable"
        raise RejectError(reason, type(error).__name__) from error
    except (ValueError, AttributeError, KeyError, OSError, TypeError, IndexError, EOFError) as error:
        raise RejectError("undecodable", type(error).__name__) from error


def _decoded(dataset: Any, frames: Sequence[int], count: int) -> Iterator[Pixels]:
    from pydicom.pixels.utils import iter_pixels, pixel_array
    from pydicom.uid import JPEGExtended12Bit

    if dataset.file_meta.TransferSyntaxUID == JPEGExtended12Bit and number_of(dataset, "BitsStored", 8) > 8:
        yield from _twelve_bit_jpegs(dataset, frames, count)
    elif count == 1:
        yield pixel_array(dataset)
    else:
        yield from iter_pixels(dataset, indices=None if len(frames) == count else list(frames))


def _twelve_bit_jpegs(dataset: Any, frames: Sequence[int], count: int) -> Iterator[Pixels]:
    """JPEG Process 4, which the plugins of pydicom that are free of the GPL do not decode."""
    import imagecodecs
    from pydicom.encaps import generate_frames

    wanted = set(frames)
    for number, data in enumerate(generate_frames(dataset.PixelData, number_of_frames=count)):
        if number not in wanted:
            continue
        try:
            yield np.asarray(imagecodecs.jpeg_decode(data))
        except Exception as error:  # the codec's own error class is not public
            raise ValueError("not decodable") from error


def _has_decoder(syntax: Any) -> bool:
    from pydicom.pixels.decoders.base import get_decoder

    try:
        return bool(get_decoder(syntax).is_available) or not syntax.is_encapsulated
    except NotImplementedError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What all frames of a file share."""

    dataset: Any
    options: ReadOptions
    several: bool
    modality: str
    group: str
    bits: int
    signed: bool
    photometric: str
    burned_in: bool
    region: tuple[int, int, int, int] | None

    @classmethod
    def of(cls, dataset: Any, options: ReadOptions, *, several: bool) -> _Facts:
        photometric = str(dataset.get("PhotometricInterpretation", "")).strip().upper()
        region = _ultrasound_region(dataset)
        return cls(
            dataset=dataset,
            options=options,
            several=several,
            modality=MODALITY_TAGS.get(str(dataset.get("Modality", "")).strip().upper(), ""),
            group=str(dataset.get(options.group_tag, "") or ""),
            bits=number_of(dataset, "BitsStored", 0) or number_of(dataset, "BitsAllocated", 8),
            signed=number_of(dataset, "PixelRepresentation", 0) == 1,
            photometric=photometric,
            burned_in=str(dataset.get("BurnedInAnnotation", "")).strip().upper() == "YES" or region is not None,
            region=region,
        )

    def image(self, stored: Pixels, number: int) -> RawImage:
        """One frame."""
        if self.photometric == "PALETTE COLOR":
            pixels, low, high = _palette(stored, self.dataset), None, None
            windowed = invert = False
        elif stored.ndim == 3:
            pixels, windowed, invert = stored, False, False
            low, high = (None, None) if stored.dtype == np.uint8 else (0.0, float(2**self.bits - 1))
        else:
            pixels, low, high, windowed = self._gray(stored, number)
            invert = self.photometric == "MONOCHROME1"
        return RawImage(
            pixels=pixels,
            frame=f"f{number:04d}" if self.several else "",
            modality=self.modality,
            bit_depth=self.bits,
            low=low,
            high=high,
            windowed=windowed,
            invert=invert,
            group=self.group,
            part_of_volume=self.several,
            burned_in=self.burned_in,
            region=self.region,
        )

    def _gray(self, stored: Pixels, number: int) -> tuple[Pixels, float | None, float | None, bool]:
        voi = _frame_item(self.dataset, number, "FrameVOILUTSequence") or self.dataset
        values = _modality_values(stored, self.dataset, number)
        if "VOILUTSequence" in voi and values.dtype.kind in "iu":
            looked_up, top = _voi_lut(values, voi)
            return looked_up, 0.0, top, True
        window = window_of(voi)
        if window is not None:
            return _apply_window(values, *window)
        if self.options.window is not None:
            return values, *window_range(self.options.window), True
        if self.bits <= 8 and not self.signed and values.dtype.kind in "ui" and values.dtype.itemsize == 1:
            return values, 0.0, float(2**self.bits - 1), False
        place = self.options.place
        if place is not None and place.low < place.high:
            return values, place.low, place.high, False
        return values, *percentile_range(_without_padding(stored, values, self.dataset)), False


def number_of(dataset: Any, name: str, default: int) -> int:
    """An attribute as an integer, or the default where it is missing or none."""
    value = dataset.get(name, default)
    try:
        return int(value if value not in (None, "") else default)
    except (TypeError, ValueError):
        return default


def _frame_item(dataset: Any, number: int, name: str) -> Any:
    """The item of a functional group macro of one frame, the shared one, or None."""
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    for group in (*groups[number : number + 1], *shared[:1]):
        if group.get(name):
            return group.get(name)[0]
    return None


def _modality_values(stored: Pixels, dataset: Any, number: int) -> Pixels:
    """Stored values in the modality's unit; whole slopes keep integers."""
    if dataset.get("ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        return np.asarray(apply_modality_lut(stored, dataset))
    scale = _frame_item(dataset, number, "PixelValueTransformationSequence") or dataset
    slope, intercept = scale.get("RescaleSlope"), scale.get("RescaleIntercept")
    if slope in (None, "") or intercept in (None, ""):
        return stored
    slope, intercept = float(slope), float(intercept)
    if slope == 1 and intercept == 0:
        return stored
    if slope == 1 and intercept.is_integer() and stored.dtype.kind in "iu" and stored.dtype.itemsize < 4:
        return stored.astype(np.int32) + int(intercept)
    return stored.astype(np.float64) * slope + intercept


def _voi_lut(values: Pixels, voi: Any) -> tuple[Pixels, float]:
    from pydicom.pixels.processing import apply_voi

    bits = int(voi.VOILUTSequence[0].LUTDescriptor[2]) or 16
    looked_up = np.asarray(apply_voi(values, voi))
    return looked_up, float(max(2**bits - 1, 1))


def window_of(voi: Any) -> tuple[float, float, str] | None:
    """Centre, width and function of the first window, or None where it is missing or narrower than 1."""
    try:
        center = float(np.atleast_1d(voi.get("WindowCenter"))[0])
        width = float(np.atleast_1d(voi.get("WindowWidth"))[0])
    except (TypeError, ValueError, IndexError):
        return None
    function = str(voi.get("VOILUTFunction", "") or "LINEAR").strip().upper()
    least = 1.0 if function == "LINEAR" else 1e-9
    return (center, width, function) if np.isfinite([center, width]).all() and width >= least else None


def _apply_window(values: Pixels, center: float, width: float, function: str) -> tuple[Pixels, float, float, bool]:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        curve = 1 / (1 + np.exp(-4 * (values.astype(np.float64) - center) / width))
        return curve, 0.0, 1.0, True
    if function == "LINEAR_EXACT":
        return values, center - width / 2, center + width / 2, True
    half = (width - 1) / 2
    return values, center - 0.5 - half, center - 0.5 + half, True


def _without_padding(stored: Pixels, values: Pixels, dataset: Any) -> Pixels:
    padding = dataset.get("PixelPaddingValue")
    if padding in (None, "") or isinstance(padding, (bytes, str)):
        return values
    limit = dataset.get("PixelPaddingRangeLimit", padding)
    low, high = sorted((int(padding), int(limit if not isinstance(limit, (bytes, str)) else padding)))
    kept = values[(stored < low) | (stored > high)]
    return kept if kept.size else values


def _palette(stored: Pixels, dataset: Any) -> Pixels:
    """RGB uint8; 16-bit tables keep their high byte, unless they only fill the low one."""
    from pydicom.pixels.processing import apply_color_lut

    rgb = np.asarray(apply_color_lut(stored, dataset))[..., :3]
    if rgb.dtype != np.uint8:
        rgb = (rgb >> 8 if rgb.max(initial=0) > 255 else rgb).astype(np.uint8)
    return rgb


def _ultrasound_region(dataset: Any) -> tuple[int, int, int, int] | None:
    """The box around all ultrasound regions, where it leaves out more than a tenth of the picture."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    boxes = []
    for item in dataset.get("SequenceOfUltrasoundRegions") or ():
        edges = [number_of(item, f"RegionLocation{name}", -1) for name in ("MinY0", "MinX0", "MaxY1", "MaxX1")]
        if 0 <= edges[0] < edges[2] <= rows and 0 <= edges[1] < edges[3] <= columns:
            boxes.append(edges)
    if not boxes:
        return None
    top, left = min(box[0] for box in boxes), min(box[1] for box in boxes)
    bottom, right = max(box[2] for box in boxes), max(box[3] for box in boxes)
    covers = (bottom - top) * (right - left) > 0.9 * rows * columns
    return None if covers else (top, left, bottom, right)
