"""A first YAML for a source of one's own, drafted from what its folder holds; a person reads and completes it.

Names of folders and files say what looks like masks, labels or another split, and what looks like a patient; tables
are tried against the names of the files. Nothing is read but listings and the first rows of tables.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any, Final

from ingest.columns.own_rows import cell_text
from ingest.columns.stated_words import why_words_are_refused
from ingest.job.mask_folders import MaskFolders
from ingest.job.select import NAMED_FREELY, mask_ending, path_of
from ingest.raw.archive_reading import open_items
from ingest.raw.compact import Compact
from ingest.raw.items import RawItem, RejectError
from ingest.raw.listing import all_items
from ingest.raw.names import ignored_kind
from ingest.raw.root import RawRoot
from ingest.raw.table_rows import table_rows
from ingest.readers import EXTENSIONS, reader_name
from ingest.settings import IngestSettings
from shards.errors import SourceError
from shards.schema import MODALITIES

_SPLITS: Final = re.compile(r"(?:.*[^a-z])?(?:test|testing|val|valid|validation)(?:[^a-z].*)?", re.IGNORECASE)
_PATIENTS: Final = (
    r"(?i)(?:^|[/_-])((?:patient|subject|subj|case|pat|sub|pt)[-_ ]?\d+)(?=[/_. -])",
    r"(?:^|/)([A-Za-z]{0,4}[-_]?\d{3,})/[^/]+$",
    r"(?:^|/)([A-Za-z]*[-_]?\d{2,})[-_][^/]*$",
)
_GROUP_COLUMN: Final = re.compile(r"(?i)^(?:patient|subject|case|study|exam)[-_ ]?(?:id|no|number|uid)?$")
_LICENCE_COLUMN: Final = re.compile(r"(?i)licen[cs]e")
_LABEL_COLUMN: Final = re.compile(r"(?i)^(?:label|diagnosis|dx|class|target|finding)s?$")
_EXTENSIONS: Final = frozenset(extension for extensions in EXTENSIONS.values() for extension in extensions)
_NEAR_ENDING: Final = re.compile(r"[-_](?:mask|label|gt|groundtruth|seg|segmentation)s?", re.IGNORECASE)
_NO_FILES: Final = ("ignored", "reject", "unavailable")
_LONGEST_LABEL: Final = 60
"""Characters; what is longer is a sentence."""
_FEWEST_DIFFERENT: Final = 5
"""So many words, each in one row, are no labels."""
_TABLES: Final = (".csv", ".tsv", ".parquet")
_SAMPLE: Final = 5000
_ROWS: Final = 500
_LARGEST_TABLE: Final = 64 << 20


@dataclass(slots=True)
class _Seen:
    """What a folder holds, in numbers and samples."""

    num_files: int = 0
    formats: Counter[tuple[str, str]] = field(default_factory=Counter)  # reader, extension
    masks: MaskFolders = field(default_factory=lambda: MaskFolders(()))
    mask_folders: Counter[str] = field(default_factory=Counter)  # by path
    split_folders: Counter[str] = field(default_factory=Counter)
    mask_endings: Counter[str] = field(default_factory=Counter)
    near_endings: set[str] = field(default_factory=set)  # words for masks elsewhere in the names of images
    has_odd_names: bool = False  # globs of extensions would take other files than the readers do
    sample: list[str] = field(default_factory=list)
    tables: list[RawItem] = field(default_factory=list)
    shared: list[str] | None = None  # outer folders that all files for a reader lie in

    def is_sure(self, ending: str) -> bool:
        """Whether no image has the ending of masks within its name; ingest leaves out what ends so without a glob."""
        return not any(word.startswith(ending.lower()) for word in self.near_endings)


def draft(root: RawRoot, settings: IngestSettings, *, name: str, modality: Sequence[str] = ()) -> str:
    """YAML text of a source, with remarks.

    Args:
        root: The raw URL.
        settings: Limits for archives.
        name: Id of the source.
        modality: Its tags; DICOM files say theirs, for all others they are left to be filled in.

    Raises:
        SourceError: The folder holds nothing that a reader knows.
    """
    items = Compact(all_items(root, settings.limits))
    seen = _look(items)
    if not seen.formats and seen.shared:  # the folder that holds everything only sounds like one of masks
        seen = _look(items, len(seen.shared))
    if not seen.formats:
        raise SourceError(f"{root.url} holds no images that a reader knows", hint="check the path")
    return "\n".join(_lines(seen, root, settings, name, modality)) + "\n"


def _look(items: Sequence[RawItem], outer: int = 0) -> _Seen:
    """What the files are by their names and folders; the names of that many outer folders say nothing."""
    seen = _Seen()
    files = (folders for item in items if (folders := _folders_of(item)) is not None)
    seen.masks = MaskFolders(files, outer)
    for item in items:
        if item.kind in _NO_FILES or ignored_kind(path := path_of(item)):
            continue
        seen.num_files += 1
        *folders, file = path.split("/")
        if _is_table(item, file):
            seen.tables.append(item)
            continue
        reader, extension = reader_name("auto", file), _extension(file)
        if not reader:
            seen.has_odd_names |= extension in _EXTENSIONS
            continue
        seen.shared = folders if seen.shared is None else _common(seen.shared, folders)
        ending = mask_ending(file) if reader in NAMED_FREELY else ""
        if masks := seen.masks.of(folders):
            seen.mask_folders[masks] += 1
        elif ending:
            seen.mask_endings[re.sub(r"[-_]?\d+$", "", ending)] += 1
        else:
            seen.formats[reader, extension] += 1
            seen.has_odd_names |= extension not in _EXTENSIONS
            seen.near_endings.update(found.lower() for found in _NEAR_ENDING.findall(file))
            seen.split_folders.update({folder for folder in folders if _SPLITS.fullmatch(folder)})
            if len(seen.sample) < _SAMPLE:
                seen.sample.append(path)
    return seen


def _folders_of(item: RawItem) -> list[str] | None:
    """The folders of a file that a reader takes by its name; None for any other."""
    path = path_of(item)
    *folders, file = path.split("/")
    is_file = item.kind not in _NO_FILES and not ignored_kind(path) and not _is_table(item, file)
    return folders if is_file and reader_name("auto", file) else None


def _is_table(item: RawItem, file: str) -> bool:
    return file.lower().endswith(_TABLES) and item.size <= _LARGEST_TABLE


def _extension(file: str) -> str:
    """The extension by which a reader takes a file, where it is by one; else what follows the last dot, if anything."""
    lower = file.lower()
    return "nii.gz" if lower.endswith(".nii.gz") else lower.rpartition(".")[2] if "." in lower else ""


def _lines(seen: _Seen, root: RawRoot, settings: IngestSettings, name: str, modality: Sequence[str]) -> Iterator[str]:
    readers = {reader for reader, _ in seen.formats}
    dicom = readers == {"dicom"}
    tables = list(_joins(seen, root, settings))
    yield f"# Drafted from {seen.num_files:,} files. Read it through, complete it, then try `biovfm sources check`."
    yield f"id: {name}"
    yield f"name: {name}"
    yield from _modality(modality, dicom=dicom)
    yield "licence: unknown  # SPDX identifier or name of the licence that you have the images under"
    yield "deidentified: false  # true where nothing in paths or tags identifies a person"
    yield "layout:"
    yield "  reader: auto  # by the name, and by the content where that is something else"
    yield from _include(seen)
    left = list(seen.masks.globs(seen.mask_folders))
    left += [(f"**/*{ending}*", count) for ending, count in seen.mask_endings.most_common() if seen.is_sure(ending)]
    if left:
        yield "  left_out:"
        yield "    masks:"
        yield from (f"      - {_quoted(glob)}  # {count:,} files" for glob, count in left)
    for folder, count in seen.split_folders.most_common():
        glob = _quoted(f"**/{folder}/**")
        yield f"  # {count:,} files lie in {_quoted(folder)}: put {glob} under `left_out: split` if they are held out"
    if tables:
        yield "  tables:"
        yield from (line for table in tables for line in table)
    yield from _grouping(seen, dicom=dicom, told=any("group:" in line for table in tables for line in table))


def _common(first: list[str], second: list[str]) -> list[str]:
    """The outer folders that two files share."""
    return [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))]


def _modality(modality: Sequence[str], *, dicom: bool) -> Iterator[str]:
    if modality:
        yield f"modality: [{', '.join(modality)}]"
    elif dicom:
        yield f"modality: [{', '.join(MODALITIES)}]  # those that may occur"
    else:
        yield f"modality: []  # fill in: {', '.join(MODALITIES)}"
    if dicom and len(modality) != 1:
        yield "modality_rule: {by: dicom}"


def _include(seen: _Seen) -> Iterator[str]:
    if seen.has_odd_names:
        taken = ", ".join(f"{count:,} for {reader}" for reader, count in _added(seen, 0).most_common())
        yield f"  # the readers choose by name, since some files have no extension that `include` could say: {taken}"
        return
    yield "  include:"
    for extension, count in _added(seen, 1).most_common():
        yield f"    - {_quoted(f'*.{extension}')}  # {count:,} files"


def _added(seen: _Seen, part: int) -> Counter[str]:
    """Files by reader (0) or by extension (1)."""
    found: Counter[str] = Counter()
    for format_, count in seen.formats.items():
        found[format_[part]] += count
    return found


def _grouping(seen: _Seen, *, dicom: bool, told: bool) -> Iterator[str]:
    if dicom:
        yield "grouping: {by: dicom, tag: PatientID}"
        return
    for pattern in _PATIENTS:
        found = [match[1] for path in seen.sample if (match := re.search(pattern, path))]
        if len(found) >= 0.9 * len(seen.sample) and 1 < len(set(found)) < len(found):
            yield f"grouping:  # e.g. {_quoted(found[0])}: {len(set(found)):,} groups of {len(found):,} files"
            yield "  by: path"
            yield f"  pattern: {_quoted(pattern)}"
            return
    note = "what the table does not say is a group of its own" if told else "say what belongs to one patient or volume"
    yield f"grouping: {{by: file}}  # {note}"


def _joins(seen: _Seen, root: RawRoot, settings: IngestSettings) -> Iterator[list[str]]:
    names = {path.rpartition("/")[2] for path in seen.sample}
    stems = {name.rpartition(".")[0].removesuffix(".nii") for name in names}
    for item in seen.tables[:20]:
        with suppress(RejectError, SourceError, ValueError, OSError):
            lines = _join(item, root, settings, {"name": names, "stem": stems})
            if lines:
                yield lines


def _join(item: RawItem, root: RawRoot, settings: IngestSettings, known: dict[str, set[str]]) -> list[str]:
    rows: list[Any] = []
    for _, raw in open_items(root, [item], settings.limits):
        with raw.open() as stream:
            rows = list(islice(table_rows(stream, raw.name), _ROWS))
    if not rows:
        return []
    columns = [str(column) for column in rows[0] if column]
    hits = {
        (column, way): sum(str(row.get(column) or "").replace("\\", "/").rpartition("/")[2] in there for row in rows)
        for column in columns
        for way, there in known.items()
    }
    (key, way), best = max(hits.items(), key=lambda hit: hit[1])
    if best < min(20, (len(rows) + 1) // 2):
        return []
    path = path_of(item)
    lines = [f"    - path: {_quoted(path)}  # {best:,} of its first {len(rows):,} rows name a file"]
    lines += [f"      key: {_quoted(key)}", f"      match: {way}"]
    remarks = []
    for word, pattern in (("group", _GROUP_COLUMN), ("licence", _LICENCE_COLUMN), ("label", _LABEL_COLUMN)):
        column = next((column for column in columns if pattern.search(column) and column != key), "")
        why = "" if word == "group" or not column else _why_not_stored(word, column, rows)
        if why:
            remarks.append(f"      # no {word}, which would be stored as it stands: {_quoted(column)}: {why}")
        elif column:
            lines.append(
                f"      {word}: [{_quoted(column)}]" if word == "group" else f"      {word}: {_quoted(column)}"
            )
    return [*lines, *remarks] if len(lines) > 3 else []


def _why_not_stored(word: str, column: str, rows: list[Any]) -> str:
    """Why what a column says is not to be stored as it stands; empty where it looks like a few plain words."""
    words = Counter(text for row in rows if (text := cell_text(row.get(column))))
    if why := why_words_are_refused(column, words):
        return why
    if word == "label" and any(len(text) > _LONGEST_LABEL for text in words):
        return "it holds whole sentences"
    is_different = len(words) >= _FEWEST_DIFFERENT and len(words) >= 0.9 * words.total()
    return "nearly every value is another one" if word == "label" and is_different else ""


def _quoted(text: str) -> str:
    """A YAML string on one line; control characters need JSON's escapes."""
    return "'" + text.replace("'", "''") + "'" if text.isprintable() else json.dumps(text)
