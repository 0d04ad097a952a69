"""Rows of the tables that sources ship, in all their formats."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.raw.table_rows import NAME_COLUMN, table_rows


def rows(text: str | bytes, name: str, **more: object) -> list[dict[str, object]]:
    data = text.encode() if isinstance(text, str) else text
    return [dict(row) for row in table_rows(io.BytesIO(data), name, **more)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("id,who\na,1\nb,2\n", "t.csv"),
        ("\ufeffid,who\r\na,1\r\nb,2\r\n", "T.CSV"),
        ("id;who\na;1\nb;2\n", "t.csv"),
        ("id\twho\na\t1\nb\t2\n", "t.tsv"),
        ('"id","who"\n"a","1"\n"b","2"\n', "t.csv"),
        ('[{"id":"a","who":"1"},{"id":"b","who":"2"}]', "t.json"),
        ('{"id":"a","who":"1"}\n\n{"id":"b","who":"2"}\n', "t.jsonl"),
    ],
)
def test_every_format_gives_the_same_rows(text: str, name: str) -> None:
    found = [{key: value for key, value in row.items() if not key.startswith("@")} for row in rows(text, name)]
    assert found == [{"id": "a", "who": "1"}, {"id": "b", "who": "2"}]


def test_parquet() -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table({"id": ["a"], "who": [1]}), stream)
    assert rows(stream.getvalue(), "t.parquet") == [{"id": "a", "who": 1}]


def test_a_name_a_line() -> None:
    assert rows("a.png\r\n\nb.png", "train.txt", plain=True) == [{NAME_COLUMN: "a.png"}, {NAME_COLUMN: "b.png"}]


def test_records_deep_inside_json_keep_the_names_on_their_way() -> None:
    cases = {"case-1": {"Samples": [{"p": ["x"]}, {"p": ["y"]}]}, "case-2": {"Samples": []}, "case-3": {}}
    found = rows(json.dumps(cases), "t.json", records="*.Samples.*")
    assert found == [{"p": ["x"], "@1": "case-1", "@2": "0"}, {"p": ["y"], "@1": "case-1", "@2": "1"}]


def test_lists_of_names_inside_json() -> None:
    found = rows('{"training": ["a", "b"], "test": ["c"]}', "split.json", records="training.*")
    assert [row[NAME_COLUMN] for row in found] == ["a", "b"]


@given(st.binary(max_size=300), st.sampled_from(["a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet"]))
def test_bytes_that_are_no_table_are_a_value_error(data: bytes, name: str) -> None:
    try:
        list(table_rows(io.BytesIO(data), name))
    except (ValueError, OSError):
        return
