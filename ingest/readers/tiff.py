"""TIFF files: every page that is an image of its own, in the colours that it shows.

tifffile reads; pages of YCbCr that are no JPEG and of Lab go to Pillow, which converts them. Reduced-resolution copies
(pyramids, thumbnails) and masks of other pages are no images of their own. The label and macro pictures that scanners
of slides store beside the tissue may show a name: each is a `slide_label`. Stacks whose planes follow a single
directory (ImageJ over 4 GB, MetaMorph) give all planes. Gray pages of a stack that are deeper than 8 bits share one
range (`tiff_ranges`).
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

from ingest.raw.budget import claim
from ingest.raw.items import RejectError
from ingest.readers.base import Pixels, RawImage, ReadOptions, chosen_frames, failed_image, upright
from ingest.readers.libraries import library_for
from ingest.readers.pillow import gray_or_rgb, raw_picture
from ingest.readers.tiff_alpha import alpha_of, alpha_sample, is_planar_alpha, over_black
from ingest.readers.tiff_directories import check_directories
from ingest.readers.tiff_ranges import Range, StackRanges, channels_of, shared_range
from shards.errors import MachineError

MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

APERIO_YCBCR: Final = 33003
"""Compression of Aperio's JPEG 2000 tiles of YCbCr; those of RGB are 33005."""

_COPIES: Final = 3
"""Arrays of a page's size that are held while it becomes a picture."""

_COPIES_WITH_ALPHA: Final = 6
"""The same where transparency is laid over black."""

_MOST_SEGMENTS: Final = 1 << 22
"""Tiles or strips of a page: tifffile holds a record of each, and a header can state tiles of one pixel."""

_SOURCE_LENS: Final = 65421
_LABEL_WORD: Final = re.compile(r"(?<![a-z])(label|macro|overview|barcode|thumbnail|probability)(?![a-z])")
_LABEL_ALONE: Final = re.compile(r"(slide[ _])?(label|macro|overview|thumbnail|probability)([ _]image)?")
_APERIO_LEVEL: Final = re.compile(r"Aperio[^\r\n]*[\r\n]+[^|]*\d+x\d+[^|]*-> *\d+x\d+")
_APERIO_LABEL: Final = re.compile(r"[\r\n](label|macro)\s+\d+x\d+")


def read_tiff(data: bytes, options: ReadOptions) -> Iterator[RawImage]:
    """The pages of a TIFF, `p0000` … where there are several, planes of a page `z0000` ….

    Raises:
        RejectError: It is no TIFF, or holds nothing but labels.
    """
    import tifffile

    check_directories(data)
    try:
        tiff = tifffile.TiffFile(io.BytesIO(data))
        pages: list[Any] = list(tiff.pages)
    except (tifffile.TiffFileError, ValueError, IndexError, KeyError, TypeError, struct.error) as error:
        raise RejectError("unreadable", type(error).__name__) from error
    if not pages:
        raise RejectError("unreadable", "no pages")
    with tiff:
        labels = _label_pages(tiff, pages)
        for page in (page for page in pages if page.index in labels):
            yield failed_image("slide_label", labels[page.index], frame=f"p{page.index:04d}")
        stack = _single_directory_stack(tiff)
        if stack is not None:
            yield from _stack_planes(data, tiff, stack, options)
            return
        images = [page for page in pages if page.index not in labels and not _is_derived(page)]
        ranges = StackRanges(tiff, images, lambda page: _planes(data, page), options)
        for number in chosen_frames(len(images), options.frames):
            frame = f"p{number:04d}" if len(images) > 1 else ""
            yield from _page_images(data, images[number], options, frame, ranges)


def _page_images(data: bytes, page: Any, options: ReadOptions, frame: str, ranges: StackRanges) -> Iterator[RawImage]:
    if page.imagewidth * page.imagelength > options.limits.max_pixels:
        raise RejectError("decompression_bomb", f"{page.imagewidth}x{page.imagelength} pixels")
    claim(page.nbytes * _copies(page), options.limits, "a page")
    try:
        planes = _planes(data, page)
    except RejectError as error:
        if not frame:
            raise
        yield failed_image(error.reason, error.detail, frame=frame)
        return
    except (MemoryError, MachineError):
        raise
    except Exception as error:  # decoders raise anything
        if not frame:
            raise RejectError("undecodable", type(error).__name__) from error
        yield failed_image("undecodable", type(error).__name__, frame=frame)
        return
    for plane, pixels in enumerate(planes):
        name = frame + (f"z{plane:04d}" if len(planes) > 1 else "")
        shared, bits = ranges.of(page), _bits(page)
        yield raw_picture(pixels, options, frame=name, volume=bool(name), shared=shared, bit_depth=bits)


