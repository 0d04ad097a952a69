"""From what a file holds to an 8-bit picture, and from there to the stored image."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from ingest.picture.encoding import Encoding
from ingest.picture.jpeg_parts import reassemble
from ingest.readers.base import RawImage
from ingest.readers.pillow import Picture, shared_pixels
from shards.decode.opencv import luma as opencv_luma
from shards.pixels import reduce as native
from shards.pixels.resize import resize

_CACHED_VALUES = 1 << 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A stored image: its bytes, their extension, and the size and channels a decoder will find."""

    data: bytes
    extension: str
    width: int
    height: int
    channels: int


def to_picture(image: RawImage) -> Picture:
    """The canonical 8-bit picture: window applied, MONOCHROME1 inverted, equal channels folded to gray."""
    pixels = image.pixels
    if image.low is not None and image.high is not None:
        pixels = scale_to_8bit(pixels, image.low, image.high)
    if pixels.dtype != np.uint8:
        raise TypeError(f"a reader gave {pixels.dtype} pixels without a range")
    if image.invert:
        pixels = ~pixels
    return np.ascontiguousarray(_fold_gray(pixels))


def scale_to_8bit(pixels: NDArray[Any], low: float, high: float) -> Picture:
    """`low` becomes 0, `high` 255, linear between, rounded half up, clipped; NaN becomes 0."""
    span = max(high - low, 1e-12)
    if pixels.dtype == np.uint8:
        if (low, high) == (0.0, 255.0):
            return pixels
        table = np.clip((np.arange(256, dtype=np.float64) - low) * (255 / span) + 0.5, 0, 255).astype(np.uint8)
        return np.asarray(table[pixels])
    out = np.empty(pixels.shape, np.uint8)
    rows = max(1, _CACHED_VALUES // max(1, math.prod(pixels.shape[1:])))
    for start in range(0, len(pixels), rows):
        _scale_rows(pixels[start : start + rows], low, 255 / span, out[start : start + rows])
    return out


def _scale_rows(pixels: NDArray[Any], low: float, gain: float, out: Picture) -> None:
    """Six passes over rows that are few enough to stay in the processor's cache."""
    real: NDArray[Any] = pixels.astype(np.float64 if pixels.dtype.itemsize > 4 else np.float32)
    real -= low
    real *= gain
    real += 0.5
    if pixels.dtype.kind == "f":
        np.nan_to_num(real, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    out[...] = np.clip(real, 0, 255, out=real)


def _fold_gray(pixels: Picture) -> Picture:
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 1:
        return pixels[..., 0]
    gray = pixels
    for part in (pixels[:: max(1, pixels.shape[0] // 16)], pixels):
        gray = to_gray(part)
        if not _is_colourless(part, gray):
            return pixels
    return gray


def _is_colourless(pixels: Picture, gray: Picture) -> bool:
    """Whether all three channels are the luma: the luma of equal channels is what they hold."""
    rows = max(1, _CACHED_VALUES // pixels.shape[1])
    return all(
        np.array_equal(gray[start : start + rows], pixels[start : start + rows, :, channel])
        for start in range(0, len(pixels), rows)
        for channel in range(3)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """A picture at its stored size.

    Attributes:
        image: For the encoder: a Pillow image, or the pixels where the policy's resampler is native.
        gray: `(h, w)` uint8, its luma.
        same_size: Whether it is the picture itself.
    """

    image: Image.Image | Picture
    gray: Picture
    same_size: bool

    @property
    def pixels(self) -> Picture:
        """`(h, w)` or `(h, w, 3)` uint8, the pixels of `image`."""
        return np.asarray(self.image)


def reduce(picture: Picture, policy: Encoding, *, source: Image.Image | None = None) -> Reduced:
    """Bring a picture to the size at which it is stored, antialiased (bicubic), with the policy's resampler.

    Args:
        picture: The canonical picture.
        policy: The dataset's.
        source: A Pillow image of exactly these pixels, if there is one; saves a copy.
    """
    size = _stored_size(picture, policy)
    if policy.resampler == "native":
        stored = picture if size is None else resize(picture, size)
        return Reduced(image=stored, gray=to_gray(stored), same_size=size is None)
    image = Image.fromarray(picture) if source is None else source
    if size is None:
        return Reduced(image=image, gray=to_gray(picture), same_size=True)
    image = image.resize(size, Image.Resampling.BICUBIC)
    shared = shared_pixels(image)
    gray = to_gray(np.asarray(image) if shared is None else shared)
    return Reduced(image=image, gray=gray, same_size=False)


def _stored_size(picture: Picture, policy: Encoding) -> tuple[int, int] | None:
    """Width and height of the stored image; None where they are the picture's."""
    height, width = picture.shape[:2]
    short = min(width, height)
    if not policy.short_side_px or short <= policy.short_side_px:
        return None
    scale = policy.short_side_px / short
    return max(1, round(width * scale)), max(1, round(height * scale))


def to_gray(picture: Picture) -> Picture:
    """`(h, w)`: ITU-R 601 luma of gray, RGB, or RGB and a fourth channel."""
    if picture.ndim == 2:
        return picture
    if native.available():
        return native.luma(picture)
    return opencv_luma(picture)


def encode(reduced: Reduced, policy: Encoding, *, jpeg: bytes | None = None) -> Encoded:
    """The stored image of a picture.

    Args:
        reduced: The picture at its stored size.
        policy: The dataset's.
        jpeg: The JPEG file that the picture was decoded from: kept, without metadata, where no pixel need change.
    """
    height, width = reduced.gray.shape
    if jpeg is not None and reduced.same_size and policy.format != "png":
        stripped = reassemble(jpeg)
        if stripped is not None:
            channels = _num_components(stripped)
            return Encoded(data=stripped, extension="jpg", width=width, height=height, channels=channels)
    image = reduced.image
    if isinstance(image, np.ndarray) and policy.format != "png":
        data, channels = _to_jpeg(image, policy.jpeg_quality), 1 if image.ndim == 2 else 3
    else:
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        data, channels = _by_pillow(image, policy), len(image.getbands())
    extension = "png" if policy.format == "png" else "jpg"
    return Encoded(data=data, extension=extension, width=width, height=height, channels=channels)


def _by_pillow(image: Image.Image, policy: Encoding) -> bytes:
    image.info = {}  # Pillow would write comments and profiles of the raw file
    buffer = io.BytesIO()
    if policy.format == "png":
        image.save(buffer, "PNG", compress_level=6)
    else:
        image.save(buffer, "JPEG", quality=policy.jpeg_quality, subsampling=0)
    return buffer.getvalue()


def _to_jpeg(picture: Picture, quality: int) -> bytes:
    """Straight from the pixels, colour not subsampled."""
    if picture.ndim == 2:
        return bytes(simplejpeg.encode_jpeg(picture[..., None], quality, "GRAY", "Gray"))
    return bytes(simplejpeg.encode_jpeg(picture, quality, "RGB", "444"))


def _num_components(jpeg: bytes) -> int:
    with Image.open(io.BytesIO(jpeg)) as image:
        return len(image.getbands())
