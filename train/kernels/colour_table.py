"""What augmentation does with each crop, as one row of numbers a crop, which kernels read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLUMNS", "colour_table"]

COLUMNS: Final = 13
_STRENGTH, _GRAY, _BLUR, _SIGMA, _SOLARIZE, _CONTRAST = 4, 8, 9, 10, 11, 12
_OPERATIONS: Final = ("brightness", "contrast", "saturation", "hue")


def colour_table(drawn: Mapping[str, NDArray[Any]], num_crops: int) -> dict[str, NDArray[Any]]:
    """The numbers of `train.augment.draw_augmentation` for the kernels.

    Args:
        drawn: Rows and strengths of each step.
        num_crops: Of the batch.

    Returns:
        `table` `(num_crops, COLUMNS)` float32: for each place in the crop's order its operation (0 to 3 as in
        `ColorJitter`, -1 for none), for each place its strength, whether it is made gray, its number among the blurred
        crops (-1 for none), the blur's sigma in pixels, whether it is solarised, the place of contrast in its order (-1
        for none). `blur/rows` int64, the blurred crops, where there are any.
    """
    table = np.zeros((num_crops, COLUMNS), np.float32)
    table[:, [*range(_STRENGTH), _BLUR, _CONTRAST]] = -1
    for place in range(4):
        for number, name in enumerate(_OPERATIONS):
            rows = drawn.get(f"{name}@{place}/rows", ())
            if len(rows):
                table[rows, place] = number
                table[rows, _STRENGTH + place] = drawn[f"{name}@{place}/strength"]
                if name == "contrast":
                    table[rows, _CONTRAST] = place
    table[drawn.get("gray/rows", []), _GRAY] = 1
    table[drawn.get("solarize/rows", []), _SOLARIZE] = 1
    if "blur/rows" not in drawn:
        return {"table": table}
    blurred = drawn["blur/rows"]
    table[blurred, _BLUR] = np.arange(len(blurred))
    table[blurred, _SIGMA] = drawn["blur/strength"]
    return {"table": table, "blur/rows": blurred}
