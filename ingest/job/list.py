"""The deterministic list of a source's raw files, and its cut into units of work.

The order is that of the paths; inside zip and plain tar that of the members' names, inside a compressed tar that of
the archive. Everything later (which duplicate stays, which shard a sample lies in) follows from this order alone.
Cost: one directory walk, one read of each zip directory, one pass over each compressed tar; at most some 40 bytes a
raw file (`ingest.raw.compact`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ingest.job.join import Join, join_all, read_tables
from ingest.job.leftovers import Leftovers
from ingest.job.select import TABLE, Sieve
from ingest.raw.archive_listing import members
from ingest.raw.compact import Compact
from ingest.raw.items import RawItem, RawRoot
from ingest.raw.list_file import listed_items
from ingest.raw.names import archive_kind, ignored_kind
from ingest.raw.split_archive import Found, join_parts
from ingest.readers import EXTENSIONS
from ingest.settings import IngestSettings
from ingest.source.globs import any_of
from ingest.source.spec import SourceSpec
from ingest.staging.unit import Unit

UNLISTED = "unlisted"
UNOPENED = "unopened"
SLOW_ARCHIVES = ("stream", "libarchive")
"""Kinds of archives without a directory, whose listing takes a pass over all of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a source holds.

    Attributes:
        items: The raw files to read, in order.
        ignored: Files that are not read, by kind: what a file manager left, links to folders that are listed anyway,
            members that a later one replaces; what the layout names (`masks`, `split` …, `table`, `unlisted` by a
            table); else by extension (`other` for unknown ones).
        digest: SHA-256 (hex) of paths, sizes and, in zips, checksums.
    """

    items: Sequence[RawItem]
    ignored: Counter[str]
    digest: str


def list_raw(root: RawRoot, spec: SourceSpec, settings: IngestSettings) -> Listing:
    """List the raw files that `spec` asks for, with what the source's tables say of them.

    Raises:
        SourceError: A table that the layout needs is missing, cannot be read, or selects nothing.
    """
    leftovers = Leftovers()
    digest = hashlib.sha256()

    def digested() -> Iterator[RawItem]:
        for item in files_of(root, spec, settings, leftovers):
            line = f"{item.raw_path}\0{item.kind}\0{item.size}\0{item.check}\0{chr(0).join(item.stated)}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
            for stated in item.per_frame:
                digest.update(chr(0).join(stated).encode("utf-8", "surrogateescape"))
            yield item

    items = Compact(digested())
    return Listing(items=items, ignored=leftovers.counts, digest=digest.hexdigest())


def files_of(
    root: RawRoot,
    spec: SourceSpec,
    settings: IngestSettings,
    leftovers: Leftovers,
    *,
    deep: bool = True,
    joins: list[Join] | None = None,
    missing: list[str] | None = None,
) -> Iterator[RawItem]:
    """The files that a source's layout and tables ask for, in order, with what the tables say of them.

    Args:
        root: The raw URL.
        spec: The source.
        settings: Limits for archives.
        leftovers: Gets what is passed over.
        deep: Whether to look into archives that take a pass over all of each; else they count as `UNOPENED`.
        joins: Gets the tables.
        missing: Gets what is wrong with tables, which is then no error: what they would select or say is not known.

    Raises:
        SourceError: A table that the layout needs is missing, cannot be read, or selects nothing.
    """
    layout = spec.layout
    if layout.reader == "list":
        named = any_of(layout.include).fullmatch if layout.include else lambda _: True
        yield from listed_items(root, settings.limits, named)
        return
    tables: dict[int, list[RawItem]] = {}
    files = _taken(root_of(root, spec), Sieve(layout), settings, leftovers, tables, deep=deep)
    if not layout.tables and not any(rule.fallback for rule in layout.rules):
        yield from files
        return
    num_files: Counter[int] = Counter()
    found = Compact(_counted(files, num_files))  # tables may come after the files that they are about
    read = read_tables(root, layout.tables, tables, settings.limits, missing)
    if joins is not None:
        joins.extend(read)
    spare = {number for number, rule in enumerate(layout.rules) if rule.fallback}
    spare = spare if set(num_files) - spare else set()
    for item in found:
        if item.part in spare:
            leftovers.add("copies", item.inner_path, item.path if item.member else "")
            continue
        joined = item if item.kind in ("reject", "unavailable") and not item.member else join_all(item, read)
        if joined is None:
            leftovers.add(UNLISTED, item.inner_path, item.path if item.member else "")
        else:
            yield joined


def _counted(files: Iterator[RawItem], num_files: Counter[int]) -> Iterator[RawItem]:
    for item in files:
        num_files[item.part] += 1
        yield item


def _taken(
    root: RawRoot,
    sieve: Sieve,
    settings: IngestSettings,
    leftovers: Leftovers,
    tables: dict[int, list[RawItem]],
    *,
    deep: bool,
) -> Iterator[RawItem]:
    for item in all_items(root, settings, deep=deep):
        kind = item.detail if item.kind == "ignored" else ignored_kind(item.inner_path)
        place = kind or sieve(item)
        if isinstance(place, int):
            yield replace(item, part=place) if place else item
            continue
        if place == TABLE:
            for number in sieve.tables_of(item):
                tables.setdefault(number, []).append(item)
        if not place and not item.member and archive_kind(item.path) in SLOW_ARCHIVES:
            place = UNOPENED
        archive = item.path if item.member or place == UNOPENED else ""
        leftovers.add(place or _extension(item.inner_path), item.inner_path, archive)


def root_of(root: RawRoot, spec: SourceSpec) -> RawRoot:
    """The folder of the raw files; where the raw URL is one of the source's tables, the folder that it lies in."""
    if root.single and Sieve(spec.layout).tables_of(RawItem(path=root.single)):
        return root.around()
    return root


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
    if (holder or item).kind in ("stream", "libarchive"):
        return True
    in_place = holder is None or (item.kind in ("zip", "tar") and holder.offset >= 0)
    return not in_place and holder == before.holder


