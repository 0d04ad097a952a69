"""Raw paths and files in memory."""

from __future__ import annotations

import os

import pytest

from ingest.raw.items import RawFile, RawItem, RejectError
from ingest.raw.names import printable


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
