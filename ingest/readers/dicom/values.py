"""The grayscale pipeline of the standard (PS3.3 C.11, PS3.4 N.2).

Stored values → modality LUT or rescale → VOI LUT or window. A window narrower than 1 (real files carry 0) counts as
none.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ingest.raw.items import RejectError
from ingest.readers.base import Pixels
from ingest.readers.dicom.attributes import frame_item, number_of, value_of

_DISCRETE: Final = 0
_INDIRECT: Final = 2
_MOST_ENTRIES: Final = 1 << 17
"""Entries of a palette: 65,536, and as many again for tables that are sloppily made."""


def modality_values(stored: Pixels, dataset: Any, number: int) -> Pixels:
    """Stored values in the modality's unit; whole slopes keep integers."""
    if value_of(dataset, "ModalityLUTSequence"):
        return look_up(stored, dataset.ModalityLUTSequence[0], dataset)[0]
    scale = frame_item(dataset, number, "PixelValueTransformationSequence") or dataset
    slope, intercept = value_of(scale, "RescaleSlope"), value_of(scale, "RescaleIntercept")
    if slope in (None, "") or intercept in (None, ""):
        return stored
    slope, intercept = float(slope), float(intercept)
    if slope == 1 and intercept == 0:
        return stored
    if slope == 1 and intercept.is_integer() and stored.dtype.kind in "iu" and stored.dtype.itemsize < 4:
        return stored.astype(np.int32) + int(intercept)
    return stored.astype(np.float64) * slope + intercept


def look_up(values: Pixels, item: Any, dataset: Any) -> tuple[Pixels, float]:
    """Values through a lookup table (PS3.3 C.11.1.1 and C.11.2.1.1), and the greatest value of its entries' depth.

    The third number of the descriptor states the depth of the entries. Some files state 16 where the entries have
    fewer bits, so the depth is the least that holds all entries; a descriptor that states fewer is believed to be
    wrong likewise.

    Args:
        values: Integers or real numbers (rounded).
        item: The item with `LUTDescriptor` and `LUTData`.
        dataset: The file: says whether the first mapped value is signed.

    Raises:
        ValueError: The table is empty or no table.
    """
    count, first, _ = (int(number) for number in item.LUTDescriptor)
    table = _entries(item.LUTData, (count & 0xFFFF) or 1 << 16)
    if first >= 1 << 15 and (number_of(dataset, "PixelRepresentation", 0) == 1 or values.min(initial=0) < 0):
        first -= 1 << 16
    whole = np.rint(np.nan_to_num(values)).astype(np.int64) if values.dtype.kind == "f" else values.astype(np.int64)
    looked_up = table[np.clip(whole - first, 0, len(table) - 1)]
    return looked_up, float((1 << max(1, int(table.max()).bit_length())) - 1)


def _entries(data: Any, count: int) -> Pixels:
    if isinstance(data, (bytes, bytearray)):
        size = 1 if len(data) in (count, count + 1) else 2
        table = np.frombuffer(bytes(data[: len(data) // size * size]), f"<u{size}")
    else:
        table = np.atleast_1d(np.asarray(data)).astype(np.int64) & 0xFFFF
        if len(table) * 2 in (count, count + 1):  # two 8-bit entries in one 16-bit word
            table = table.astype("<u2").view(np.uint8)
    if not len(table):
        raise ValueError("an empty lookup table")
    return np.asarray(table[:count]).astype(np.uint16)


def window_of(voi: Any) -> tuple[float, float, str] | None:
    """Centre, width and function of the first window, or None where it is missing or narrower than 1."""
    try:
        center = float(np.atleast_1d(value_of(voi, "WindowCenter"))[0])
        width = float(np.atleast_1d(value_of(voi, "WindowWidth"))[0])
    except (TypeError, ValueError, IndexError):
        return None
    function = str(value_of(voi, "VOILUTFunction", "") or "LINEAR").strip().upper()
    least = 1.0 if function == "LINEAR" else 1e-9
    return (center, width, function) if np.isfinite([center, width]).all() and width >= least else None


def apply_window(values: Pixels, center: float, width: float, function: str) -> tuple[Pixels, float, float]:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3: values, and what becomes black and white."""
    if function == "SIGMOID":
        curve = 1 / (1 + np.exp(-4 * (values.astype(np.float64) - center) / width))
        return curve, 0.0, 1.0
    if function == "LINEAR_EXACT":
        return values, center - width / 2, center + width / 2
    half = (width - 1) / 2
    return values, center - 0.5 - half, center - 0.5 + half


def without_padding(stored: Pixels, values: Pixels, dataset: Any) -> Pixels:
    """The values of pixels that are no padding; all where nothing else is there."""
    padding = value_of(dataset, "PixelPaddingValue")
    if padding in (None, "") or isinstance(padding, (bytes, str)):
        return values
    limit = value_of(dataset, "PixelPaddingRangeLimit", padding)
    try:
        low, high = sorted((int(padding), int(limit if not isinstance(limit, (bytes, str)) else padding)))
    except (TypeError, ValueError):
        return values
    kept = values[(stored < low) | (stored > high)]
    return kept if kept.size else values


def _check_segments(dataset: Any, colour: str) -> None:
    """Raise RejectError where a segmented table (PS3.3 C.7.9.2) would expand to more than a table can hold."""
    data = dataset.get(f"Segmented{colour}PaletteColorLookupTableData")
    descriptor = dataset.get(f"{colour}PaletteColorLookupTableDescriptor")
    if not isinstance(data, bytes) or not descriptor:
        return
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2") if int(descriptor[2]) == 16 else np.frombuffer(data, "u1")
    at, entries, longest = 0, 0, 1
    while at + 1 < len(words) and entries <= _MOST_ENTRIES:
        code, count = int(words[at]), int(words[at + 1])
        length = count * longest if code == _INDIRECT else count
        entries, longest = entries + length, max(longest, length)
        at += {_DISCRETE: 2 + count, _INDIRECT: 4}.get(code, 3)
    if entries > _MOST_ENTRIES:
        raise RejectError("unreadable", f"a palette of more than {_MOST_ENTRIES} entries")


def palette(stored: Pixels, dataset: Any) -> Pixels:
    """RGB uint8; 16-bit tables keep their high byte, unless they only fill the low one."""
    from pydicom.pixels.processing import apply_color_lut

    for colour in ("Red", "Green", "Blue"):
        _check_segments(dataset, colour)
    rgb = np.asarray(apply_color_lut(stored, dataset))[..., :3]
    if rgb.dtype != np.uint8:
        rgb = (rgb >> 8 if rgb.max(initial=0) > 255 else rgb).astype(np.uint8)
    return rgb
