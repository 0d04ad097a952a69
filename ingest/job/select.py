"""Which part of its source a raw file belongs to: by the globs of the layout, or by what the readers know.

A file whose name ends in a word for masks (`7_mask.png`, `case-3_seg.nii.gz`) is no image unless a glob of the layout
spells such a word. DICOM files are told by their class instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ingest.raw.items import RawItem
from ingest.raw.names import archive_kind, ignored_kind, seen_path
from ingest.readers import handles, reader_name
from ingest.source.globs import any_of
from ingest.source.layout import Layout, Rule

TABLE = "table"
UNKNOWN = ""
MASKS: Final = "masks"
_MASK_STEM: Final = re.compile(
    r"[-_](?:(?:mask|label|gt|groundtruth)s?(?:[-_]?\d+)?|(?:seg|segmentation)s?\d*)$", re.IGNORECASE
)
_MASK_WORD: Final = re.compile(
    r"(?<![a-z])(?:mask|seg|segmentation|label|gt|ground[-_]?truth)s?(?![a-z])", re.IGNORECASE
)
NAMED_FREELY: Final = ("images", "nifti", "nrrd", "metaimage", "hdf5", "numpy")
"""Readers of formats whose file names say what they hold: a DICOM file says it by its class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    include: re.Pattern[str] | None
    exclude: re.Pattern[str]
    reader: str
    takes_masks: bool

    def __call__(self, path: str, outer: str) -> bool:
        if self.exclude.fullmatch(path):
            return False
        if self.include is None:
            return handles(self.reader, path.rpartition("/")[2])
        return bool(self.include.fullmatch(path) or self.include.fullmatch(outer))

    def is_mask(self, path: str) -> bool:
        """Whether the name of a file that the part takes says that it is a mask."""
        name = path.rpartition("/")[2]
        return not self.takes_masks and bool(mask_ending(name)) and reader_name(self.reader, name) in NAMED_FREELY


def mask_ending(name: str) -> str:
    """The ending by which a file name says that the file is a mask (`_seg` of `a_seg.nii.gz`), or nothing."""
    found = _MASK_STEM.search(name.rpartition(".")[0].removesuffix(".nii"))
    return found[0] if found else ""


class Sieve:
    """Tells the files of a source apart.

    Args:
        layout: The source's layout.
    """

    def __init__(self, layout: Layout) -> None:
        self._tests = [_test(rule) for rule in layout.rules]
        self._kinds = [(str(kind), any_of(tuple(globs))) for kind, globs in layout.left_out.items()]
        self._tables = [any_of((table.path,)) for table in layout.tables]

    def __call__(self, item: RawItem) -> int | str:
        """The number of the part that takes a file; else what it is.

        That is a kind of what is left out or is no data, `TABLE`, or `UNKNOWN`.

        An archive or folder that cannot be read belongs to the first part: what it holds is not known.
        """
        path = path_of(item)
        ignored = ignored_kind(item.inner_path)
        if ignored:
            return ignored
        if self.tables_of(item):
            return TABLE
        kind = next((kind for kind, pattern in self._kinds if pattern.fullmatch(path)), "")
        if kind:
            return kind
        name = item.member or item.path
        if item.kind in ("reject", "unavailable") and (archive_kind(name) or name == "." or name.endswith("/")):
            return 0
        number = next((number for number, test in enumerate(self._tests) if test(path, item.path)), None)
        if number is None:
            return UNKNOWN
        return MASKS if self._tests[number].is_mask(path) else number

    def tables_of(self, item: RawItem) -> list[int]:
        """The numbers of the layout's tables that a file is."""
        if not self._tables:
            return []
        path = path_of(item)
        return [number for number, pattern in enumerate(self._tables) if pattern.fullmatch(path)]

    def is_table(self, path: str) -> bool:
        """Whether a file of this path, in no archive, is one of the layout's tables."""
        return any(pattern.fullmatch(seen_path(path)) for pattern in self._tables)


def path_of(item: RawItem) -> str:
    """The path that globs and keys see."""
    return seen_path(item.inner_path)


def _test(rule: Rule) -> _Test:
    include = any_of(rule.include) if rule.include else None
    return _Test(
        include=include,
        exclude=any_of(rule.exclude),
        reader=rule.reader,
        takes_masks=any(_MASK_WORD.search(glob) for glob in rule.include),
    )
