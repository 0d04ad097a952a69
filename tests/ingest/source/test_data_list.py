"""A list of raw paths and frames, however it was saved."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.job.run import run_job
from ingest.source.data_list import check_matches, load_list
from shards.dataset import Dataset
from shards.errors import ConfigError, SourceError
from shards.subset import Lock, Selection, create
from shards.subset.data_list import export_list
from tests.ingest.material import encoded, ingest, photo, public_spec, write_folder

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


def test_a_list_of_an_earlier_release_has_the_frame_behind_a_hash_sign(tmp_path: Path) -> None:
    path = tmp_path / "list.tsv"
    path.write_text("file\traw_path\nx-1.jpg\tp/scan.nii.gz#z0003\nx-2.jpg\tp/scan.nii.gz#z0004\nx-3.jpg\tflat/a.png\n")
    found = load_list(path, "x")
    assert found["p/scan.nii.gz"] == {"z0003", "z0004"}
    assert found["flat/a.png"] == {""}


def test_a_list_that_matches_little_is_refused() -> None:
    listed = {f"{n}.png": frozenset({""}) for n in range(10)}
    check_matches(listed, [f"{n}.png" for n in range(5)], source="x")
    with pytest.raises(SourceError, match="names 10 raw files of x, and 4 of them are here"):
        check_matches(listed, [f"{n}.png" for n in range(4)], source="x")


@pytest.mark.slow
def test_an_exported_list_makes_the_same_samples_again(tmp_path: Path) -> None:
    spec = public_spec("eye")
    files = {f'odd "name"\t{n}.png': encoded(photo(n)) for n in range(6)}
    raw = write_folder(tmp_path / "raw", files)
    ingest(raw, tmp_path / "one", spec)
    create(Dataset.open(str(tmp_path / "one")), Selection(fraction=0.5)).write(tmp_path / "half.lock.yaml")
    text = "".join(export_list(tmp_path / "half.lock.yaml", format_="tsv"))
    (tmp_path / "list.tsv").write_text(text)
    run_job(spec, str(raw), str(tmp_path / "two"), workers=0, listed=load_list(tmp_path / "list.tsv", "eye"))
    pinned = create(Dataset.open(str(tmp_path / "two")), Selection())
    assert pinned.num_samples == 3
    assert pinned.digest == Lock.read(tmp_path / "half.lock.yaml").digest
