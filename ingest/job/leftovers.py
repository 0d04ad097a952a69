"""What a listing passes over: files, counted by kind with the first examples of each, and columns of tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from ingest.readers import EXTENSIONS

NUM_EXAMPLES: Final = 3


@dataclass(slots=True)
class Leftovers:
    """Files that are not read, and columns of which nothing is taken.

    Attributes:
        counts: By kind (`ingest.job.list.Listing.ignored`).
        examples: The first paths of each kind.
        archives: Archives in which something is passed over → of which kinds.
        columns: Lists and tables → their columns of which nothing is taken.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    archives: dict[str, set[str]] = field(default_factory=dict)
    columns: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, path: str, archive: str = "") -> None:
        """Another file of a kind, without one of its extension, and the archive that it lies in or is."""
        kind = kind or _extension(path)
        self.counts[kind] += 1
        if archive:
            self.archives.setdefault(archive, set()).add(kind)
        shown = self.examples.setdefault(kind, [])
        if len(shown) < NUM_EXAMPLES:
            shown.append(path)


_OTHERS = "csv tsv txt json xml md pdf html htm xls xlsx doc docx log yaml yml parquet mat pkl raw bval bvec db ini"
_WORDS = frozenset(_OTHERS.split()) | {extension for extensions in EXTENSIONS.values() for extension in extensions}


def _extension(path: str) -> str:
    """A known extension, else `other`: what follows the last dot may be part of a name or an identifier."""
    extension = path.rpartition("/")[2].lower().rpartition(".")[2]
    return extension if extension in _WORDS else "other"
