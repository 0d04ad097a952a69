"""A source held against its description, before anything is read: what is there, what is missing, what is taken.

Reads listings, the directories of archives and the source's own tables. Compressed tars have no directory: they are
looked into only when asked, since that takes a pass over all of each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ingest.columns.bringing import type_rows
from ingest.columns.foreseeing import foresee
from ingest.columns.own_rows import OwnRows
from ingest.columns.stated_words import check_words
from ingest.job.join import Told
from ingest.job.leftovers import NUM_EXAMPLES, Leftovers
from ingest.job.list import UNOPENED, files_of, open_root
from ingest.job.select import path_of
from ingest.job.table_match import TableMatch
from ingest.privacy.pseudonyms import group_of
from ingest.raw.compact import Compact
from ingest.raw.items import RawItem
from ingest.raw.names import printable
from ingest.raw.root import RawRoot
from ingest.readers import reader_name
from ingest.settings import IngestSettings
from ingest.source.globs import any_of, expand, glob_regex
from ingest.source.layout import Rule
from ingest.source.spec import SourceSpec
from shards.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from shards.dataset.columns import Kind

TOLERANCE: Final = 0.05
"""Share by which the number of images may differ from what is expected."""

_IMAGES_PER_SECOND: Final[Mapping[str, float]] = {
    "images": 150.0,
    "dicom": 50.0,
    "nifti": 300.0,
    "nrrd": 300.0,
    "metaimage": 300.0,
    "hdf5": 400.0,
    "numpy": 300.0,
    "video": 100.0,
    "slide": 150.0,
}
"""Order of magnitude per core for pictures of about 512 pixels; large radiographs take longer."""

_STORED_BYTES: Final = 40_000
"""Order of magnitude of a stored picture of about 512 pixels."""


@dataclass(slots=True, kw_only=True)
class PartFound:
    """What one part of the layout takes.

    Attributes:
        name: The part's name, or its globs.
        optional: Whether the source is whole without it.
        num_files: Files taken.
        num_bytes: Their size.
        num_images: How many images these give, or None where only reading tells.
        examples: The first paths.
    """

    name: str
    optional: bool
    num_files: int = 0
    num_bytes: int = 0
    num_images: int | None = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class ColumnFound:
    """A column that would come beside the index.

    Attributes:
        name: Its name.
        table: Path of the table.
        header: Its name there.
        kind: Its type.
        filled: Files (of a table by image numbers: images) that get a value.
        missing: Files that get none.
    """

    name: str
    table: str
    header: str
    kind: Kind
    filled: int
    missing: int


@dataclass(slots=True, kw_only=True)
class Survey:
    """What a folder holds of a source.

    Attributes:
        source: Its id.
        downloads: Names of downloads that are there.
        missing_downloads: Names that are not, where others are.
        unexpected: Archives that are no download and hold nothing that a rule knows.
        parts: What each part takes.
        left_out: Kind → files that are no images, of another split, or left out by a table.
        unknown: Files that no rule knows, by extension.
        examples: The first paths of each of these kinds.
        unopened: Compressed tars that were not looked into.
        tables: Path of each table → rows that count.
        matches: What of each table is about the files; none while archives are not looked into.
        unused: Lists and tables → their columns of which nothing is taken.
        columns: Columns that would come beside the index.
        unfit: Table of such columns → reason → rows of it that would be left out.
        num_groups: Different groups, or None where only reading tells.
        largest_group: Files of the largest.
        num_images: Images that the files give, or None where only reading tells.
        expected: Images that the source gives when complete, or None where that is not known.
        problems: Why the source is not complete, a sentence each.
        warnings: What else is odd.
    """

    source: str
    downloads: list[str] = field(default_factory=list)
    missing_downloads: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    parts: list[PartFound] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    unopened: int = 0
    tables: dict[str, int] = field(default_factory=dict)
    matches: list[TableMatch] = field(default_factory=list)
    unused: dict[str, list[str]] = field(default_factory=dict)
    columns: list[ColumnFound] = field(default_factory=list)
    unfit: dict[str, Mapping[str, int]] = field(default_factory=dict)
    num_groups: int | None = 0
    largest_group: int = 0
    num_images: int | None = 0
    expected: int | None = None
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """`incomplete`, `complete`, or `unknown`: what lies in archives that were not looked into is not known."""
        return "incomplete" if self.problems else "unknown" if self.unopened else "complete"

    @property
    def num_files(self) -> int:
        """Files taken."""
        return sum(part.num_files for part in self.parts)

    @property
    def num_bytes(self) -> int:
        """Bytes of the files taken."""
        return sum(part.num_bytes for part in self.parts)


def survey(raw_url: str, spec: SourceSpec, settings: IngestSettings, *, deep: bool = False) -> Survey:
    """Hold a folder against the description of its source.

    Args:
        raw_url: The folder.
        spec: The source.
        settings: Limits for archives.
        deep: Whether to look into compressed tars.

    Raises:
        SourceError: Nothing is there.
    """
    root = open_root(raw_url, spec)
    found = Survey(source=spec.id, expected=spec.source_images or spec.expected_images)
    rules = spec.layout.rules
    found.parts = [PartFound(name=_name(rule), optional=rule.optional or rule.fallback) for rule in rules]
    leftovers = Leftovers()
    told = Told()
    opened: set[str] = set()
    try:
        files = files_of(root, spec, settings, leftovers, deep=deep, told=told, missing=found.problems)
        counted = _counted(files, spec, found, opened)
        if brings_columns(spec):
            met = Compact(counted)
            _hold_columns(told.own, met, found)
        else:
            deque(counted, maxlen=0)
    except SourceError as error:
        found.problems.append(str(error))
        told = Told()  # not all files were met
    _sort_out(leftovers, spec, found)
    _hold_tables(told, spec, found)
    found.unused = leftovers.columns
    _hold_downloads(root, spec, found)
    found.unexpected = list(_unexpected(leftovers, spec, opened))
    _conclude(found, rules)
    return found


def _name(rule: Rule) -> str:
    return rule.name or ", ".join(rule.include) or f"files of the {rule.reader} reader"


def brings_columns(spec: SourceSpec) -> bool:
    """Whether columns come beside the index with a source."""
    return bool(spec.layout.columns) or any(table.columns for table in spec.layout.tables)


def _hold_columns(own: Sequence[OwnRows], items: Sequence[RawItem], found: Survey) -> None:
    """Which columns would come, and for how many files."""
    for rows in own:
        try:
            typed = type_rows(rows, {})
        except ConfigError as error:
            found.problems.append(str(error))
            continue
        if not typed.columns:
            continue
        foreseen = foresee(typed, items)
        if foreseen.left_out:
            found.unfit[rows.name] = foreseen.left_out
        for name, filled in foreseen.filled.items():
            header, kind, missing = rows.wanted[name].header, typed.kinds[name], foreseen.files - filled
            found.columns.append(
                ColumnFound(name=name, table=rows.name, header=header, kind=kind, filled=filled, missing=missing)
            )


def _hold_tables(told: Told, spec: SourceSpec, found: Survey) -> None:
    """How well the tables fit the files, and whether what they say may be stored."""
    found.tables = {join.name: join.rows for join in told.joins}
    if not spec.deidentified:
        try:
            check_words(told.words)
        except ConfigError as error:
            found.problems.append(str(error))
    if found.unopened:  # it may hold the files that the rows are about
        return
    found.matches = told.matches
    for match in told.matches:
        if match.fault:
            found.problems.append(f"{match.fault}; {match.hint}")
            continue
        if match.other_group:
            rows = "1 row names" if match.other_group == 1 else f"{match.other_group:,} rows name"
            found.warnings.append(f"{rows} another group of a file than an earlier row of {match.table}, which counts")
        if match.near:
            found.warnings.append(match.near_note)


def _counted(files: Iterator[RawItem], spec: SourceSpec, found: Survey, opened: set[str]) -> Iterator[RawItem]:
    """Count files, images and groups; `opened` gets the archives that files are taken from."""
    groups: dict[int, int] = {}
    unsure = False
    for item in files:
        if item.kind in ("reject", "unavailable") and not item.member:
            found.problems.append(f"{printable(item.path)} cannot be read: {item.detail.replace(':', ', ')}")
            continue
        part, rule = found.parts[item.part], spec.layout.rules[item.part]
        part.num_files += 1
        if item.member:
            opened.add(item.path)
        part.num_bytes += item.size
        if len(part.examples) < NUM_EXAMPLES:
            part.examples.append(printable(item.inner_path))
        part.num_images = _with_images_of(item, part.num_images, rule)
        unsure |= (rule.grouping or spec.grouping).by == "dicom" and not item.stated.group
        for stated in set(item.per_frame) or (None,):
            said = stated.group if stated else ""
            group = hash(said or group_of(spec, item, frame="", stated=""))
            groups[group] = groups.get(group, 0) + 1
        yield item
    found.num_groups = None if unsure else len(groups)
    found.largest_group = max(groups.values(), default=0)
    for part, rule in zip(found.parts, spec.layout.rules, strict=True):
        if rule.images_per_file and not (part.num_images and part.num_images > part.num_files):
            part.num_images = round(part.num_files * rule.images_per_file)


def _with_images_of(item: RawItem, num_images: int | None, rule: Rule) -> int | None:
    """A number of images and those of one more file; None where only reading tells."""
    if item.per_frame:
        return (num_images or 0) + len(item.per_frame)
    single = reader_name(rule.reader, path_of(item).rpartition("/")[2]) in ("images", "dicom")
    return num_images + 1 if num_images is not None and single else None


def _sort_out(leftovers: Leftovers, spec: SourceSpec, found: Survey) -> None:
    known = spec.layout.kinds
    found.unopened = leftovers.counts.pop(UNOPENED, 0)
    for kind, count in leftovers.counts.most_common():
        (found.left_out if kind in known else found.unknown)[kind] = count
    found.examples = {kind: paths for kind, paths in leftovers.examples.items() if kind != UNOPENED}


def _unexpected(leftovers: Leftovers, spec: SourceSpec, opened: set[str]) -> Iterator[str]:
    downloads = any_of(spec.layout.downloads)
    for archive, kinds in leftovers.archives.items():
        known = kinds & {*spec.layout.kinds, *(() if spec.layout.downloads else (UNOPENED,))}
        if archive not in opened and not known and not downloads.fullmatch(archive):
            yield printable(archive)


def _hold_downloads(root: RawRoot, spec: SourceSpec, found: Survey) -> None:
    names = [name for glob in spec.layout.downloads for name in expand(glob)]
    if not names:
        return
    left = {name: glob_regex(name) for name in names}
    for file in root.walk():
        for name, pattern in list(left.items()):
            if pattern.fullmatch(file.path):
                del left[name]
        if not left:
            break
    found.downloads = [name for name in names if name not in left]
    if found.downloads and left:
        found.missing_downloads = list(left)
        found.problems.append(f"{len(left)} of {len(names)} downloads are missing")


def _conclude(found: Survey, rules: Sequence[Rule]) -> None:
    images = [part.num_images for part in found.parts]
    found.num_images = None if None in images else sum(image or 0 for image in images)
    closed = found.unopened > 0
    if found.num_files == 0 and not closed:
        found.problems.append("no file is taken")
    elif len(rules) > 1 and not closed:
        found.problems += [
            f"nothing is there of {part.name}" for part in found.parts if not part.num_files and not part.optional
        ]
    if closed or not found.num_files or found.num_images is None or not found.expected:
        return
    share = found.num_images / found.expected
    if share < 1 - TOLERANCE:
        found.problems.append(f"{found.num_images:,} images are {share:.1%} of the {found.expected:,} expected")
    elif share > 1 + TOLERANCE:
        found.warnings.append(f"{found.num_images:,} images are {share:.0%} of the {found.expected:,} expected")


def hours_on_one_core(found: Survey, spec: SourceSpec) -> float:
    """Order of magnitude of the time that ingest takes."""
    rates = [_IMAGES_PER_SECOND.get(rule.reader, 150.0) for rule in spec.layout.rules]
    parts = zip(found.parts, rates, strict=True)
    return sum((part.num_images or 0) / rate for part, rate in parts) / 3600


def stored_bytes(found: Survey) -> int:
    """Order of magnitude of the dataset's size."""
    return (found.num_images or 0) * _STORED_BYTES
