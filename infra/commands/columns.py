"""`biovfm columns add | list | remove`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from infra.commands._own_columns import read_columns, read_types
from infra.console import answer, answer_table, emit, number, stderr

if TYPE_CHECKING:
    from pydantic import SecretStr

    from ingest.columns.adding import Added
    from shards.dataset.dataset import Dataset

app = App(name="columns", help="Give samples columns of your own: labels, age, findings; never in the shards.")

Json = Annotated[bool, Parameter(name="--json")]
_SHOWN = 10


@app.command
def add(
    dataset: str,
    table: Path,
    /,
    *,
    by: Literal["raw-path", "group", "key"],
    on: str = "",
    column: tuple[str, ...] = (),
    allow: tuple[str, ...] = (),
    type_: Annotated[tuple[str, ...], Parameter(name="--type")] = (),
    source: str = "",
    encoding: str = "",
    replace: bool = False,
    unmatched: Path | None = None,
    json_: Json = False,
) -> None:
    """Add columns of a table (CSV or Parquet) to the samples that its identifiers stand for.

    Example: `biovfm columns add ./data patients.csv --by group --column age=Alter --column sex=Geschlecht`

    Parameters
    ----------
    dataset
        Folder or URL of the dataset.
    table
        CSV with any of the usual separators and encodings, or Parquet.
    by
        What the table's identifiers are: raw paths (or their ends), groups (patients, as the source names them) or
        sample keys. They are hashed as ingest hashed them, and written nowhere.
    on
        Header of the identifiers; without it, it is known by its name.
    column
        A column to add, HEADER or NEW=HEADER; repeat for several. All of them without it.
    allow
        A column to add although it looks like names, dates or identifiers; repeat for several.
    type_
        NAME=TYPE where the values do not say it: bool, int, float, category, date or timestamp.
    source
        The only source whose samples are meant.
    encoding
        Of the CSV, e.g. cp1250; without it UTF-8, UTF-16 or Windows-1252 is found out.
    replace
        Let values take the place of other ones.
    unmatched
        Write the rows that were left out: number, reason and pseudonym.
    """
    from ingest.columns.adding import Wish, add_columns
    from ingest.privacy.secret import load_secret
    from shards.dataset import Dataset

    wish = Wish(
        by=by,
        on=on,
        columns=read_columns(column),
        allow=allow,
        types=read_types(type_),
        source=source,
        encoding=encoding,
        replace=replace,
    )
    opened, secret = Dataset.open(dataset), load_secret(create=False)
    if by != "key":
        _check_secret(opened, secret)
    added = add_columns(opened, table, wish, secret=secret.get_secret_value())
    if unmatched is not None:
        _write_unmatched(unmatched, added)
    if json_:
        emit({"version": added.version, "columns": dict(added.kinds), **_counts(added)})
        return
    _tell(added, listed=unmatched is None)


def _check_secret(dataset: Dataset, secret: SecretStr) -> None:
    """Say before anything is read that the secret is lost; refuse where nothing can be matched without it."""
    from ingest.job.secret_check import judge_secret, keyed_jobs, require_secret

    keyed = {job.spec.id for job in keyed_jobs(dataset)}
    others = dataset.query("SELECT DISTINCT source FROM samples")["source"].to_pylist()
    if judge_secret(dataset, secret) == "missing" and set(others) - keyed:
        names = ", ".join(sorted(keyed))
        stderr().print(f"note: there is no secret here; samples of {names} match by key alone", soft_wrap=True)
        return
    require_secret(dataset, secret)


@app.command(name="list")
def list_(dataset: str, /, *, json_: Json = False) -> None:
    """List the columns of your own, with types and how many samples have a value.

    Example: `biovfm columns list ./data`

    Parameters
    ----------
    dataset
        Folder or URL of the dataset.
    """
    from dataclasses import asdict

    from shards.dataset import Dataset
    from shards.dataset.columns import columns_version, describe_columns

    opened = Dataset.open(dataset)
    rows = [asdict(facts) for facts in describe_columns(opened)]
    if json_:
        emit({"dataset": opened.url, "version": columns_version(opened), "columns": rows})
    elif rows:
        answer_table(f"columns of your own, version {columns_version(opened)}", rows)
    else:
        answer(f"{opened.url} has no columns of your own; `biovfm columns add` adds some")


@app.command
def remove(dataset: str, name: str, /, *more: str, json_: Json = False) -> None:
    """Take columns out of the newest version; locks of earlier versions keep theirs.

    Example: `biovfm columns remove ./data age`

    Parameters
    ----------
    dataset
        Folder or URL of the dataset.
    name
        A column.
    more
        Further columns.
    """
    from shards.dataset import Dataset
    from shards.dataset.columns import remove_columns

    names = [name, *more]
    version = remove_columns(Dataset.open(dataset), names)
    if json_:
        emit({"version": version, "removed": names})
    else:
        answer(f"removed {', '.join(names)}: version {version} of the columns")


def _counts(added: Added) -> dict[str, object]:
    return {
        "rows": added.rows,
        "matched": added.matched,
        "left_out": dict(added.left_out),
        "samples": added.samples,
        "samples_without": added.without,
        "encoding": added.encoding,
    }


def _write_unmatched(path: Path, added: Added) -> None:
    from shards.files import write_text

    lines = ["row\treason\tpseudonym", *(f"{row}\t{reason}\t{name}" for row, reason, name in added.listed)]
    write_text(path, "".join(f"{line}\n" for line in lines))
    stderr().print(f"wrote {path}", soft_wrap=True)


def _tell(added: Added, *, listed: bool) -> None:
    named = ", ".join(f"{name} ({kind})" for name, kind in added.kinds.items())
    answer(f"added {named}: version {added.version} of the columns")
    read = f", read as {added.encoding}" if added.encoding else ""
    answer(f"{number(added.rows, 'row')}{read}: {added.matched:,} taken, for {number(added.samples, 'sample')}")
    if added.without:
        answer(f"{added.without:,} samples have no row")
    for reason, num in added.left_out.items():
        answer(f"{number(num, 'row')} left out: {reason}")
    if listed and added.listed:
        rows = ", ".join(str(row) for row, _, _ in added.listed[:_SHOWN])
        more = f" and {len(added.listed) - _SHOWN:,} more" if len(added.listed) > _SHOWN else ""
        answer(f"left out are the rows {rows}{more} (below the header); --unmatched FILE lists them all with reasons")