def all_items(root: RawRoot, settings: IngestSettings, *, deep: bool = True) -> Iterator[RawItem]:
    """Every file below the raw URL, those in archives too; what is no data has the kind `ignored`.

    Args:
        root: The raw URL.
        settings: Limits for archives.
        deep: Whether to look into archives that take a pass over all of each; else they are items as a whole.
    """
    for found in join_parts(root.walk()):
        special = _special(found)
        if special is not None:
            yield special
        elif not deep and not found.missing and archive_kind(found.path) in SLOW_ARCHIVES:
            yield RawItem(path=found.path, size=found.size)
        elif found.missing or archive_kind(found.path):
            yield from members(root, found, settings.limits)
        else:
            yield RawItem(path=found.path, size=found.size)


def _special(found: Found) -> RawItem | None:
    """The item of what is no regular file, cannot be read now, or is no data; None for a file."""
    walked = found.walked
    if walked.unavailable:
        return RawItem(path=found.path, kind="unavailable", detail=walked.unavailable)
    if walked.rejected:
        return RawItem(path=found.path, kind="reject", detail=f"unsupported:{walked.rejected}")
    kind = walked.ignored or ignored_kind(found.path)
    return RawItem(path=found.path, kind="ignored", detail=kind) if kind else None


_OTHERS = "csv tsv txt json xml md pdf html htm xls xlsx doc docx log yaml yml parquet mat pkl raw bval bvec db ini"
_WORDS = frozenset(_OTHERS.split()) | {extension for extensions in EXTENSIONS.values() for extension in extensions}


def _extension(path: str) -> str:
    """A known extension, else `other`: what follows the last dot may be part of a name or an identifier."""
    extension = path.rpartition("/")[2].lower().rpartition(".")[2]
    return extension if extension in _WORDS else "other"
