"""Every file below a raw URL, those in archives too."""

from __future__ import annotations

from pathlib import Path

from ingest.raw.archive import top
from ingest.raw.archive_listing import archive_items
from ingest.raw.items import RawItem
from ingest.raw.listing import all_items, members
from ingest.raw.root import RawRoot
from ingest.raw.split_archive import Found
from ingest.settings import LimitSettings
from tests.ingest.material import tar_of, write_folder, zip_of

LIMITS = LimitSettings()


def test_files_and_members_are_listed_in_order_of_their_paths(tmp_path: Path) -> None:
    write_folder(
        tmp_path,
        {
            "c.tgz": tar_of({"z.png": b"1", "a.png": b"22"}, "w:gz"),
            "b.zip": zip_of({"z.png": b"1", "._z.png": b"fork"}),
            "a/x.png": b"333",
            "a/Thumbs.db": b"1",
            "d.ppm.gz": b"\x1f\x8b",
        },
    )
    (tmp_path / "e.png").symlink_to("nowhere")
    found = [(item.inner_path, item.kind, item.size, item.detail) for item in all_items(RawRoot(str(tmp_path)), LIMITS)]
    assert found == [
        ("a/Thumbs.db", "ignored", 0, "Thumbs.db"),
        ("a/x.png", "file", 3, ""),
        ("b.zip/._z.png", "zip", 4, ""),
        ("b.zip/z.png", "zip", 1, ""),
        ("c.tgz/z.png", "stream", 1, ""),
        ("c.tgz/a.png", "stream", 2, ""),
        ("d.ppm.gz", "gzip", 2, ""),
        ("e.png", "reject", 0, "unsupported:a link that leads nowhere"),
    ]


def test_members_share_what_their_archive_says(tmp_path: Path) -> None:
    write_folder(tmp_path, {"x.zip": zip_of({"b.png": b"1", "a.png": b"22"})})
    container = top(RawRoot(str(tmp_path)).stored("x.zip"), "zip")
    items = list(archive_items(container, RawItem(path="x.zip", part=3), LIMITS))
    assert [(item.member, item.size, item.part, item.offset) for item in items] == [
        ("a.png", 2, 3, 1),
        ("b.png", 1, 3, 0),
    ]


def test_slow_archives_are_left_closed_where_that_is_asked(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.tgz": tar_of({"x.png": b"1"}, "w:gz"), "b.zip": zip_of({"y.png": b"1"})})
    items = all_items(RawRoot(str(tmp_path)), LIMITS, deep=False)
    assert [(item.inner_path, item.kind) for item in items] == [("a.tgz", "file"), ("b.zip/y.png", "zip")]


def test_an_archive_that_cannot_be_opened_is_one_item(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.zip": b"", "b.zip.002": b"12"})
    root = RawRoot(str(tmp_path))
    assert [item.detail for item in all_items(root, LIMITS)] == ["empty_file", "unreadable_archive:part 1 is missing"]
    gone = next(members(root, Found(path="gone.zip", size=5), LIMITS))
    assert (gone.kind, gone.detail) == ("reject", "unreadable_archive:FileNotFoundError")
