"""Strategies of damaged input for property tests: bytes and YAML documents that were sound before."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import yaml
from hypothesis import strategies as st

ODD_NUMBERS: Final = (
    *("", "0", "-1", "1", "3", "0.5", "nan", "inf", "-inf", "1e400", "1e300", "1e-320", "9" * 30, "9" * 4500),
    *("-2147483649", "x", "1,2", "1 2", "0x10", "1_0"),
)
"""How headers and hands spell numbers that a parser does not expect."""

ODD_YAML: Final = (
    *("", "[", "a: b: c", "2020-99-99", "a: 2020-99-99", "a: " + "9" * 5000, "? [a]\n: b", "? {a: b}\n: c", "1: 2"),
    *("a: &a [*a]", "&a {a: *a}", "a: !!int ''", "a: !!timestamp x", "a: !!bool x", "!!python/object:os.system x"),
    *("a: !!float ''", "a: !!binary ü", "\0", "%YAML 9.9\n---\na: b", "null: 1", "<<: 3", "[" * 500, "{a: " * 500),
)
"""Documents on which YAML parsers stumble in many ways."""

Failure = TypeVar("Failure", bound=Exception)
Edit = tuple[int, int, bytes]


def error_of(kind: type[Failure], call: Callable[[], object]) -> Failure | None:
    """The error of this kind that a call raises, or None where it gives a result; any other error goes through."""
    try:
        call()
    except kind as error:
        return error
    return None


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with a few places replaced, widened or cut out."""
    edit = st.tuples(st.integers(0, len(data)), st.integers(0, 12), st.binary(max_size=12))

    def apply(edits: Sequence[Edit]) -> bytes:
        changed = data
        for at, length, new in edits:
            changed = changed[:at] + new + changed[at + length :]
        return changed

    return st.lists(edit, min_size=1, max_size=4).map(apply)


def odd_values() -> st.SearchStrategy[Any]:
    """What may stand for a value in YAML, mostly of the wrong type."""
    words = st.sampled_from(["../x", "a\0b", "a{99999999999}", "(", "http://[", "1e999", "http://a/b"])
    scalar = st.one_of(
        st.none(), st.booleans(), st.integers(), st.integers(0, 10**400), st.floats(), words, st.text(max_size=6)
    )
    key = st.one_of(st.text(max_size=4), st.integers(), st.none())
    return st.one_of(scalar, st.lists(scalar, max_size=3), st.dictionaries(key, scalar, max_size=2))


def mutated_yaml(document: dict[str, Any]) -> st.SearchStrategy[str]:
    """YAML text of a document of which one to three values are replaced, removed or joined by an unknown key."""
    places = list(_places(document, ()))
    change = st.tuples(st.sampled_from(places), st.sampled_from(["replace", "remove", "add"]), odd_values())

    def apply(changes: Sequence[tuple[tuple[Any, ...], str, Any]]) -> str:
        changed = copy.deepcopy(document)
        for place, what, value in changes:
            _change(changed, place, what, value)
        return yaml.safe_dump(changed, sort_keys=False)

    return st.lists(change, min_size=1, max_size=3).map(apply)


def _places(value: Any, above: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*above, key)
        yield from _places(inner, (*above, key))


def _change(document: Any, place: tuple[Any, ...], what: str, value: Any) -> None:
    *parents, last = place
    for key in parents:
        if not _has(document, key):
            return
        document = document[key]
    if not _has(document, last):
        return
    if what == "replace":
        document[last] = value
    elif what == "remove":
        del document[last]
    elif isinstance(document, dict):
        document["unknown"] = value


def _has(document: Any, key: Any) -> bool:
    return key in document if isinstance(document, dict) else isinstance(document, list) and key in range(len(document))
