"""The deterministic list of a source's raw files, and its cut into units of work.

The order is that of the paths; inside zip and plain tar that of the members' names, inside a compressed tar that of
the archive. Everything later (which duplicate stays, which shard a sample lies in) follows from this order alone.
Cost: one directory walk, one read of each zip directory, one pass over each compressed tar; at most some 40 bytes a
raw file (`ingest.raw.compact`).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ingest.raw.archive import archive_kind, unpack_first
from ingest.raw.archive_listing import members
from ingest.raw.compact import Compact
from ingest.raw.items import RawItem, RawRoot, printable
from ingest.raw.list_file import listed_items
from ingest.raw.split_archive import join_parts
from ingest.readers import EXTENSIONS, handles
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec
from ingest.staging.unit import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a source holds.

    Attributes:
        items: The raw files to read, in order.
        ignored: Files that no glob or reader asks for, counted by extension (`other` for unknown ones).
        digest: SHA-256 (hex) of paths, sizes and, in zips, checksums.
    """

    items: Sequence[RawItem]
    ignored: Counter[str]
    digest: str


def list_raw(root: RawRoot, spec: SourceSpec, settings: IngestSettings) -> Listing:
    """List the raw files that `spec` asks for."""
    wanted = _selector(spec)
    ignored: Counter[str] = Counter()
    digest = hashlib.sha256()
    from_list = spec.layout.reader == "list"

    def chosen() -> Iterator[RawItem]:
        for item in listed_items(root) if from_list else _all_items(root, settings):
            if not from_list and not wanted(item):
                ignored[_extension(item.inner_path)] += 1
                continue
            line = f"{item.raw_path}\0{item.kind}\0{item.size}\0{item.check}\0{chr(0).join(item.stated)}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
            yield item

    items = Compact(chosen())
    return Listing(items=items, ignored=ignored, digest=digest.hexdigest())


def cut_units(items: Sequence[RawItem], settings: IngestSettings) -> list[Unit]:
    """Cut a listing into units of about `unit_bytes` and at most `unit_files`.

    What can only be read from its beginning on is never cut: a compressed tar, and an archive inside an archive that
    must be unpacked for that.
    """
    units: list[Unit] = []
    current: list[RawItem] = []
    size = 0
    for item in items:
        inside = bool(current) and _one_pass(current[-1], item)
        full = size >= settings.unit_bytes or len(current) >= settings.unit_files
        if current and full and not inside:
            units.append(Unit(index=len(units), items=Compact(current)))
            current, size = [], 0
        current.append(item)
        size += item.size
    if current:
        units.append(Unit(index=len(units), items=Compact(current)))
    return units


def _one_pass(before: RawItem, item: RawItem) -> bool:
    """Whether two neighbours come out of the same forward pass."""
    if item.path != before.path:
        return False
    holder = item.holder
    if (holder or item).kind == "stream":
        return True
    in_place = holder is None or (item.kind in ("zip", "tar") and holder.offset >= 0)
    return not in_place and holder == before.holder


def _all_items(root: RawRoot, settings: IngestSettings) -> Iterator[RawItem]:
    for found in join_parts(root.walk()):
        advice = unpack_first(found.path)
        if found.size < 0:
            yield RawItem(path=found.path, kind="reject", detail="unreadable:OSError")
        elif advice:
            yield RawItem(path=found.path, kind="reject", detail=f"unsupported:{advice}")
        elif found.missing or archive_kind(found.path):
            yield from members(root, found, settings.limits)
        else:
            yield RawItem(path=found.path, size=found.size)


class _selector:  # noqa: N801  # reads as a verb where it is used
    """Decides by globs, or by what the reader knows, whether a file is asked for."""

    def __init__(self, spec: SourceSpec) -> None:
        self._include = [glob_regex(glob) for glob in spec.layout.include]
        self._exclude = [glob_regex(glob) for glob in spec.layout.exclude]
        self._reader = spec.layout.reader

    def __call__(self, item: RawItem) -> bool:
        if item.kind == "reject" and (not item.member or archive_kind(item.member) or unpack_first(item.member)):
            return True
        path = printable(item.inner_path)
        if archive_kind(path) == "gzip":
            path = path[:-3]
        if any(pattern.fullmatch(path) for pattern in self._exclude):
            return False
        if self._include:
            return any(pattern.fullmatch(path) or pattern.fullmatch(item.path) for pattern in self._include)
        return handles(self._reader, path.rpartition("/")[2])


def glob_regex(glob: str) -> re.Pattern[str]:
    """`*` stays in a folder, `**` crosses them; a glob without `/` is matched at any depth. Case is ignored."""
    pattern = glob if "/" in glob else f"**/{glob}"
    out = ""
    position = 0
    while position < len(pattern):
        if pattern.startswith("**/", position):
            out, position = out + "(?:.*/)?", position + 3
        elif pattern.startswith("**", position):
            out, position = out + ".*", position + 2
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(pattern[position], re.escape(pattern[position]))
            position += 1
    return re.compile(out, re.IGNORECASE | re.DOTALL)


_OTHERS = "csv tsv txt json xml md pdf html htm xls xlsx doc docx log yaml yml parquet mat pkl raw bval bvec db ini"
_WORDS = frozenset(_OTHERS.split()) | {extension for extensions in EXTENSIONS.values() for extension in extensions}


def _extension(path: str) -> str:
    """A known extension, else `other`: what follows the last dot may be part of a name or an identifier."""
    extension = path.rpartition("/")[2].lower().rpartition(".")[2]
    return extension if extension in _WORDS else "other"
