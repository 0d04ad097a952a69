"""Tables as hospitals' programs write them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.columns.reading import read_given
from shards.errors import ConfigError


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [";", ",", "\t"])
def test_encodings_and_separators(tmp_path: Path, encoding: str, separator: str) -> None:
    path = tmp_path / "t.csv"
    text = separator.join(("Größe", "Ort")) + "\r\n" + separator.join(("3", '"Köln; ""alt"",\nNord"')) + "\r\n\r\n"
    path.write_bytes(text.encode(encoding))
    given = read_given(path)
    assert {name: values.to_pylist() for name, values in given.columns.items()} == {
        "Größe": ["3"],
        "Ort": ['Köln; "alt",\nNord'],
    }
    assert given.num_rows == 1


def test_the_separator_that_a_spreadsheet_states_and_a_named_encoding(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("sep=;\na,b;płeć\n1;żeńska\n".encode("cp1250"))
    assert read_given(path, encoding="cp1250").columns["płeć"].to_pylist() == ["żeńska"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a;a\n1;2\n", "two columns a"),
        ("a;\n1;2\n", "a column without a name"),
        ("a;b\n1;2;3\n", "row 1 of .* has 3 cells"),
        ("a;b\n", "has no rows"),
    ],
)
def test_a_table_that_cannot_be_read_one_way_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_given(path)


def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path) -> None:
    for name in ("t.xlsx", "t.parquet", "missing.csv"):
        path = tmp_path / name
        if name != "missing.csv":
            path.write_bytes(b"PK\3\4")
        with pytest.raises(ConfigError):
            read_given(path)
    path = tmp_path / "t.csv"
    path.write_text("a\n1\n")
    with pytest.raises(ConfigError, match="no such encoding"):
        read_given(path, encoding="klingon")


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ('group;"age\n(years)";sex\nP1;63;w\n', ["group", "age (years)", "sex"]),
        ('group;"age, in years, at scan"\nP1;63\n', ["group", "age, in years, at scan"]),
        ('"age, in years, at scan";group\nP1;63\n', ["age, in years, at scan", "group"]),
        ('group;height 5"\nP1;63\n', ["group", 'height 5"']),
        ("\n \ngroup;age\nP1;63\n", ["group", "age"]),
        ("sep=;\ngroup;age\nP1;63\n", ["group", "age"]),
        ("group;age;;\nP1;63;;\n", ["group", "age"]),
        (",group,age\n0,P1,63\n1,P2,50\n", ["group", "age"]),
        ("\tgroup\tage\n1\tP1\t63\n", ["group", "age"]),
    ],
)
def test_headers_as_spreadsheets_and_data_frames_write_them(tmp_path: Path, text: str, headers: list[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, newline="")
    assert list(read_given(path).columns) == headers


@pytest.mark.parametrize("text", [",group\nx,P1\n", ",group\n0,P1\n0,P2\n", "group,,age\nP1,1,63\n"])
def test_a_column_without_a_name_that_holds_something_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match="without a name"):
        read_given(path)


def test_the_row_names_of_a_data_frame_are_no_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"group": ["P1"], "__index_level_0__": [5]}), tmp_path / "t.parquet")
    assert list(read_given(tmp_path / "t.parquet").columns) == ["group"]
