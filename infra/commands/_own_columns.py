"""Columns beside the index on the command line: which are wanted, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.columns.bringing import Brought
    from ingest.source.layout import OwnColumn
    from shards.dataset.columns import Kind


def own_columns(columns: Sequence[str], *, allow: Sequence[str], types: Sequence[str]) -> Mapping[str, OwnColumn]:
    """The columns that `--column`, `--allow` and `--type` name: new name → what of the table it is.

    Raises:
        ConfigError: A word is none of these, or names a column that is not taken.
    """
    if not (columns or allow or types):
        return {}
    from ingest.source.layout import OwnColumn
    from shards.dataset.columns import check_name
    from shards.errors import ConfigError

    headers = read_columns(columns)
    for name, header in headers.items():
        check_name(name, header)
    kinds = read_types(types)
    taken = {*headers, *headers.values()}
    if strange := next((name for name in (*allow, *kinds) if name not in taken), None):
        raise ConfigError(f"--allow or --type {strange}: no such column is taken", hint="name it with --column")
    return {
        name: OwnColumn(
            header=header,
            type=kinds.get(name, kinds.get(header)),
            allow=name in allow or header in allow,
        )
        for name, header in headers.items()
    }


def read_columns(words: Sequence[str]) -> dict[str, str]:
    """What `--column HEADER` and `--column NEW=HEADER` say: new name → header.

    Raises:
        ConfigError: Two have one name.
    """
    from ingest.columns.adding import plain_name
    from shards.errors import ConfigError

    found: dict[str, str] = {}
    for word in words:
        new, equals, header = word.partition("=")
        name, header = (new, header) if equals else (plain_name(word), word)
        if found.setdefault(name, header) != header:
            raise ConfigError(
                f"--column {word}: {found[name]} is called {name} already", hint=f"rename one: --column NEW={header}"
            )
    return found


def read_types(words: Sequence[str]) -> dict[str, Kind]:
    """What `--type NAME=TYPE` says.

    Raises:
        ConfigError: A word says something else.
    """
    from ingest.columns.kinds import KINDS
    from shards.errors import ConfigError

    found: dict[str, Kind] = {}
    for word in words:
        name, _, kind = word.rpartition("=")
        known = next((one for one in KINDS if one == kind), None)
        if not name or known is None:
            raise ConfigError(f"--type {word}: expected NAME=TYPE", hint=f"the types are {', '.join(KINDS)}")
        found[name] = known
    return found


def column_lines(brought: Sequence[Brought]) -> Iterator[str]:
    """What tables brought, for people."""
    for one in brought:
        named = ", ".join(f"{name} ({kind})" for name, kind in one.kinds.items())
        lacking = f"; {one.without:,} samples have none" if one.without else ""
        yield f"{one.samples:>10,}  with {named} of {one.table}{lacking}"
        for reason, num in one.left_out.items():
            yield f"{num:>10,}  rows of {one.table} left out: {reason}"
        if one.first_left_out:
            yield f"{'':>10}  the first of them: {', '.join(str(row) for row in one.first_left_out)}"
        for name, num in one.replaced.items():
            yield f"{num:>10,}  had another {name} before: the version before {one.version} of the columns holds it"
