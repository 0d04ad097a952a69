"""Sources that are a list: a CSV, TSV or Parquet file with a row a raw file.

The column `path` (or `url`) is a path below the list's own folder, a member of an archive there as it stands in the
index (`zip://a/b.png::images.zip`), or a whole URL, whose query no raw path keeps. The columns `modality`, `group` (or
`patient_id`, `patient`, `subject`), `licence`, `anatomy` and `label` may say more of each file; other columns are told
to whoever asks. Rows are taken in the order of their paths, each once.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from ingest.raw.faults import fault_of
from ingest.raw.items import RawItem, Stated
from ingest.raw.listing import members
from ingest.raw.names import leads_out
from ingest.raw.root import RawRoot
from ingest.raw.split_archive import Found
from ingest.raw.table_rows import plain_text, table_rows
from ingest.raw.web_address import without_secrets
from ingest.settings import LimitSettings
from shards.errors import SourceError, UnavailableError

PATH_COLUMNS: Final = (
    *("path", "url", "file", "raw_path", "file_path", "filepath", "filename", "file_name", "image_path", "image"),
)
GROUP_COLUMNS: Final = ("group", "group_id", "patient_id", "patient", "patientid", "subject", "subject_id")
STATED_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "modality": ("modality",),
    "group": GROUP_COLUMNS,
    "licence": ("licence", "license"),
    "anatomy": ("anatomy", "body_part"),
    "label": ("label",),
}
"""Field of `Stated` → the columns that may say it, the first of them that does."""
_ROW: Final = "#row "
_FIRST_ROW: Final = 2
"""Number of the first row below the header, as spreadsheets count."""


class RowKeeper(Protocol):
    """Who takes more of the rows than the list says of its files."""

    @property
    def headers(self) -> Container[str]:
        """The columns that it takes."""

    def check(self, names: Iterable[Any], *, where: str) -> None:
        """See the columns that there are, before all rows."""

    def add(self, row: Mapping[Any, Any], keys: Iterable[str] = ()) -> None:
        """Take a row; the keys are those of its file (`same_path`)."""


_SCHEMES: Final = ("zip://", "tar://", "gzip://", "bz2://", "xz://", "zstd://", "libarchive://")


def listed_items(
    root: RawRoot,
    limits: LimitSettings,
    names: Callable[[str], object] = lambda _: True,
    unused: dict[str, list[str]] | None = None,
    cells: RowKeeper | None = None,
    *,
    tell: Callable[[str, str, str], None] = lambda _use, _header, _word: None,
) -> Iterator[RawItem]:
    """The items of the list that `root` points at.

    Args:
        root: The list, or the folder that it lies in.
        limits: Guards against absurd archives.
        names: Whether a file below the folder is the list, by its path.
        unused: Gets the list's name and its columns that say nothing of a file.
        cells: Gets the rows, for the columns that the user wants of them.
        tell: Gets what each row says of its file: the field of `Stated`, the column and the word.

    Raises:
        SourceError: The raw URL is no list, or has no column of paths.
    """
    rows = _rows(root, names, {} if unused is None else unused, cells, tell)
    archives: dict[str, dict[str, Stated]] = {}
    for path, stated in rows.items():
        archive = path.rpartition("::")[2] if path.startswith(_SCHEMES) and "::" in path else ""
        if archive and "://" not in archive:
            archives.setdefault(archive, {})[path] = stated
        else:
            archives.setdefault(path, {})[path] = stated
    for name in sorted(archives):
        yield from _items(root, name, archives[name], limits)


def _rows(
    root: RawRoot,
    names: Callable[[str], object],
    unused: dict[str, list[str]],
    cells: RowKeeper | None,
    tell: Callable[[str, str, str], None],
) -> dict[str, Stated]:
    """Path → what the list says of it."""
    files = [root.single] if root.single else [file.path for file in root.walk() if names(file.path)]
    if len(files) != 1:
        raise SourceError(f"{root.url} is no list file", hint="give a .csv, .tsv or .parquet file as the raw URL")
    found: dict[str, Stated] = {}
    links: dict[str, str] = {}
    name = files[0]
    try:
        with root.open(name) as stream:
            for number, row in enumerate(table_rows(stream, name), _FIRST_ROW):
                if number == _FIRST_ROW:
                    if cells is not None:
                        cells.check(row, where=name)
                    columns = [str(column or "").strip() for column in row]
                    _note_unused(name, columns, () if cells is None else cells.headers, unused)
                named = {str(column or "").strip().lower(): cell for column, cell in row.items()}
                path, stated = _entry(root, named, tell)
                kept = without_secrets(path)
                path = links.setdefault(kept, path) if "://" in path else path  # of several links to a file the first
                found.setdefault(path or f"{name}{_ROW}{number}", stated)
                if cells is not None:
                    cells.add(row, [same_path(kept)] if path else ())
    except (ValueError, OSError) as error:
        raise fault_of(error) or SourceError(
            f"{root.url} is no list that can be read: {type(error).__name__}", hint=_SAVE_AS
        ) from error
    return found


_SAVE_AS: Final = "save it as UTF-8 (in Excel: CSV UTF-8), or as Parquet"


def same_path(path: str) -> str:
    """A path of the list in the form in which all ways to write it are equal."""
    plain = path.replace("\\", "/")
    return plain if "://" in plain else posixpath.normpath(plain)


def _note_unused(name: str, columns: list[str], wanted: Container[str], unused: dict[str, list[str]]) -> None:
    """Name the columns that say nothing of a file; of several that mean the same, the first one is used."""
    known = {column for names in (PATH_COLUMNS, *STATED_COLUMNS.values()) for column in names}
    shown = [plain_text(column) for column in columns if column and column.lower() not in known]
    left = [column for column in shown if column not in wanted]
    if left:
        unused[name] = left


def _entry(root: RawRoot, row: Mapping[str, Any], tell: Callable[[str, str, str], None]) -> tuple[str, Stated]:
    name = next((name for name in PATH_COLUMNS if row.get(name)), "")
    if not name and not any(column in row for column in PATH_COLUMNS):
        there = ", ".join(sorted(plain_text(column) for column in row if column))
        raise SourceError(
            f"{root.url} has a row without `path`; its columns are {there}",
            hint=f"name a column one of {', '.join(PATH_COLUMNS)}",
        )
    stated = dict[str, str]()
    for field, columns in STATED_COLUMNS.items():
        column = next((column for column in columns if row.get(column)), "")
        stated[field] = str(row[column]) if column else ""
        tell(field, column, stated[field])
    return str(row.get(name) or "").strip(), Stated(**stated)


def _item(root: RawRoot, path: str, stated: Stated) -> RawItem:
    """One file of the list; backslashes are `/` where no file has them in its name."""
    if _ROW in path:
        return RawItem(path=path, kind="reject", detail="unreadable:no path in this row", stated=stated)
    if "://" in path:
        return RawItem(path=path, kind="url", stated=stated)
    plain = posixpath.normpath(path.replace("\\", "/"))
    if leads_out(plain):
        return RawItem(path=path, kind="reject", detail="path_traversal", stated=stated)
    found: Exception = ValueError()
    for name in dict.fromkeys((path, plain)):
        try:
            return RawItem(path=name, size=root.size(name), stamp=root.stamp(name), stated=stated)
        except (OSError, ValueError) as error:
            found = error
    if not _is_text(path):
        raise SourceError(f"{root.url} is not UTF-8 text", hint=_SAVE_AS)
    fault = fault_of(found)
    if isinstance(fault, UnavailableError):
        return RawItem(path=path, kind="unavailable", detail=fault.message, stated=stated)
    if fault is not None:
        raise fault from found
    return RawItem(path=path, kind="reject", detail=f"unreadable:{type(found).__name__}", stated=stated)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _items(root: RawRoot, name: str, rows: dict[str, Stated], limits: LimitSettings) -> Iterator[RawItem]:
    """One file of the list; of an archive the listed members, in its order, then what it does not hold."""
    file = _item(root, name, rows.get(name, Stated()))
    if list(rows) == [name]:
        yield file
        return
    left = dict(rows)
    if file.kind == "file":
        for item in members(root, Found(path=file.path, size=file.size), limits):
            if item.kind != "ignored" and item.raw_path in left:
                yield replace(item, stated=left.pop(item.raw_path))
    missing = RawItem(path=name, kind="reject", detail="unreadable:no such member")
    for path, stated in left.items():
        yield replace(missing if file.kind == "file" else file, path=path, stated=stated)