def _copies(page: Any) -> int:
    return _COPIES_WITH_ALPHA if alpha_sample(page) else _COPIES


def _is_derived(page: Any) -> bool:
    """Whether a page is a smaller copy or a transparency mask of another.

    `NewSubfileType` says so (TIFF 6.0 section 8); Aperio's smaller levels say it in words (`1024x768 -> 512x384`).
    """
    if getattr(page, "is_reduced", False) or getattr(page, "is_mask", False):
        return True
    return _APERIO_LEVEL.match(str(getattr(page, "description", "") or "")[:1024]) is not None


def _label_pages(tiff: Any, pages: list[Any]) -> dict[int, str]:
    """Index of a page → what of a slide it shows besides tissue."""
    found = {page.index: word for page in pages if (word := _label_of(tiff, page))}
    if not (tiff.is_ome or tiff.is_scn or tiff.is_bif or tiff.is_ndpi or tiff.is_svs or tiff.is_philips):
        return found
    try:
        for series in tiff.series:
            named = _LABEL_WORD.search(str(series.name or "").lower())
            if named:
                found |= {
                    page.index: named[1] for page in series.pages if isinstance(getattr(page, "index", None), int)
                }
    except Exception:  # noqa: BLE001  # broken metadata of a vendor: the pages speak for themselves
        return found
    return found


def _label_of(tiff: Any, page: Any) -> str:
    text = str(getattr(page, "description", "") or "")[:1024]
    lower = text.lower().strip()
    lens = page.tags.get(_SOURCE_LENS) if hasattr(page, "tags") else None
    if lens is not None and _number(lens.value) in (-1.0, -2.0):
        return "macro"
    if lower.startswith("aperio"):
        word = _APERIO_LABEL.search(lower)
        return word[1] if word else ""
    name = page.tags.get("PageName") if hasattr(page, "tags") else None
    named = _LABEL_ALONE.fullmatch(str(name.value).lower().strip()) if name is not None else None
    word = _LABEL_ALONE.fullmatch(lower) or named
    if word is None and tiff.is_philips:
        word = re.match(r"()(label|macro)", lower)
    return word[2] if word else ""


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stack:
    """Planes that lie one after the other behind a single directory.

    Attributes:
        page: The directory.
        offset: First byte of the first plane.
        count: Planes that the metadata state.
    """

    page: Any
    offset: int
    count: int


def _single_directory_stack(tiff: Any) -> _Stack | None:
    """The stack of a file whose planes follow one uncompressed directory, or None."""
    if len(tiff.pages) != 1 or not (tiff.is_imagej or tiff.is_shaped or tiff.is_stk or tiff.is_nih):
        return None
    page = tiff.pages[0]
    if int(page.compression) != 1 or not page.dataoffsets:
        return None
    try:
        if tiff.is_imagej:
            count = int((tiff.imagej_metadata or {}).get("images", 1))
        else:
            shape = tiff.series[0].shape
            count = int(np.prod(shape, dtype=object)) // max(1, int(np.prod(page.shape, dtype=object)))
    except Exception:  # noqa: BLE001  # broken metadata: the one page is read as it is
        return None
    return _Stack(page=page, offset=int(page.dataoffsets[0]), count=count) if count > 1 else None


