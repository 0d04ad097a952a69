"""What the header of a DICOM file says of its place in a series; the pixels are neither read nor unpacked."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import numpy as np

from ingest.raw.faults import fault_of
from ingest.raw.items import RawFile
from ingest.readers.dicom.attributes import accept_any_value, number_of
from ingest.readers.dicom.values import window_of

HEAD_BYTES: Final = 64 << 10
_LAST_TAG: Final = 0x0028_3010  # VOILUTSequence: all that is asked for lies before it or is it
_WANTED: Final = (
    *("Modality", "SeriesInstanceUID", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient"),
    *("AcquisitionNumber", "EchoNumbers", "TemporalPositionIdentifier", "Rows", "Columns", "PixelSpacing"),
    *("NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "PixelRepresentation"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
)

_LARGEST: Final = 1e9
"""Millimetres: beyond them (NaN and infinities too) lies no patient, and products of such numbers overflow."""

Vector = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceHeader:
    """A single-frame DICOM file of a series.

    Attributes:
        series: The series' UID; never leaves the process as it is.
        tomographic: Whether the modality is CT, MR or PET: then files without geometry are slices too.
        layout: Rows, columns, bits, sign and samples: slices of one stack agree in them.
        orientation: Direction cosines of rows and columns, 6 numbers; empty where the file gives none.
        position: Millimetres, 3 numbers; empty likewise.
        spacing: Millimetres between rows and between columns.
        order: Temporal position, acquisition, echo, instance number: what tells files at one position apart.
        instance: Instance number.
        windowed: Whether the file brings an intensity window, table or fixed range of its own.
    """

    series: str
    tomographic: bool
    layout: tuple[int, ...]
    orientation: Vector
    position: Vector
    spacing: tuple[float, float]
    order: tuple[int, ...]
    instance: int
    windowed: bool


def read_header(raw: RawFile) -> SliceHeader | None:
    """The header of a single-frame file that belongs to a series; None for everything else.

    Raises:
        UnavailableError: The file cannot be read now.
        MachineError: This machine has no space, memory or file handles left.
    """
    accept_any_value()
    try:
        head = raw.head(HEAD_BYTES)
        found, complete = _parse(io.BytesIO(head))
        if not complete and len(head) == HEAD_BYTES:
            with raw.open() as stream:
                found, _ = _parse(stream)
        return _header(found)  # values are converted when they are asked for, and fail then
    except Exception as error:  # parsers raise anything on broken files; the map step gives the reason
        fault = fault_of(error)
        if fault is not None:
            raise fault from error
        return None


def _parse(stream: BinaryIO) -> tuple[Any, bool]:
    """The data set, and whether it was read as far as needed."""
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    passed: list[bool] = []
    wanted: list[Any] = [Tag(name) for name in _WANTED]

    def behind(tag: int, _representation: str | None, _length: int) -> bool:
        if int(tag) > _LAST_TAG:
            passed.append(True)
        return bool(passed)

    try:
        found = read_partial(stream, stop_when=behind, force=True, specific_tags=wanted)
    except EOFError:
        return None, False
    return found, bool(passed)


def _header(found: Any) -> SliceHeader | None:
    if found is None or "SeriesInstanceUID" not in found or (number_of(found, "NumberOfFrames", 1) or 1) > 1:
        return None
    bits, signed = number_of(found, "BitsStored", 0), number_of(found, "PixelRepresentation", 0)
    samples = number_of(found, "SamplesPerPixel", 1)
    gray = str(found.get("PhotometricInterpretation", "")).strip().upper().startswith("MONOCHROME")
    own_range = samples > 1 or not gray or (bits <= 8 and not signed) or "VOILUTSequence" in found
    spacing = _vector(found, "PixelSpacing", 2) or (1.0, 1.0)
    instance = number_of(found, "InstanceNumber", 0)
    order = [number_of(found, name, 0) for name in ("TemporalPositionIdentifier", "AcquisitionNumber", "EchoNumbers")]
    return SliceHeader(
        series=str(found.SeriesInstanceUID),
        tomographic=str(found.get("Modality", "")).strip().upper() in ("CT", "MR", "PT"),
        layout=(number_of(found, "Rows", 0), number_of(found, "Columns", 0), bits, signed, samples),
        orientation=_vector(found, "ImageOrientationPatient", 6),
        position=_vector(found, "ImagePositionPatient", 3),
        spacing=(spacing[0], spacing[1]) if min(spacing) > 0 else (1.0, 1.0),
        order=(*order, instance),
        instance=instance,
        windowed=own_range or window_of(found) is not None,
    )


def _vector(found: Any, name: str, count: int) -> Vector:
    try:
        values = tuple(float(value) for value in found.get(name) or ())
    except (TypeError, ValueError):
        return ()
    return values if len(values) == count and all(abs(value) < _LARGEST for value in values) else ()


def normal_of(orientation: Vector) -> tuple[float, float, float] | None:
    """The unit vector across the slices, or None where the direction cosines are none."""
    if len(orientation) != 6:
        return None
    across = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(across))
    if not 0.9 < length < 1.1:
        return None
    return tuple((across / length).tolist())
