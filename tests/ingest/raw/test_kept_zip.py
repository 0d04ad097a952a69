"""A large zip stays open from one unit to the next, as long as it is the same file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from ingest.raw.archive import top
from ingest.raw.archive_reading import open_items
from ingest.raw.items import RawItem
from ingest.raw.kept_zip import _idle, opened_zip
from ingest.raw.root import RawRoot
from ingest.settings import LimitSettings
from tests.ingest.material import write_folder, zip_of


def opened(root: RawRoot, name: str) -> zipfile.ZipFile:
    container = top(root.stored(name), "zip")
    with opened_zip(container) as (stream, archive):
        assert not stream.closed
        archive.testzip()
        return archive


@pytest.fixture
def root(tmp_path: Path) -> RawRoot:
    many = {f"{number}.txt": b"%d" % number for number in range(1200)}
    write_folder(tmp_path, {"many.zip": zip_of(many), "few.zip": zip_of({"a.txt": b"a"}), "bad.zip": b"PK"})
    return RawRoot(str(tmp_path))


def test_a_large_zip_is_kept_and_a_small_one_closed(root: RawRoot) -> None:
    first = opened(root, "many.zip")
    assert first.fp is not None
    assert opened(root, "many.zip") is first
    assert opened(root, "few.zip").fp is None
    assert first.fp is None
    with pytest.raises(zipfile.BadZipFile):
        opened(root, "bad.zip")


def test_a_changed_file_is_read_again(root: RawRoot, tmp_path: Path) -> None:
    first = opened(root, "many.zip")
    write_folder(tmp_path, {"many.zip": zip_of({f"{number}.TXT": b"%d" % number for number in range(1200)})})
    second = opened(root, "many.zip")
    assert second is not first
    assert second.namelist()[0] == "0.TXT"


def test_two_readers_have_an_archive_each(root: RawRoot) -> None:
    container = top(root.stored("many.zip"), "zip")
    with opened_zip(container) as (_, one), opened_zip(container) as (_, two):
        assert one is not two
        assert one.read("7.txt") == two.read("7.txt") == b"7"
    opened(root, "few.zip")


def test_an_error_while_reading_closes_it(root: RawRoot) -> None:
    container = top(root.stored("many.zip"), "zip")
    kept: list[zipfile.ZipFile] = []
    with pytest.raises(KeyError), opened_zip(container) as (_, archive):
        archive.read(kept.append(archive) or "gone")  # type: ignore[func-returns-value]
    assert kept[0].fp is None
    assert opened(root, "many.zip") is not kept[0]
    opened(root, "few.zip")


def test_reading_members_unit_by_unit_keeps_it(root: RawRoot) -> None:
    items = [RawItem(path="many.zip", member=f"{n}.txt", kind="zip", size=len(str(n)), offset=n) for n in range(1200)]
    for start in (0, 400, 800):
        found = [raw.read() for _, raw in open_items(root, items[start : start + 400], LimitSettings())]
        assert found == [b"%d" % number for number in range(start, start + 400)]
        assert len(_idle) == 1
    opened(root, "few.zip")
    assert not _idle
