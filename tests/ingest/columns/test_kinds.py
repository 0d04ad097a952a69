"""Text says its type by itself, as hospitals write numbers, truths and dates."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.columns.kinds import KINDS, kind_of_words, typed
from shards.dataset.columns import Kind, arrow_type
from shards.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "kind", "values"),
    [
        (["63", " 58 ", "n/a", ""], "int", [63, 58, None, None]),
        (["63,5", "58", "-"], "float", [63.5, 58.0, None]),
        (["1e-3", ".5"], "float", [0.001, 0.5]),
        (["ja", "Nein", "k.A."], "bool", [True, False, None]),
        (["0", "1"], "int", [0, 1]),
        (["007", "011"], "category", ["007", "011"]),
        (["1.234,5", "7"], "category", ["1.234,5", "7"]),
        (["4.3.2021", "17.12.2021"], "date", [date(2021, 3, 4), date(2021, 12, 17)]),
        (["12/31/2021", "01/02/2021"], "date", [date(2021, 12, 31), date(2021, 1, 2)]),
        (["01/02/2021"], "category", ["01/02/2021"]),
        (["2021-03-04T10:00:00+02:00"], "timestamp", [datetime(2021, 3, 4, 8, tzinfo=UTC)]),
        (["w", "m"], "category", ["w", "m"]),
        (["", "NA"], "category", [None, None]),
    ],
)
def test_types_of_text(words: list[str], kind: Kind, values: list[Any]) -> None:
    found, found_kind = typed("x", pa.chunked_array([words]))
    assert found_kind == kind
    assert found.type == arrow_type(kind)
    assert found.to_pylist() == values


def test_a_type_that_is_asked_for_is_taken_or_refused() -> None:
    assert typed("x", pa.chunked_array([["1", "2"]]), "category")[0].to_pylist() == ["1", "2"]
    assert typed("x", pa.chunked_array([["1", "0"]]), "bool")[0].to_pylist() == [True, False]
    with pytest.raises(ConfigError, match="x holds values that are no int"):
        typed("x", pa.chunked_array([["1", "old"]]), "int")
    with pytest.raises(ConfigError, match="write dates as 2021-03-04"):
        typed("x", pa.chunked_array([["01/02/2021"]]), "date")


def test_types_of_parquet() -> None:
    assert typed("x", pa.chunked_array([pa.array([1, None], pa.int16())]))[1] == "int"
    assert typed("x", pa.chunked_array([pa.array([1.5, float("nan")])]))[0].to_pylist() == [1.5, None]
    assert typed("x", pa.chunked_array([pa.array(["a", "b"]).dictionary_encode()]))[1] == "category"
    with pytest.raises(ConfigError, match="of type list"):
        typed("x", pa.chunked_array([pa.array([[1]])]))


@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_text_has_a_type(words: list[str]) -> None:
    found, kind = typed("x", pa.chunked_array([pa.array(words, pa.string())]))
    assert kind in KINDS
    assert len(found) == len(words)
    assert kind_of_words([]) == "category"
