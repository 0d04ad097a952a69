"""Is a `--where` text one deterministic expression? Read off DuckDB's own syntax tree, before anything is evaluated."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from shards.errors import ConfigError
from shards.subset.chosen import run

if TYPE_CHECKING:
    import duckdb

_HINT = '--where takes one DuckDB expression over the columns of the index and your own, e.g. "width >= 256"'
_AGGREGATES = frozenset(
    {"avg", "bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "count", "count_if", "count_star", "countif", "max"}
    | {"mean", "median", "min", "quantile", "quantile_cont", "quantile_disc", "sum"}
)
"""Aggregates of a subquery whose value does not depend on the order of the rows."""
_GENERATORS = frozenset({"array_resize", "generate_series", "generate_subscripts", "list_resize", "range"}) | {
    "lpad",
    "repeat",
    "rpad",
}
"""Functions that make a text or list of any length out of a number, which no limit on memory stops."""
_SESSION = frozenset({"ago", "localtime", "localtimestamp", "rowid", "session_user", "user", "version"})
_SESSION_PREFIXES = ("current_", "has_", "inet_", "pg_")


def check_expression(database: duckdb.DuckDBPyConnection, where: str) -> None:
    """Refuse a predicate that is no single expression or that may give another answer on another day.

    It stands after the tags in `WHERE <tags> AND (<where>)`; a text that closes the bracket or adds a clause would
    reach around them. A subquery is allowed over `samples`, the whole table of the pinned version.

    Args:
        database: A connection on which the table `samples` is registered.
        where: The text.

    Raises:
        ConfigError: Says what is wrong with it.
    """
    node = _parse(database, where)
    columns = {str(row[0]) for row in run(database, "DESCRIBE samples")}
    stable = _stabilities(database)
    for part in _walk(node["where_clause"]):
        if fault := _fault(part, columns, stable):
            raise ConfigError(f"the predicate {_short(where)} {fault}", hint=_HINT)


def _parse(database: duckdb.DuckDBPyConnection, where: str) -> Mapping[str, Any]:
    text = f"SELECT 1 FROM samples WHERE {where}\n"  # noqa: S608 - it is parsed, not run
    (document,) = database.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchall()[0]
    tree = json.loads(document)
    if tree.get("error"):
        reason = " ".join(str(tree.get("error_message", "")).split())
        raise ConfigError(f"the predicate {_short(where)} does not work: {reason}", hint=_HINT)
    statements = tree["statements"]
    node: Mapping[str, Any] = statements[0]["node"]
    clauses = ("modifiers", "group_expressions", "group_sets", "having", "sample", "qualify")
    plain = len(statements) == 1 and node.get("type") == "SELECT_NODE" and not any(node.get(name) for name in clauses)
    if not plain or node.get("where_clause") is None:
        raise ConfigError(f"the predicate {_short(where)} is more than one expression", hint=_HINT)
    return node


def _stabilities(database: duckdb.DuckDBPyConnection) -> dict[str, bool]:
    """Function name → whether it gives the same value for the same rows, whatever their order, day and session."""
    sql = """SELECT function_name, bool_and(coalesce(stability, 'CONSISTENT') = 'CONSISTENT'),
            bool_or(function_type = 'aggregate')
        FROM duckdb_functions() WHERE function_type IN ('scalar', 'aggregate', 'macro') GROUP BY 1"""
    return {
        name: stable and not (aggregates and name not in _AGGREGATES) and not _of_session(name)
        for name, stable, aggregates in database.execute(sql).fetchall()
    }


def _of_session(name: str) -> bool:
    return name in _SESSION or name.startswith(_SESSION_PREFIXES)


def _walk(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, Mapping):
        yield node
        for value in node.values():
            yield from _walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value)


def _fault(node: Mapping[str, Any], columns: set[str], stable: Mapping[str, bool]) -> str:
    """What is wrong with one node of the tree; empty where nothing is."""
    kind = str(node.get("class") or node.get("type") or "")
    if kind in {"WINDOW", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "PARAMETER"} or node.get("sample"):
        return "takes rows by their position (a window, LIMIT or SAMPLE) or has a parameter; it must be deterministic"
    if kind in {"TABLE_FUNCTION", "SHOW_REF", "PIVOT", "EXPRESSION_LIST"}:
        return "reads another table than samples"
    if kind == "BASE_TABLE" and (node.get("table_name"), node.get("schema_name")) != ("samples", ""):
        return f"reads the table {node.get('table_name')}; there is samples alone"
    name = ""
    if kind == "FUNCTION":
        name = str(node.get("function_name", "")).lower()
    elif kind == "COLUMN_REF" and len(node["column_names"]) == 1:  # CURRENT_DATE and its kind are written like columns
        name = node["column_names"][0].lower()
        name = "" if name in columns else name
    if name in _GENERATORS:
        return f"asks for {name}, which makes a text or a list of any length"
    if name and (_of_session(name) or not stable.get(name, True)):
        return f"asks for {name}, which is another value each time, in each session or for each order of the rows"
    return ""


def _short(where: str) -> str:
    text = " ".join(where.split())
    return repr(text if len(text) <= 100 else text[:97] + "...")
