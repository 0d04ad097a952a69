"""Columns beside the index on the command line: which are wanted, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ingest.columns.bringing import Brought
    from ingest.source.layout import OwnColumn
    from ingest.source.spec import SourceSpec
    from shards.dataset.columns import Kind


def own_columns(
    columns: Sequence[str], *, allow: Sequence[str], types: Sequence[str], spec: SourceSpec, listed: bool
) -> Mapping[str, OwnColumn]:
    """The columns that `--column`, `--allow` and `--type` name: new name → what of the list it is.

    Args:
        columns: Words of `--column`.
        allow: Words of `--allow`.
        types: Words of `--type`.
        spec: The source.
        listed: Whether a list is given beside the raw data.

    Raises:
        ConfigError: The source is no list, a word is none of these, or it names a column that is not taken.
    """
    given = {"--column": columns, "--allow": allow, "--type": types}
    flag = next((flag for flag, words in given.items() if words), "")
    if not flag:
        return {}
    from ingest.source.layout import OwnColumn
    from shards.dataset.columns import check_name
    from shards.errors import ConfigError

    is_list = spec.layout.reader == "list"
    if not (is_list or listed):
        raise ConfigError(
            f"{flag} is about columns of a list: of --only-listed, or of RAW with --reader list",
            hint=f"{_IN_YAML[flag]}; `biovfm columns add` adds columns later",
        )
    headers = read_columns(columns)
    for name, header in headers.items():
        check_name(name, header)
    kinds = read_types(types)
    taken = {*headers, *headers.values()}
    words = _words_of_lists() if is_list else set()
    for flag, names in (("--allow", [name for name in allow if name not in words]), ("--type", kinds)):
        if strange := next((name for name in names if name not in taken), None):
            raise ConfigError(f"{flag} {strange}: no such column is taken", hint="name it with --column, too")
    return {
        name: OwnColumn(
            header=header,
            type=kinds.get(name, kinds.get(header)),
            allow=name in allow or header in allow,
        )
        for name, header in headers.items()
    }


_IN_YAML: Final[Mapping[str, str]] = {
    "--column": "name those of the source's tables in its YAML, under `columns`",
    "--allow": "in the YAML of the source, `allow: true` stands beside the `header` of a column, and `allow: [HEADER]` "
    "beside `licence`, `anatomy` and `label`",
    "--type": "in the YAML of the source, `type` stands beside the `header` of a column",
}


def _words_of_lists() -> set[str]:
    """The columns of a list whose words are stored."""
    from ingest.columns.stated_words import USES
    from ingest.raw.list_file import STATED_COLUMNS

    return {header for use in USES for header in STATED_COLUMNS[use]}


def with_columns(spec: SourceSpec, own: Mapping[str, OwnColumn], *, allow: Sequence[str]) -> SourceSpec:
    """A source with the columns of the list that it is, and the words of it that are allowed.

    Args:
        spec: The source.
        own: Columns to have beside the index.
        allow: Words of `--allow`.
    """
    words = tuple(name for name in allow if name in _words_of_lists())
    if not own and not words:
        return spec
    layout = spec.layout
    wanted = {"columns": {**layout.columns, **own}, "allow": (*layout.allow, *words)}
    return spec.model_copy(update={"layout": layout.model_copy(update=wanted)})


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
