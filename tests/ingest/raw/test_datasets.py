"""A dataset among raw files is left alone, wherever these lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ingest.raw.datasets import DATASET, files_without_datasets
from ingest.raw.listing import all_items
from ingest.raw.root import RawRoot
from ingest.settings import LimitSettings
from shards.dataset.dataset import Dataset
from shards.errors import UnavailableError
from shards.store import open_store

OURS = b'{"created_by": "biovfm", "format_version": 1}'
FILES = {
    "a.png": b"1",
    "data/columns/x.parquet": b"1",
    "data/dataset.json": OURS,
    "data/shards/s/ct/1.tar": b"1",
    "database/1.png": b"1",
    "nnunet/dataset.json": b'{"labels": {"0": "background"}}',
    "nnunet/1.png": b"1",
    "odd/dataset.json": b"[" * 10_000,
    "z/deep/data/dataset.json": OURS,
    "z/deep/data/1.png": b"1",
}
LEFT = ["a.png", "data", "database/1.png", "nnunet/1.png", "nnunet/dataset.json", "odd/dataset.json", "z/deep/data"]


def written(url: str, files: Mapping[str, bytes] = FILES) -> str:
    for path, data in files.items():
        open_store(url).put_if_absent(path, data)
    return url


def check(url: str) -> None:
    found = list(files_without_datasets(RawRoot(url)))
    assert [file.path for file in found] == LEFT
    assert [file.path for file in found if file.ignored == DATASET] == ["data", "z/deep/data"]


def test_in_a_folder(tmp_path: Path) -> None:
    check(written(str(tmp_path)))
    kinds = {item.path: item.kind for item in all_items(RawRoot(str(tmp_path)), LimitSettings())}
    assert list(kinds) == LEFT
    assert kinds["data"] == "ignored"


def test_by_any_driver() -> None:
    import fsspec

    fsspec.filesystem("memory").pipe({f"/with-dataset/{path}": data for path, data in FILES.items()})
    check("memory://with-dataset")


@pytest.mark.s3
def test_on_object_storage(bucket: str) -> None:
    check(written(f"{bucket}/raw"))


def test_what_makes_a_dataset_makes_it_known(tmp_path: Path) -> None:
    Dataset.create(str(tmp_path / "raw" / "d"))
    assert [file.ignored for file in files_without_datasets(RawRoot(str(tmp_path / "raw")))] == [DATASET]


def test_the_folder_that_was_asked_for_is_taken_as_it_is(tmp_path: Path) -> None:
    url = written(str(tmp_path), {"dataset.json": OURS, "shards/1.tar": b"1"})
    assert [file.path for file in files_without_datasets(RawRoot(url))] == ["dataset.json", "shards/1.tar"]


def test_what_cannot_be_read_now_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = RawRoot(written(str(tmp_path)))

    def away(_path: str) -> None:
        raise UnavailableError("HTTP 503", hint="later")

    monkeypatch.setattr(root, "open", away)
    with pytest.raises(UnavailableError, match="503"):
        files_without_datasets(root)
