"""Adds the columns of a table to the samples of a dataset.

    read → choose and name the columns → type → refuse what may name a person → match rows to samples → write

A row that matches nothing, an identifier that matches several patients or files, and rows that contradict each other
are left out, counted by reason, and listed by their numbers in the table.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ingest.columns.guard import why_refused
from ingest.columns.kinds import id_text, typed
from ingest.columns.matching import By, match_ids
from ingest.columns.reading import GivenTable, read_given
from ingest.columns.settling import AMBIGUOUS, ID, ROW, settle_rows
from ingest.privacy.pseudonyms import KeyedNames
from ingest.raw.list_file import GROUP_COLUMNS, PATH_COLUMNS
from shards.dataset.columns import Kind, check_name, write_columns
from shards.dataset.dataset import Dataset
from shards.errors import ConfigError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_ID_COLUMNS: Final[Mapping[By, tuple[str, ...]]] = {
    "key": ("key",),
    "group": (*GROUP_COLUMNS, "patienten_id", "patientennummer", "pat_id", "paciente", "patienten-id"),
    "raw-path": (*PATH_COLUMNS, "datei", "dateiname", "fichier", "archivo"),
}
"""Headers by which the column of identifiers is known, in small letters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What of a table is to be added, and how.

    Attributes:
        by: What its identifiers are.
        on: Header of the identifiers; found by its name where empty.
        columns: New name → header; all columns where empty.
        allow: Headers or new names that are added although they look like names, dates or identifiers.
        types: New name or header → type.
        source: The only source whose samples are meant; all where empty.
        encoding: Of the text; found out where empty.
        replace: Whether a value may take the place of another one.
    """

    by: By
    on: str = ""
    columns: Mapping[str, str] | None = None
    allow: Sequence[str] = ()
    types: Mapping[str, Kind] | None = None
    source: str = ""
    encoding: str = ""
    replace: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What came of it.

    Attributes:
        version: Version of the own columns after it.
        kinds: New name → type.
        rows: Rows of the table.
        matched: Rows whose values were taken.
        left_out: Reason → rows that were left out.
        samples: Samples that the rows speak of.
        without: Samples of the dataset (or the source) that no row speaks of.
        encoding: Of the table's text; empty for Parquet.
        listed: `row, reason, pseudonym` of each row that was left out; row 1 follows the header, and the pseudonym is
            empty where there is no secret.
    """

    version: int
    kinds: Mapping[str, Kind]
    rows: int
    matched: int
    left_out: Mapping[str, int]
    samples: int
    without: int
    encoding: str
    listed: Sequence[tuple[int, str, str]]


def add_columns(dataset: Dataset, path: Path, wish: Wish, *, secret: str = "") -> Added:
    """Add columns of a table.

    Args:
        dataset: The dataset.
        path: The table.
        wish: What of it, and how.
        secret: The secret with which groups and raw paths were hashed; empty where there is none.

    Raises:
        ConfigError: The table cannot be read, a column is refused or does not fit, or nothing matches.
        SampleIndexError: The dataset holds no samples.
    """
    given = read_given(path, encoding=wish.encoding)
    on = _id_header(given, wish)
    chosen = _chosen(given, on, wish)
    columns, kinds = _typed(given, chosen, wish)
    _guard(given, chosen, columns, kinds, wish.allow)
    return join(
        dataset,
        ids=id_text(on, given.columns[on]),
        columns=columns,
        kinds=kinds,
        wish=wish,
        secret=secret,
        where=str(path),
        encoding=given.encoding,
    )


