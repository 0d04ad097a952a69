"""Text says its type by itself, as hospitals write numbers, truths and dates."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.columns.kinds import KINDS, id_text, kind_of_words, typed, typed_as
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


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["1,234", "2,500"], "category"),
        (["1,234", "0,5"], "float"),
        (["-1,234"], "category"),
        (["12345678901234567", "1"], "int"),
        (["99999999999999999999", "1"], "category"),
        (["063Y", "7Y"], "int"),
        (["063Y", "006M"], "category"),
    ],
)
def test_numbers_that_may_mean_something_else_stay_as_they_are(words: list[str], kind: str) -> None:
    assert kind_of_words(words) == kind


def test_ages_as_dicom_writes_them() -> None:
    assert typed("age", pa.chunked_array([["063Y", "7Y", ""]]))[0].to_pylist() == [63, 7, None]


def test_the_type_of_the_column_that_is_there_is_taken_where_it_fits() -> None:
    def taken(values: list[str], wanted: Kind | None, there: Kind | None) -> tuple[list[object], Kind]:
        array, kind = typed_as("x", pa.chunked_array([values]), wanted, there, hint="h")
        return array.to_pylist(), kind

    assert taken(["1", "2"], None, "float") == ([1.0, 2.0], "float")
    assert taken(["60.0"], "float", "int") == ([60], "int")
    assert taken(["1"], None, "category") == (["1"], "category")
    with pytest.raises(ConfigError, match=r"x is float, the column that is there int.*h"):
        taken(["60.5"], "float", "int")


def test_identifiers_of_parquet_are_texts() -> None:
    assert id_text("x", pa.chunked_array([[12345678.0, None]])).to_pylist() == ["12345678", None]
    assert id_text("x", pa.chunked_array([pa.array(["a", "b"]).dictionary_encode()])).to_pylist() == ["a", "b"]
    assert id_text("x", pa.chunked_array([[1.5]])).to_pylist() == ["1.5"]
    with pytest.raises(ConfigError, match="no identifiers"):
        id_text("x", pa.chunked_array([[[1], [2]]]))


def test_texts_and_times_of_other_data_frames() -> None:
    assert typed("x", pa.chunked_array([pa.array(["1", "2"], pa.string_view())]))[0].to_pylist() == [1, 2]
    times = pa.chunked_array([pa.array([1_500, 2_500], pa.timestamp("ns"))])
    assert typed("x", times)[0].cast(pa.int64()).to_pylist() == [1, 2]
