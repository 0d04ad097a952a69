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
from ingest.job.select import mask_ending, path_of
from ingest.raw.archive_reading import open_items
from ingest.raw.items import RawItem, RejectError
from ingest.raw.listing import all_items
from ingest.raw.names import ignored_kind
from ingest.raw.root import RawRoot
from ingest.raw.table_rows import table_rows
from ingest.readers import reader_name
from ingest.settings import IngestSettings
from shards.errors import SourceError
from shards.schema import MODALITIES

_MASKS: Final = re.compile(
    r"(?:.*[^a-z])?(?:masks?|segmentations?|segs?|gts?|ground[ _-]?truths?|annotations?|labels?|manual\w*|contours?)"
    r"(?:[^a-z].*)?",
    re.IGNORECASE,
)
_SPLITS: Final = re.compile(r"(?:.*[^a-z])?(?:test|testing|val|valid|validation)(?:[^a-z].*)?", re.IGNORECASE)
_PATIENTS: Final = (
    r"(?i)(?:^|[/_-])((?:patient|subject|subj|case|pat|sub|pt)[-_ ]?\d+)(?=[/_. -])",
    r"(?:^|/)([A-Za-z]{0,4}[-_]?\d{3,})/[^/]+$",
    r"(?:^|/)([A-Za-z]*[-_]?\d{2,})[-_][^/]*$",
)
_GROUP_COLUMN: Final = re.compile(r"(?i)^(?:patient|subject|case|study|exam)[-_ ]?(?:id|no|number|uid)?$")
_LICENCE_COLUMN: Final = re.compile(r"(?i)licen[cs]e")
_LABEL_COLUMN: Final = re.compile(r"(?i)^(?:label|diagnosis|dx|class|target|finding)s?$")
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
    mask_folders: Counter[str] = field(default_factory=Counter)
    split_folders: Counter[str] = field(default_factory=Counter)
    mask_endings: Counter[str] = field(default_factory=Counter)
    sample: list[str] = field(default_factory=list)
    tables: list[RawItem] = field(default_factory=list)
    shared: list[str] | None = None  # outer folders that all files for a reader lie in


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
    seen = _look(root, settings)
    if not seen.formats and seen.shared:  # the folder that holds everything only sounds like one of masks
        seen = _look(root, settings, len(seen.shared))
    if not seen.formats:
        raise SourceError(f"{root.url} holds no images that a reader knows", hint="check the path")
    return "\n".join(_lines(seen, root, settings, name, modality)) + "\n"


def _look(root: RawRoot, settings: IngestSettings, outer: int = 0) -> _Seen:
    """What the files are by their names and folders; the names of that many outer folders say nothing."""
    seen = _Seen()
    for item in all_items(root, settings.limits):
        path = path_of(item)
        if item.kind in ("ignored", "reject", "unavailable") or ignored_kind(path):
            continue
        seen.num_files += 1
        *folders, file = path.split("/")
        if file.lower().endswith(_TABLES) and item.size <= _LARGEST_TABLE:
            seen.tables.append(item)
            continue
        reader = reader_name("auto", file)
        if not reader:
            continue
        stem, _, extension = file.rpartition(".")
        seen.shared = folders if seen.shared is None else _common(seen.shared, folders)
        masks = [folder for folder in folders[outer:] if _MASKS.fullmatch(folder)]
        ending = mask_ending(file)
        if masks:
            seen.mask_folders[masks[0]] += 1
        elif ending:
            seen.mask_endings[re.sub(r"[-_]?\d+$", "", ending)] += 1
        else:
            seen.formats[reader, extension.lower() if stem else ""] += 1
            seen.split_folders.update({folder for folder in folders if _SPLITS.fullmatch(folder)})
            if len(seen.sample) < _SAMPLE:
                seen.sample.append(path)
    return seen


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
    yield f"  reader: {next(iter(readers)) if len(readers) == 1 else 'auto'}"
    yield from _include(seen)
    left = [(f"**/{folder}/**", count) for folder, count in seen.mask_folders.most_common()]
    left += [(f"**/*{ending}*", count) for ending, count in seen.mask_endings.most_common()]
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
    yield "  include:"
    extensions: Counter[str] = Counter()
    for (_, extension), count in seen.formats.items():
        extensions[extension if extension.isascii() and extension.isalpha() else ""] += count
    for extension, count in extensions.most_common():
        glob = f"*.{extension}" if extension else "*"
        yield f"    - {_quoted(glob)}  # {count:,} files"


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
