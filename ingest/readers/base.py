"""The seam of the readers: a raw file in, 2-D images out, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ingest.raw.items import Place, RawFile
from ingest.settings import LimitSettings
from ingest.source.layout import FrameRule, Window

Pixels = NDArray[Any]


class BurnedIn(NamedTuple):
    """Whether text is burned into the pixels, and what says so: an attribute, a rule, a detector; empty: nothing."""

    value: Literal["yes", "no", "unknown"] = "unknown"
    by: str = ""


_NOT_SAID = BurnedIn()
_MOST_SAMPLED: Final = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class RawImage:
    """One 2-D image as its file holds it, before it is made an 8-bit picture.

    Attributes:
        pixels: `(H, W)` or `(H, W, 3)`; colour is RGB uint8, gray any integer or real type.
        frame: Slice, frame, page or tile (`z0012`, `f0003`, `p0000`); empty where the file is one image.
        modality: The tag that the file states, or empty.
        bit_depth: Bits stored per raw sample.
        low: Value that becomes 0, or None where uint8 pixels are taken as they are.
        high: Value that becomes 255.
        windowed: Whether `low` and `high` come from a window of the file or the spec (not from percentiles).
        invert: Whether low values are bright (MONOCHROME1).
        group: What the file says belongs together, keyed-hashed later; empty takes the file.
        part_of_volume: A slice or frame of several: blank ones are `empty_slice`.
        burned_in: What the file says of annotations that are burned into the pixels.
        captured: Whether it is a capture of a screen or a film (DICOM secondary capture): no CT, MR or NM slice then.
        region: `(top, left, bottom, right)` of the image proper where the file states it (ultrasound regions).
        jpeg: The file's own bytes where it is an 8-bit JPEG whose pixels these are, unrotated.
        source: A Pillow image of exactly these pixels (metadata and all: only its pixels may be used), or None.
        fault: The reason for which the reader itself rejects the image; then it has no pixels.
        detail: More of that reason, in our own words.
    """

    pixels: Pixels
    frame: str = ""
    modality: str = ""
    bit_depth: int = 8
    low: float | None = None
    high: float | None = None
    windowed: bool = False
    invert: bool = False
    group: str = ""
    part_of_volume: bool = False
    burned_in: BurnedIn = _NOT_SAID
    captured: bool = False
    region: tuple[int, int, int, int] | None = None
    jpeg: bytes | None = None
    fault: str = ""
    detail: str = ""
    source: Image.Image | None = None


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What the source's spec, the job's settings and the dataset's policy tell a reader.

    Attributes:
        frames: Which frames to take.
        window: The window for gray pixels deeper than 8 bits.
        group_tag: The DICOM tag of what belongs together.
        limits: Guards against absurd files.
        place: The file's place in a series, if it has one.
        straight: Decode plain JPEGs into arrays, with no Pillow image on the way.
        get_on: To be called now and then where much is read before the next image comes (tiles without tissue, frames
            that are not sampled): a file that gets on is not stopped.
    """

    frames: FrameRule = field(default_factory=FrameRule)
    window: Window | None = None
    group_tag: str = "StudyInstanceUID"
    limits: LimitSettings = field(default_factory=LimitSettings)
    place: Place | None = None
    straight: bool = False
    get_on: Callable[[], None] = _nothing


class Reader(Protocol):
    """Reads one raw format."""

    def __call__(self, raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
        """The 2-D images of a file, in a fixed order.

        Raises:
            RejectError: The file, or the rest of it, cannot be read.
            Exception: Whatever the decoding library raises on a broken file; the caller makes a reject of it.
        """
        ...


def failed_image(reason: str, detail: str = "", *, frame: str = "", modality: str = "") -> RawImage:
    """An image that the reader itself rejects; it has no pixels."""
    return RawImage(pixels=np.zeros((0, 0), np.uint8), frame=frame, modality=modality, fault=reason, detail=detail)


def percentile_range(pixels: Pixels, low: float = 0.5, high: float = 99.5) -> tuple[float, float]:
    """The intensity range between two percentiles, widened to at least one value; NaN and infinities are left out."""
    values = _sampled(np.asarray(pixels))
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    bottom, top = np.percentile(values, (low, high))
    if top <= bottom:
        bottom, top = float(values.min()), float(values.max())
    return float(bottom), float(max(top, bottom + 1e-6 * max(1.0, abs(bottom))))


def colour_range(top: int, bits: int = 16) -> tuple[float, float]:
    """The intensity range of colour: from black to the white of its bits.

    A camera of 8, 10, 12 or 14 bits may fill words of 16: then the brightest sample tells how many there are.

    Args:
        top: The brightest sample of the image, or of the stack.
        bits: Stated for a sample.
    """
    depth = next((fewer for fewer in (8, 10, 12, 14) if top < 1 << fewer), bits) if bits == 16 else bits
    return 0.0, float(2**depth - 1)


def _sampled(values: Pixels) -> Pixels:
    """All values, of many some millions, evenly spaced in the order of memory: `ravel("K")[::step]`.

    numpy copies the whole of a volume some of whose axes run backwards. Here a plane is copied at a time, which stays
    in the caches, and one that is wholly backwards is not.
    """
    step = values.size // _MOST_SAMPLED + 1 if values.size > _MOST_SAMPLED else 1
    if step == 1 or values.ndim < 3 or min(values.strides) >= 0:
        return values.ravel(order="K")[::step]
    parts, start = [], 0
    for plane in values.transpose(np.argsort(np.negative(np.abs(values.strides)), kind="stable")):
        part = np.flip(np.flip(plane).ravel()) if max(plane.strides) < 0 else plane.ravel()
        parts.append(part[start::step])
        start = (start - part.size) % step
    return np.concatenate(parts)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """`(H, W)` or `(H, W, 3)` as it is to be shown.

    Args:
        pixels: As stored.
        orientation: What EXIF or a TIFF says of it, 1 to 8 (TIFF 6.0, section 8); others count as 1.
    """
    if 5 <= orientation <= 8:
        pixels = np.swapaxes(pixels, 0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation)
    return np.ascontiguousarray(np.flip(pixels, flips) if flips else pixels)


def window_range(window: Window) -> tuple[float, float]:
    """`low` and `high` of a window."""
    return window.center - window.width / 2, window.center + window.width / 2


def chosen_frames(count: int, rule: FrameRule) -> range | list[int]:
    """The frame numbers that the rule takes out of `count`."""
    frames = range(0, count, rule.every)
    if rule.max_frames and len(frames) > rule.max_frames:
        step = len(frames) / rule.max_frames
        return [frames[int((i + 0.5) * step)] for i in range(rule.max_frames)]
    return frames