def _stack_planes(data: bytes, tiff: Any, stack: _Stack, options: ReadOptions) -> Iterator[RawImage]:
    page, count = stack.page, stack.count
    dtype = np.dtype(page.dtype).newbyteorder(tiff.byteorder)
    size = int(np.prod(page.shape)) * dtype.itemsize
    if page.imagewidth * page.imagelength > options.limits.max_pixels:
        raise RejectError("decompression_bomb", f"{page.imagewidth}x{page.imagelength} pixels")
    claim(size * _copies(page), options.limits, "a plane")
    held = min(count, max(0, len(data) - stack.offset) // size)

    def planes_of(number: int) -> list[Pixels]:
        flat = np.frombuffer(data, dtype, size // dtype.itemsize, stack.offset + number * size)
        pixels = flat.reshape(page.shape).astype(dtype.newbyteorder("="))
        return [over_black(plane, alpha_of(pixels, page)) for plane in _split(pixels)]

    channels = channels_of(tiff, count)
    ranges: dict[int, Range | None] = {}
    for number in chosen_frames(held, options.frames):
        if channels[number] not in ranges:
            alike = [other for other in range(held) if channels[other] == channels[number]]
            ranges[channels[number]] = shared_range(alike, planes_of, options)
        for plane, pixels in enumerate(planes := planes_of(number)):
            name = f"p{number:04d}" + (f"z{plane:04d}" if len(planes) > 1 else "")
            shared = ranges[channels[number]]
            yield raw_picture(pixels, options, frame=name, volume=True, shared=shared, bit_depth=_bits(page))
    if held < count:
        missing = f"{count - held} of {count} stated planes are not in the file"
        yield failed_image("missing_frames", missing, frame=f"p{held:04d}")


def _planes(data: bytes, page: Any) -> list[Pixels]:
    """The gray or RGB planes of a page, upright.

    Raises:
        RejectError: The colour space is not known here.
    """
    import tifffile

    kind = tifffile.PHOTOMETRIC
    if page.photometric in (kind.CIELAB, kind.ICCLAB, kind.ITULAB):
        return [_by_pillow(data, page)]
    if page.photometric == kind.YCBCR and int(page.compression) not in (6, 7, 33007):
        return [_by_pillow(data, page)]
    pixels = _decoded(page)
    if page.photometric == kind.PALETTE and page.colormap is not None:
        pixels = np.moveaxis((np.asarray(page.colormap)[:, pixels] >> 8).astype(np.uint8), 0, -1)
    elif pixels.ndim == 3 and pixels.shape[-1] not in (3, 4) and (pixels.shape[0] in (3, 4) or is_planar_alpha(page)):
        pixels = np.moveaxis(pixels, 0, -1)
    alpha = alpha_of(pixels, page)
    if page.photometric == kind.MINISWHITE:
        pixels = ~pixels if pixels.dtype.kind in "uib" else -pixels
    if page.photometric == kind.SEPARATED and pixels.ndim == 3 and pixels.shape[-1] == 4:
        deep = pixels >> 8 if pixels.dtype == np.uint16 else pixels
        pixels = np.asarray(Image.fromarray(deep.astype(np.uint8), "CMYK").convert("RGB"))
    if int(page.compression) == APERIO_YCBCR:
        pixels = rgb_of_ycbcr(pixels)
    planes = _split(pixels, is_rgb=page.photometric == kind.RGB)
    return [_upright(over_black(plane, alpha), page) for plane in planes]


def _decoded(page: Any) -> Pixels:
    if np.prod(page.chunked, dtype=float) > _MOST_SEGMENTS:
        raise RejectError("over_budget", f"more than {_MOST_SEGMENTS} tiles of a page")
    try:
        return np.asarray(page.asarray())
    except Exception as error:
        if "imagecodecs" in str(error):  # tifffile's own words where it lacks the library
            library_for(f"TIFF compressed with {page.compression.name}", "imagecodecs", "codecs")
        raise


def _split(pixels: Pixels, *, is_rgb: bool = False) -> list[Pixels]:
    if pixels.ndim == 3 and pixels.shape[-1] in (1, 2):
        return [pixels[..., 0]]
    if pixels.ndim == 3 and (pixels.shape[-1] in (3, 4) or (is_rgb and pixels.shape[-1] > 4)):
        return [pixels[..., :3]]
    if pixels.ndim == 3 and pixels.shape[-1] < min(pixels.shape[:2]) and pixels.shape[-1] < 32:
        return list(np.moveaxis(pixels, -1, 0))
    if pixels.ndim > 3:
        pixels = pixels.reshape(-1, *pixels.shape[-2:])
    return [pixels] if pixels.ndim == 2 else list(pixels)


def rgb_of_ycbcr(pixels: Pixels) -> Pixels:
    """`(H, W, 3)` uint8 RGB of YCbCr samples of the full range, as in JPEG (JFIF, ITU-R 601)."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels[..., :3]), "YCbCr").convert("RGB"))


def _by_pillow(data: bytes, page: Any) -> Pixels:
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            image.seek(page.index)
            return np.asarray(gray_or_rgb(image))
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise RejectError("unsupported", "colour space of a TIFF page") from error


def _bits(page: Any) -> int:
    """Bits of a stored sample, of several widths the largest; of a palette those of its colours."""
    import tifffile

    stated = page.bitspersample
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        return 8
    return max(stated) if isinstance(stated, tuple) else int(stated)


def _upright(pixels: Pixels, page: Any) -> Pixels:
    tag = page.tags.get("Orientation")
    return upright(pixels, int(tag.value) if tag else 1)