def join(
    dataset: Dataset,
    *,
    ids: pa.ChunkedArray,
    columns: Mapping[str, pa.Array],
    kinds: Mapping[str, Kind],
    wish: Wish,
    secret: str,
    where: str,
    encoding: str = "",
) -> Added:
    """Join typed columns to the samples and write them.

    Args:
        dataset: The dataset.
        ids: The identifier of each row.
        columns: Name → values of each row.
        kinds: Name → type.
        wish: How to join.
        secret: The secret; empty where there is none.
        where: The table, for messages.
        encoding: Of the table's text.

    Raises:
        ConfigError: Nothing matches.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.utf8_trim_whitespace(ids)
    encoded = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text).dictionary_encode().combine_chunks()
    rows = pa.table({ROW: range(1, len(ids) + 1), ID: encoded.indices.cast(pa.int64()), **columns})
    distinct = encoded.dictionary.to_pylist()

    def match(database: duckdb.DuckDBPyConnection) -> None:
        match_ids(database, distinct, wish.by, sources=_sources(database, wish.source), secret=secret)

    settled = settle_rows(dataset, rows, match, sources=lambda database: _sources(database, wish.source))
    if not len(settled.values):
        raise _nothing(where, wish, settled.left_out, secret)
    note: dict[str, Any] = {"added": dict(kinds), "by": wish.by, "rows": len(rows), "samples": len(settled.values)}
    note["left_out"] = dict(settled.left_out)
    version = write_columns(dataset, settled.values, replace=wish.replace, note=note)
    return Added(
        version=version,
        kinds=kinds,
        rows=len(rows),
        matched=len(rows) - sum(settled.left_out.values()),
        left_out=settled.left_out,
        samples=len(settled.values),
        without=settled.without,
        encoding=encoding,
        listed=[
            (row, reason, "" if number is None else _pseudonym(distinct[number], secret))
            for row, reason, number in settled.listed
        ],
    )


def _sources(database: duckdb.DuckDBPyConnection, wanted: str) -> list[str]:
    there = [row[0] for row in database.sql("SELECT DISTINCT source FROM samples ORDER BY 1").fetchall()]
    if wanted and wanted not in there:
        raise ConfigError(f"the dataset has no source {wanted}", hint=f"it has {', '.join(there)}")
    return [wanted] if wanted else there


def _nothing(where: str, wish: Wish, left_out: Mapping[str, int], secret: str) -> ConfigError:
    counted = ", ".join(f"{num:,} rows: {reason}" for reason, num in left_out.items())
    hint = f"compare its identifiers with what --by {wish.by} means"
    if wish.by != "key" and not secret:
        hint = "groups and hidden raw paths are hashed with the secret of who ingested: set BIOVFM_SECRET to it"
    elif AMBIGUOUS in left_out:
        hint = "name the source that is meant with --source, or write longer paths"
    return ConfigError(f"{where}: no row gives a sample its values ({counted})", hint=hint)


def _pseudonym(identifier: str, secret: str) -> str:
    """What a row that was left out is listed by; nothing where there is no secret: anybody could try all names."""
    return KeyedNames("columns", secret).group_id(identifier) if secret else ""


def _id_header(given: GivenTable, wish: Wish) -> str:
    if wish.on:
        return _header(given, wish.on)
    known = {name.lower().replace(" ", "_"): name for name in given.columns}
    for name in _ID_COLUMNS[wish.by]:
        if name in known:
            return known[name]
    raise ConfigError(
        f"{given.path}: which column holds the {wish.by} is not clear", hint=f"say it: --on {next(iter(given.columns))}"
    )


def _header(given: GivenTable, wanted: str) -> str:
    if wanted in given.columns:
        return wanted
    near = difflib.get_close_matches(wanted, list(given.columns), 1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(list(given.columns)[:12])}"
    raise ConfigError(f"{given.path} has no column {wanted}", hint=hint)


def _chosen(given: GivenTable, on: str, wish: Wish) -> dict[str, str]:
    """New name → header."""
    if wish.columns:
        chosen = {name: _header(given, header) for name, header in wish.columns.items()}
    else:
        chosen = {}
        for header in given.columns:
            if header != on and chosen.setdefault(plain_name(header), header) != header:
                raise ConfigError(
                    f"the columns {chosen[plain_name(header)]} and {header} would both be called {plain_name(header)}",
                    hint=f"rename one: --column NEW={header}",
                )
    if not chosen:
        raise ConfigError(f"{given.path} has no column beside {on}", hint="add columns to it")
    for name, header in chosen.items():
        check_name(name, header)
    return chosen


def plain_name(header: str) -> str:
    """A header as the name of a column: `Größe (cm)` becomes `groesse_cm`."""
    text = header.lower()
    for one, other in (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("ß", "ss"), ("ø", "oe"), ("æ", "ae"), ("å", "aa")):
        text = text.replace(one, other)
    plain = "".join(one for one in unicodedata.normalize("NFKD", text) if one.isascii())
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")


def _typed(given: GivenTable, chosen: Mapping[str, str], wish: Wish) -> tuple[dict[str, pa.Array], dict[str, Kind]]:
    types = wish.types or {}
    if unknown := [name for name in types if name not in chosen and name not in chosen.values()]:
        raise ConfigError(f"--type {unknown[0]}: no such column is added", hint=f"these are: {', '.join(chosen)}")
    found = {
        name: typed(header, given.columns[header], types.get(name, types.get(header)))
        for name, header in chosen.items()
    }
    if empty := [chosen[name] for name, (values, _) in found.items() if values.null_count == len(values)]:
        raise ConfigError(f"{given.path}: {empty[0]} has no value in any row", hint="choose columns with --column")
    return {name: values for name, (values, _) in found.items()}, {name: kind for name, (_, kind) in found.items()}


def _guard(
    given: GivenTable,
    chosen: Mapping[str, str],
    columns: Mapping[str, Any],
    kinds: Mapping[str, Kind],
    allow: Sequence[str],
) -> None:
    """Refuse columns that may name a person, all of them in one message."""
    if unknown := [name for name in allow if name not in chosen and name not in chosen.values()]:
        raise ConfigError(f"--allow {unknown[0]}: no such column is added", hint=f"these are: {', '.join(chosen)}")
    refused = {
        header: why
        for name, header in chosen.items()
        if name not in allow and header not in allow and (why := why_refused(header, columns[name], kinds[name]))
    }
    if refused:
        reasons = "; ".join(f"{header}: {why}" for header, why in refused.items())
        wanted = " ".join(f"--column {_quoted(header)}" for header in chosen.values() if header not in refused)
        allowed = " ".join(f"--allow {_quoted(header)}" for header in refused)
        others = f"take the others with {wanted}, or " if wanted else ""
        raise ConfigError(
            f"{given.path}: refused, since they may name a person: {reasons}",
            hint=f"{others}say that nobody can be told by them: {allowed}",
        )


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)
