"""The deterministic list of a source's raw files, and its cut into units of work.

The order is that of the paths; inside zip and plain tar that of the members' names, inside a compressed tar that of
the archive. Everything later (which duplicate stays, which shard a sample lies in) follows from this order alone.
Cost: one directory walk, one read of each zip directory, one pass over each compressed tar; at most some 40 bytes a
raw file (`ingest.raw.compact`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ingest.columns.own_rows import Cells, OwnRows
from ingest.columns.stated_words import StatedWords, WordCounter, check_words
from ingest.job.join import Told, joined_files
from ingest.job.leftovers import Leftovers
from ingest.job.select import TABLE, Sieve
from ingest.job.table_match import TableMatch
from ingest.job.tables import read_tables
from ingest.raw.compact import Compact
from ingest.raw.items import RawItem
from ingest.raw.list_file import listed_items, same_path
from ingest.raw.listing import SLOW_ARCHIVES, all_items
from ingest.raw.names import archive_kind
from ingest.raw.root import RawRoot
from ingest.settings import IngestSettings
from ingest.source.globs import any_of
from ingest.source.layout import Layout
from ingest.source.spec import SourceSpec
from ingest.staging.unit import Unit
from shards.errors import SourceError

UNOPENED = "unopened"
LISTS: Final = (".csv", ".tsv", ".parquet", ".jsonl")
"""Extensions of tables that may be lists of files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a source holds.

    Attributes:
        items: The raw files to read, in order.
        ignored: Files that are not read, by kind: what a file manager left, links to folders that are listed anyway,
            members that a later one replaces; what the layout names (`masks`, `split` …, `table`, `unlisted` by a
            table); else by extension (`other` for unknown ones).
        digest: SHA-256 (hex) of paths, sizes and, in zips, checksums.
        unused: The list that the source is → its columns that say nothing of a file.
        stamps: SHA-256 (hex) of the times of change and entity tags.
        own: What the source's tables, or the list that it is, say in columns of the user's own.
        words: What they say in words that are stored.
        matches: How well the tables fit the files.
    """

    items: Sequence[RawItem]
    ignored: Counter[str]
    digest: str
    unused: Mapping[str, Sequence[str]] = field(default_factory=dict)
    stamps: str = ""
    own: Sequence[OwnRows] = ()
    words: Sequence[StatedWords] = ()
    matches: Sequence[TableMatch] = ()


def list_raw(raw_url: str, spec: SourceSpec, settings: IngestSettings) -> Listing:
    """List the raw files that `spec` asks for, with what the source's tables say of them.

    Raises:
        SourceError: Nothing is there; a table that the layout needs is missing, cannot be read, or selects nothing.
    """
    leftovers = Leftovers()
    digest, stamps = hashlib.sha256(), hashlib.sha256()
    told = Told()

    def digested() -> Iterator[RawItem]:
        for item in files_of(open_root(raw_url, spec), spec, settings, leftovers, told=told):
            line = f"{item.raw_path}\0{item.kind}\0{item.size}\0{item.check}\0{chr(0).join(item.stated)}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
            stamps.update(f"{item.stamp}\n".encode())
            for stated in item.per_frame:
                digest.update(chr(0).join(stated).encode("utf-8", "surrogateescape"))
            yield item

    items = Compact(digested())
    unused = leftovers.columns if spec.layout.reader == "list" else {}  # what an entry takes of a table is its choice
    return Listing(
        items=items,
        ignored=leftovers.counts,
        digest=digest.hexdigest(),
        unused=unused,
        stamps=stamps.hexdigest(),
        own=told.own,
        words=told.words,
        matches=told.matches,
    )


def check_told(listing: Listing, spec: SourceSpec) -> None:
    """Refuse tables by which patients would be torn apart, and words that may name a person.

    Raises:
        SourceError: A table that is to say what belongs together is about no file.
        ConfigError: A licence, anatomy or label of a source that is not de-identified may name a person.
    """
    for match in listing.matches:
        if match.fault:
            raise SourceError(match.fault, hint=match.hint)
    if not spec.deidentified:
        check_words(listing.words)


def open_root(raw_url: str, spec: SourceSpec) -> RawRoot:
    """The raw files; where the URL is one of the source's tables, those of the folder that it lies in.

    Raises:
        SourceError: Nothing is there.
    """
    return RawRoot(raw_url, stands_for_folder=Sieve(spec.layout).is_table)


def files_of(
    root: RawRoot,
    spec: SourceSpec,
    settings: IngestSettings,
    leftovers: Leftovers,
    *,
    deep: bool = True,
    told: Told | None = None,
    missing: list[str] | None = None,
) -> Iterator[RawItem]:
    """The files that a source's layout and tables ask for, in order, with what the tables say of them.

    Args:
        root: The raw files.
        spec: The source.
        settings: Limits for archives.
        leftovers: Gets what is passed over.
        deep: Whether to look into archives that take a pass over all of each; else they count as `UNOPENED`.
        told: Gets what the tables tell, or the list.
        missing: Gets what is wrong with tables, which is then no error: what they would select or say is not known.

    Raises:
        SourceError: A table that the layout needs is missing, cannot be read, or selects nothing.
    """
    layout, told = spec.layout, told or Told()
    tables: dict[int, list[RawItem]] = {}
    num_files: Counter[int] = Counter()
    if layout.reader != "list":
        files = _taken(all_items(root, settings.limits, deep=deep), Sieve(layout), leftovers, tables, num_files)
    else:
        files = _listed(root, layout, settings, leftovers, told)
    if not layout.tables and not any(rule.fallback for rule in layout.rules):
        return files
    found = Compact(files)  # tables may come after the files that they are about
    read = read_tables(root, layout.tables, tables, settings.limits, missing)
    leftovers.columns |= {join.name: list(join.unused) for join in read if join.unused}
    told.add(read)
    spare = {number for number, rule in enumerate(layout.rules) if rule.fallback}
    return joined_files(found, read, leftovers, spare=spare if set(num_files) - spare else set())


def _listed(
    root: RawRoot, layout: Layout, settings: IngestSettings, leftovers: Leftovers, told: Told
) -> Iterator[RawItem]:
    """The files of a list; `told` gets what it tells of them at its end, when all rows have been seen."""
    named = any_of(layout.include).fullmatch if layout.include else lambda _: True
    cells = Cells(layout.columns) if layout.columns else None
    words = WordCounter()
    yield from listed_items(root, settings.limits, named, leftovers.columns, cells, tell=words.add)
    name = root.single or ", ".join(layout.include) or "the list"
    told.words += words.done(name, allow=layout.allow, of_list=True)
    if cells is not None:
        told.own.append(cells.done("file", keys_of=lambda item: (same_path(item.raw_path),), of_list=True))


def _taken(
    items: Iterator[RawItem],
    sieve: Sieve,
    leftovers: Leftovers,
    tables: dict[int, list[RawItem]],
    num_files: Counter[int],
) -> Iterator[RawItem]:
    """The files of the layout's parts, counted by part; `tables` gets the tables, `leftovers` all others."""
    for item in items:
        place = item.detail if item.kind == "ignored" else sieve(item)
        if isinstance(place, int):
            num_files[place] += 1
            yield replace(item, part=place) if place else item
            continue
        if place == TABLE:
            for number in sieve.tables_of(item):
                tables.setdefault(number, []).append(item)
        if not place and not item.member and archive_kind(item.path) in SLOW_ARCHIVES:
            place = UNOPENED
        archive = item.path if item.member or place == UNOPENED else ""
        leftovers.add(place, item.inner_path, archive)


def cut_units(items: Sequence[RawItem], settings: IngestSettings) -> list[Unit]:
    """Cut a listing into units of about `unit_bytes` and at most `unit_files`.

    What can only be read from its beginning on is never cut: a compressed tar, and an archive inside an archive that
    must be unpacked for that.
    """
    units: list[Unit] = []
    current: list[RawItem] = []
    size = 0
    for item in items:
        inside = bool(current) and in_one_pass(current[-1], item)
        full = size >= settings.unit_bytes or len(current) >= settings.unit_files
        if current and full and not inside:
            units.append(Unit(index=len(units), items=Compact(current)))
            current, size = [], 0
        current.append(item)
        size += item.size
    if current:
        units.append(Unit(index=len(units), items=Compact(current)))
    return units


def in_one_pass(before: RawItem, item: RawItem) -> bool:
    """Whether two neighbours come out of the same forward pass."""
    if item.path != before.path:
        return False
    holder = item.holder
    if (holder or item).kind in ("stream", "libarchive"):
        return True
    in_place = holder is None or (item.kind in ("zip", "tar") and holder.offset >= 0)
    return not in_place and holder == before.holder
