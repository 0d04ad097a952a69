"""A list of raw paths and frames, however it was saved."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.source.data_list import load_list
from shards.errors import ConfigError

ROWS = "source\traw_path\traw_frame\ns\ta.nii\tz0001\ns\ta.nii\tz0002\nt\tb.png\t\n\tzip://眼.png::x.zip\t\n"
WANTED = {"a.nii": {"z0001", "z0002"}, "zip://眼.png::x.zip": {""}}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("list.tsv", ROWS.encode()),
        ("list.tsv", ROWS.encode("utf-8-sig")),
        ("list.tsv", ROWS.replace("\n", "\r\n").encode("utf-16")),
        ("list.csv", ROWS.replace("\t", ",").encode()),
        ("list.csv", ROWS.replace("\t", ";").encode()),
        ("list.txt", ROWS.encode()),
    ],
)
def test_lists_are_read_as_they_are_saved(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert {path: set(frames) for path, frames in load_list(tmp_path / name, "s").items()} == WANTED


def test_a_list_may_be_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"raw_path": ["a.nii"], "raw_frame": ["z0001"]}), tmp_path / "list.parquet")
    assert load_list(tmp_path / "list.parquet", "s") == {"a.nii": {"z0001"}}


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "lists nothing"), (b"path\na\n", "no column raw_path"), (b"source\traw_path\nt\ta\n", "lists nothing of")],
)
def test_what_is_no_such_list_is_said(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "list.tsv").write_bytes(data)
    with pytest.raises(ConfigError, match=words):
        load_list(tmp_path / "list.tsv", "s")
    with pytest.raises(ConfigError, match="cannot read"):
        load_list(tmp_path / "gone.tsv", "s")


@given(st.binary(max_size=200), st.sampled_from([b"raw_path\traw_frame\n", "raw_path\n".encode("utf-16"), b""]))
def test_any_bytes_are_a_list_or_an_error_in_words(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, head: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.tsv"
    path.write_bytes(head + data)
    try:
        found = load_list(path, "s")
    except ConfigError:
        return
    assert found
