"""Opacity that a TIFF stores beside its colours (TIFF 6.0, section 18): what is transparent is black."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ingest.readers.base import Pixels

__all__ = ["alpha_of", "alpha_sample", "is_planar_alpha", "over_black"]

_ASSOCIATED: Final = 1
_UNASSOCIATED: Final = 2
"""Extra samples that say how opaque a pixel is: of colours that are weighted by it, and of those that are not."""


def alpha_sample(page: Any) -> int:
    """Which sample of a pixel is its opacity, counted from the last, which is 1; 0 where colours need none.

    Those of an associated alpha are laid over black already (TIFF 6.0, section 18).
    """
    extras = [int(extra) for extra in getattr(page, "extrasamples", ())]
    return len(extras) - extras.index(_UNASSOCIATED) if _UNASSOCIATED in extras else 0


def is_planar_alpha(page: Any) -> bool:
    """Whether gray and opacity lie one after the other."""
    extras = [int(extra) for extra in getattr(page, "extrasamples", ())]
    return len(extras) == 1 and extras[0] in (_ASSOCIATED, _UNASSOCIATED) and page.shape[:-2] == (2,)


def alpha_of(pixels: Pixels, page: Any) -> NDArray[np.float32] | None:
    """`(H, W)`: the opacity of a page of `(H, W, samples)`, 0 to 1; None where all is opaque or nothing says."""
    place = alpha_sample(page)
    if not place or pixels.ndim != 3 or pixels.shape[-1] != page.samplesperpixel or pixels.dtype.kind not in "uf":
        return None
    alpha = pixels[..., -place].astype(np.float32)
    if pixels.dtype.kind == "u":
        alpha /= 2 ** int(page.bitspersample) - 1
    return None if float(alpha.min(initial=1)) >= 1 else alpha


def over_black(plane: Pixels, alpha: NDArray[np.float32] | None) -> Pixels:
    """`(H, W)` or `(H, W, 3)` of this opacity as it is seen before black."""
    if alpha is None:
        return plane
    shown = plane * (alpha if plane.ndim == 2 else alpha[..., None])
    if plane.dtype.kind == "f":
        return shown.astype(plane.dtype, copy=False)
    return np.rint(shown, out=shown).astype(plane.dtype)
