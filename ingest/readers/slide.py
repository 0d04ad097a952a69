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

from ingest.raw.items import RawFile, RejectError
from ingest.readers.base import RawImage, ReadOptions, chosen_frames

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
            slide = tiffslide.TiffSlide(stream)  # type: ignore[arg-type]  # any readable file works
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
    tissue = _tissue(slide)
    level = slide.get_best_level_for_downsample(scale)
    side = max(1, round(step / slide.level_downsamples[level]))
    for number in chosen_frames(rows * columns, rule):
        top, left = number // columns * step, number % columns * step
        frame = f"y{top:06d}x{left:06d}"
        if _share(tissue, (top, left, step), (height, width)) < rule.min_tissue:
            yield RawImage(pixels=np.zeros((0, 0), np.uint8), frame=frame, fault="no_tissue")
            continue
        tile = np.asarray(slide.read_region((left, top), level, (side, side), as_array=True))[..., :3]
        if side != rule.tile_px:
            tile = cv2.resize(tile, (rule.tile_px, rule.tile_px), interpolation=cv2.INTER_AREA)
        yield RawImage(pixels=np.ascontiguousarray(tile), frame=frame, part_of_volume=True)


def _power(slide: Any) -> float:
    power = slide.properties.get("tiffslide.objective-power")
    if power:
        return float(power)
    microns = slide.properties.get("tiffslide.mpp-x")
    return _MICRONS_AT_1X / float(microns) if microns else _ASSUMED_POWER


def _tissue(slide: Any) -> NDArray[np.bool_]:
    """`(h, w)` mask of tissue on a small picture of the whole slide."""
    width, height = slide.dimensions
    level = slide.get_best_level_for_downsample(max(width, height) / _THUMB_PX)
    small = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level], as_array=True))[..., :3]
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
