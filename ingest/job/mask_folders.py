"""Which folders of a source hold masks or labels and no images, by the names of the folders alone.

A name says so at any depth: `Kvasir-SEG/masks`, `A. Segmentation/2. All Segmentation Groundtruths`. The innermost such
folder of a file counts. The outer one of these two is not one of masks, since it holds other files beside them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

_MASKS: Final = re.compile(
    r"(?:.*[^a-z])?(?:masks?|segmentations?|segs?|gts?|ground[ _-]?truths?|annotations?|labels?|manual\w*|contours?)"
    r"(?:[^a-z].*)?",
    re.IGNORECASE,
)
_IMAGES: Final = re.compile(
    r"(?:.*[^a-z])?(?:images?|imgs?|originals?|photos?|pictures?|scans?)(?:[^a-z].*)?", re.IGNORECASE
)


class MaskFolders:
    """The folders of masks among the folders of some files.

    Args:
        files: Of each file that may be an image, the folders that it lies in, outermost first.
        outer: The names of so many outer folders say nothing.
    """

    def __init__(self, files: Iterable[Sequence[str]], outer: int = 0) -> None:
        self._outer = outer
        self._names_of_others: set[str] = set()
        holds_files, holds_masks, mixed = set[str](), set[str](), set[str]()
        for folders in files:
            self._names_of_others.update(name.lower() for name in folders[:outer])
            named = self._named(folders)
            if not named:
                continue
            path = _path(folders, named[-1])
            holds_files.add(path)
            holds_masks.update(_path(folders, number) for number in named[:-1])
            if any(_IMAGES.fullmatch(name) for name in folders[named[-1] + 1 :]):
                mixed.add(path)
        mixed |= holds_files & holds_masks
        self._mixed = {one for path in mixed for one in _upwards(path)}
        self._names_of_others.update(path.rpartition("/")[2].lower() for path in self._mixed)

    def of(self, folders: Sequence[str]) -> str:
        """The path of the folder of masks that a file lies in; empty where it lies in none."""
        named = self._named(folders)
        path = _path(folders, named[-1]) if named else ""
        return "" if path in self._mixed else path

    def globs(self, counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
        """Globs of folders of masks with their files, most first: by the name where no other folder has it.

        Args:
            counts: Path of a folder of masks → files.
        """
        found: Counter[str] = Counter()
        for path, num in counts.items():
            name = path.rpartition("/")[2]
            found[f"{_plain(path)}/**" if name.lower() in self._names_of_others else f"**/{_plain(name)}/**"] += num
        yield from found.most_common()

    def _named(self, folders: Sequence[str]) -> list[int]:
        """The positions of the folders that sound like folders of masks."""
        return [number for number, name in enumerate(folders) if number >= self._outer and _MASKS.fullmatch(name)]


def _path(folders: Sequence[str], number: int) -> str:
    return "/".join(folders[: number + 1])


def _upwards(path: str) -> Iterator[str]:
    """A folder and those that it lies in."""
    parts = path.split("/")
    return ("/".join(parts[:end]) for end in range(len(parts), 0, -1))


def _plain(path: str) -> str:
    """A path as a glob: what globs read otherwise may be any character."""
    return re.sub(r"[*{}]", "?", path)
