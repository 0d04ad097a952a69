"""One intensity range for the pages of a TIFF that are a stack: a slice without signal must not be stretched.

Pages of one size, type and channel are a stack. Channels of a microscope differ in brightness by far, so each has a
range of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import numpy as np

from ingest.readers.base import Pixels, ReadOptions, colour_range, percentile_range
from shards.errors import MachineError

Range = tuple[float, float]

_T = TypeVar("_T")

_PAGES: Final = 16
_VALUES: Final = 1 << 18
"""Pages of a stack, and values of each, from which its range is estimated."""


def shared_range(
    pages: Sequence[_T], planes_of: Callable[[_T], Sequence[Pixels]], options: ReadOptions
) -> Range | None:
    """The range of a stack, from at most 16 pages spread over it; None where each page is to have its own.

    Args:
        pages: The pages, or their numbers.
        planes_of: Decodes one; what it raises makes the page count for nothing.
        options: A window of the source takes the place of ranges.
    """
    if len(pages) < 2 or options.window is not None:
        return None
    parts: list[Pixels] = []
    tops: list[int] = []
    for at in sorted({int(place) for place in np.linspace(0, len(pages) - 1, _PAGES)}):
        try:
            planes = planes_of(pages[at])
        except (MemoryError, MachineError):
            raise
        except Exception:  # noqa: BLE001, S112  # decoders raise anything; a broken page is told when its turn comes
            continue
        for plane in planes:
            if plane.ndim == 3 and plane.dtype == np.uint16:
                tops.append(int(plane.max(initial=0)))
                continue
            if plane.ndim != 2 or plane.dtype.kind not in "uif" or plane.dtype == np.uint8:
                return None
            values = plane.ravel()
            parts.append(values[:: values.size // _VALUES + 1].copy())
    if tops:
        return colour_range(max(tops))
    return percentile_range(np.concatenate(parts)) if parts else None


def channels_of(tiff: Any, count: int) -> list[int]:
    """The channel of each of `count` pages, by the axes that the file states; zeros where it states none."""
    try:
        (series,) = tiff.series
        axes, shape = str(series.axes), tuple(int(size) for size in series.shape)
    except Exception:  # noqa: BLE001  # no or broken metadata, or several series
        return [0] * count
    leading = axes[: max(axes.find("Y"), 0)]
    sizes = shape[: len(leading)]
    if "C" not in leading or int(np.prod(sizes, dtype=object)) != count:
        return [0] * count
    return [int(n) for n in np.unravel_index(np.arange(count), sizes)[leading.index("C")]]


class StackRanges:
    """The ranges of a file's pages, each estimated when it is first asked for.

    Args:
        tiff: The open file.
        pages: Its pages that are images.
        planes_of: The planes of a page.
        options: What a reader is told.
    """

    def __init__(
        self, tiff: Any, pages: Sequence[Any], planes_of: Callable[[Any], Sequence[Pixels]], options: ReadOptions
    ) -> None:
        self._pages = pages
        self._planes_of = planes_of
        self._options = options
        self._kinds = {
            page.index: (page.shape, str(page.dtype), str(page.photometric), channel)
            for page, channel in zip(pages, channels_of(tiff, len(pages)), strict=True)
        }
        self._ranges: dict[object, Range | None] = {}

    def of(self, page: Any) -> Range | None:
        """The range of a page's stack; None where the page stands alone, or has 8 bits."""
        if len(self._pages) < 2 or page.dtype is None or np.dtype(page.dtype).itemsize == 1:
            return None
        kind = self._kinds[page.index]
        if kind not in self._ranges:
            alike = [other for other in self._pages if self._kinds[other.index] == kind]
            self._ranges[kind] = shared_range(alike, self._planes_of, self._options)
        return self._ranges[kind]
