"""Whole-slide images: tiles of tissue at a stated magnification.

The slide's pyramid level nearest above the wanted magnification is read and reduced. Tissue is told from glass on a
thumbnail by saturation (Otsu 1979); a tile with too little of it is a reject (`no_tissue`), so that the counts add
up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ingest.raw.budget import claim_array
from ingest.raw.items import RawFile, RejectError
from ingest.readers.base import Pixels, RawImage, ReadOptions, chosen_frames, failed_image
from ingest.readers.tiff import APERIO_YCBCR, rgb_of_ycbcr

_THUMB_PX = 2048
_ASSUMED_POWER = 40.0
_MICRONS_AT_1X = 10.0
_LEAST_SATURATION = 15


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """Tiles `y000512x001024` (offsets in full-resolution pixels), row by row.

    What does not fill a tile at the right and lower edges is left.

    Magnification is the objective power that the slide states, else 10 µm over its pixel size, else 40.
    """
    import tiffslide

    with raw.open() as stream:
        try:
            # the name of a file that was opened by its number is no path: tifffile would split it
            slide = tiffslide.TiffSlide(stream, tifffile_options={"name": raw.name})  # type: ignore[arg-type]
        except Exception as error:  # the library lets anything through
            raise RejectError("unreadable", type(error).__name__) from error
        with slide:
            yield from _tiles(slide, options)


def _tiles(slide: Any, options: ReadOptions) -> Iterator[RawImage]:
    rule = options.frames
    width, height = slide.dimensions
    scale = max(1.0, _power(slide) / rule.magnification)
    step = round(rule.tile_px * scale)
    rows, columns = height // step, width // step
    if rows * columns == 0:
        raise RejectError("too_small", f"{width}x{height} at {scale:g} pixels a tile pixel")
    tissue = _tissue(slide, options)
    level = slide.get_best_level_for_downsample(scale)
    side = max(1, round(step / slide.level_downsamples[level]))
    claim_array((side, side), 4, options.limits, "a tile", copies=2)
    for number in chosen_frames(rows * columns, rule):
        top, left = number // columns * step, number % columns * step
        frame = f"y{top:06d}x{left:06d}"
        if _share(tissue, (top, left, step), (height, width)) < rule.min_tissue:
            yield failed_image("no_tissue", frame=frame)
            continue
        try:
            tile = _region(slide, (left, top), level, (side, side))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # decoders raise anything on a broken tile; the others are sound
            yield failed_image("undecodable", type(error).__name__, frame=frame)
            continue
        if side != rule.tile_px:
            tile = cv2.resize(tile, (rule.tile_px, rule.tile_px), interpolation=cv2.INTER_AREA)
        yield RawImage(pixels=np.ascontiguousarray(tile), frame=frame, part_of_volume=True)


def _region(slide: Any, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Pixels:
    """`(H, W, 3)` uint8 RGB of a part of a level; `corner` is in pixels of the full resolution."""
    axes = slide.properties.get("tiffslide.series-axes", "YXS")
    pixels = np.asarray(slide.read_region(corner, level, size, as_array=True))
    if axes == "CYX" and pixels.ndim == 3 and pixels.shape[-1] not in (3, 4):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.dtype != np.uint8:
        raise RejectError("unsupported", "a slide of more than 8 bits per sample")
    pixels = np.repeat(pixels[..., None], 3, axis=-1) if pixels.ndim == 2 else pixels[..., :3]
    return rgb_of_ycbcr(pixels) if _compression(slide, level) == APERIO_YCBCR else np.ascontiguousarray(pixels)


def _compression(slide: Any, level: int) -> int:
    """The compression of a level's tiles, as TIFF numbers it."""
    series = slide.ts_tifffile.series[slide.properties.get("tiffslide.series-index", 0)]
    return int(series.levels[level].keyframe.compression)


def _power(slide: Any) -> float:
    power = slide.properties.get("tiffslide.objective-power")
    if power:
        return float(power)
    microns = slide.properties.get("tiffslide.mpp-x")
    return _MICRONS_AT_1X / float(microns) if microns else _ASSUMED_POWER


def _tissue(slide: Any, options: ReadOptions) -> NDArray[np.bool_]:
    """`(h, w)` mask of tissue on a small picture of the whole slide."""
    width, height = slide.dimensions
    level = slide.get_best_level_for_downsample(max(width, height) / _THUMB_PX)
    claim_array(slide.level_dimensions[level], 4, options.limits, "the smallest level of a slide", copies=2)
    small = _region(slide, (0, 0), level, slide.level_dimensions[level])
    if max(small.shape[:2]) > _THUMB_PX:
        ratio = _THUMB_PX / max(small.shape[:2])
        small = cv2.resize(small, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
    saturation = cv2.cvtColor(np.ascontiguousarray(small), cv2.COLOR_RGB2HSV)[..., 1]
    threshold, _ = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray(saturation > max(min(threshold, 64), _LEAST_SATURATION))


def _share(tissue: NDArray[np.bool_], tile: tuple[int, int, int], size: tuple[int, int]) -> float:
    top, left, step = tile
    rows, columns = tissue.shape
    y0, y1 = top * rows // size[0], max((top + step) * rows // size[0], top * rows // size[0] + 1)
    x0, x1 = left * columns // size[1], max((left + step) * columns // size[1], left * columns // size[1] + 1)
    return float(tissue[y0:y1, x0:x1].mean())
