"""Raw paths, files in memory, and roots."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingest.raw.items import RawFile, RawItem, RawRoot, RejectError, open_regular, printable
from shards.errors import SourceError
from tests.ingest.material import write_folder


def test_raw_paths_are_fsspec_chains() -> None:
    inner = RawItem(path="o.tar.gz", member="i.zip", kind="stream")
    items = {
        "a/b.png": RawItem(path="a/b.png"),
        "zip://b.png::x.zip": RawItem(path="x.zip", member="b.png", kind="zip"),
        "tar://b.png::x.tgz": RawItem(path="x.tgz", member="b.png", kind="stream"),
        "libarchive://b.png::x.7z": RawItem(path="x.7z", member="b.png", kind="libarchive"),
        "xz://b.ppm::d/b.ppm.xz": RawItem(path="d/b.ppm.xz", member="b.ppm", kind="gzip"),
        "zip://b.png::tar://i.zip::o.tar.gz": RawItem(path="o.tar.gz", member="b.png", kind="zip", holder=inner),
    }
    assert {item.raw_path for item in items.values()} == set(items)
    assert [item.inner_path for item in items.values()] == [
        *("a/b.png", "x.zip/b.png", "x.tgz/b.png", "x.7z/b.png", "d/b.ppm.xz", "o.tar.gz/i.zip/b.png"),
    ]
    assert printable(os.fsdecode(b"a\xff.png")) == "a\\xff.png"


def test_a_file_in_memory_is_read_within_its_limit() -> None:
    raw = RawFile.of_bytes(b"12345", "d/A.PNG")
    assert (raw.name, raw.size, raw.head(2), raw.read()) == ("a.png", 5, b"12", b"12345")
    with pytest.raises(RejectError, match="over_budget"):
        RawFile(path="x", name="x", size=5, opener=raw.opener, most_bytes=4).read()


def test_a_root_is_a_folder_or_a_file(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": b"1", "d/b.png": b"22"})
    assert [(file.path, file.size) for file in RawRoot(str(tmp_path)).walk()] == [("a.png", 1), ("d/b.png", 2)]
    single = RawRoot(f"file://{tmp_path}/d/b.png")
    assert ([file.path for file in single.walk()], single.single) == (["b.png"], "b.png")
    assert [file.path for file in single.around().walk()] == ["b.png"]
    with single.open("b.png") as stream:
        assert stream.read() == b"22"
    with pytest.raises(SourceError, match="no raw data"):
        RawRoot(str(tmp_path / "gone"))


def test_a_remote_root_is_walked_the_same_way() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({"/raw-items/b.png": b"22", "/raw-items/a/c.png": b"333"})
    root = RawRoot("memory://raw-items")
    assert [(file.path, file.size) for file in root.walk()] == [("a/c.png", 3), ("b.png", 2)]
    assert root.size("b.png") == 2
    with root.open("a/c.png") as stream:
        assert stream.read() == b"333"


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("fifo", "zero", "."):
        with pytest.raises(OSError, match=r"no regular file|directory"):
            open_regular(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "gone")
