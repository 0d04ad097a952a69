"""Slices and frames that are stored as single pictures: files of one folder that are alike by nature.

Nothing in such files says that they belong together, so two things do. Files whose names differ in one number alone, by
a little, are *numbered neighbours*. And a folder of which a good part is alike holds an examination or a film, not
copies. Near duplicates among them are kept, counted and said, unless the settings say otherwise.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

CLOSE_NUMBERS: Final = 16
"""Numbers of two neighbours differ by no more than this."""
FEW_ALIKE: Final = 6
"""Folders with fewer alike images than this may hold copies."""
SHARE_ALIKE: Final = 0.1
"""Nor do folders of which a smaller share is alike count as one examination."""

_LAST_NUMBER = re.compile(r"(.*?)(\d+)(\D*)$", re.DOTALL)


class Neighbourhood(NamedTuple):
    """Where a file stands among others.

    Attributes:
        folder: Code of its folder; 0 where a source's groups say what belongs together.
        series: Code of folder and name without the name's last number; 0 without a number.
        number: That number.
    """

    folder: int = 0
    series: int = 0
    number: int = 0


def neighbourhood_of(source: str, path: str) -> Neighbourhood:
    """Where a file of a source stands, by its path below the raw folder, archive included."""
    folder, _, name = f"{source}/{path}".rpartition("/")
    stem, dot, extension = name.rpartition(".") if "." in name else (name, "", "")
    found = _LAST_NUMBER.match(stem)
    if found is None:
        return Neighbourhood(folder=_code(folder))
    number = min(int(found[2][-18:]), (1 << 62) - 1)
    return Neighbourhood(
        folder=_code(folder), series=_code(f"{folder}/{found[1]}\0{found[3]}{dot}{extension}"), number=number
    )


def _code(text: str) -> int:
    digest = blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1 or 1


def belong_together(pairs: NDArray[np.int64], standing: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pairs of alike images are neighbours, not copies.

    Args:
        pairs: `(P, 2)` positions.
        standing: `(N, 3)`: folder, series and number of each position.
    """
    if not len(pairs):
        return np.zeros(0, bool)
    first, second = standing[pairs[:, 0]], standing[pairs[:, 1]]
    same_folder = (first[:, 0] == second[:, 0]) & (first[:, 0] != 0)
    same_series = (first[:, 1] == second[:, 1]) & (first[:, 1] != 0) & same_folder
    numbered = same_series & (np.abs(first[:, 2] - second[:, 2]) <= CLOSE_NUMBERS)
    crowded = same_folder & np.isin(first[:, 0], _crowded(pairs[same_folder], standing))
    return np.asarray(numbered | crowded)


def _crowded(pairs: NDArray[np.int64], standing: NDArray[np.int64]) -> NDArray[np.int64]:
    """The folders of which a good part is alike."""
    alike, num_alike = np.unique(standing[np.unique(pairs), 0], return_counts=True)
    folders, sizes = np.unique(standing[:, 0], return_counts=True)
    size = sizes[np.searchsorted(folders, alike)] if len(alike) else num_alike
    return np.asarray(alike[(num_alike >= FEW_ALIKE) & (num_alike >= SHARE_ALIKE * size)])
