"""Members are read in place; hostile ones become items with a reason."""

from __future__ import annotations

import errno
import gzip
import io
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest

from ingest.job.list import list_raw
from ingest.raw.archive_reading import open_items
from ingest.raw.items import RejectError
from ingest.raw.listing import members
from ingest.raw.root import RawRoot
from ingest.raw.split_archive import Found
from ingest.settings import LimitSettings
from ingest.source.globs import glob_regex
from shards.errors import MachineError, UnavailableError
from tests.ingest.material import encoded, photo, public_spec, tar_of, write_folder, zip_of
from tests.ingest.raw.archives import PNG, SETTINGS, everything_inside, listed, outcome


def test_every_kind_of_archive_gives_the_same_bytes(tmp_path: Path) -> None:
    files = {"d/b.png": PNG, "a.png": PNG}
    write_folder(
        tmp_path,
        {
            "plain.png": PNG,
            "x.zip": zip_of(files),
            "y.tar": tar_of(files),
            "z.tar.gz": tar_of(files, "w:gz"),
            "w.tar.xz": tar_of(files, "w:xz"),
            "one.png.gz": gzip.compress(PNG),
        },
    )
    found = outcome(tmp_path)
    assert set(found.values()) == {"ok"}
    assert list(found) == [
        "gzip://one.png::one.png.gz",
        "plain.png",
        "tar://d/b.png::w.tar.xz",
        "tar://a.png::w.tar.xz",
        "zip://a.png::x.zip",
        "zip://d/b.png::x.zip",
        "tar://a.png::y.tar",
        "tar://d/b.png::y.tar",
        "tar://d/b.png::z.tar.gz",
        "tar://a.png::z.tar.gz",
    ]


def test_names_that_leave_the_archive_are_rejected(tmp_path: Path) -> None:
    names = ["../up.png", "/root.png", "a/../../up.png", "C:/win.png", "ok.png"]
    write_folder(tmp_path, {"x.zip": zip_of(dict.fromkeys(names, PNG)), "y.tar": tar_of(dict.fromkeys(names, PNG))})
    found = outcome(tmp_path)
    assert found.pop("zip://ok.png::x.zip") == "ok"
    assert found.pop("tar://ok.png::y.tar") == "ok"
    assert len(found) == 8
    assert set(found.values()) == {"path_traversal"}


def test_a_colon_in_a_name_is_no_drive(tmp_path: Path) -> None:
    names = ["12:30.png", "col:on.png", "sub/12:30.png", "Series 1: T2/a.png", "..a.png"]
    write_folder(tmp_path, {"x.zip": zip_of(dict.fromkeys(names, PNG)), "y.tar": tar_of(dict.fromkeys(names, PNG))})
    assert set(outcome(tmp_path).values()) == {"ok"}
    assert len(outcome(tmp_path)) == 10


def test_zip_bomb_is_rejected_by_its_header_and_gzip_bomb_while_it_grows(tmp_path: Path) -> None:
    zeros = b"\0" * (8 << 20)
    write_folder(tmp_path, {"x.zip": zip_of({"bomb.png": zeros, "ok.png": PNG}), "bomb.png.gz": gzip.compress(zeros)})
    assert outcome(tmp_path) == {
        "gzip://bomb.png::bomb.png.gz": "decompression_bomb",
        "zip://bomb.png::x.zip": "decompression_bomb",
        "zip://ok.png::x.zip": "ok",
    }


def test_broken_archives_are_one_item_and_keep_what_came_before(tmp_path: Path) -> None:
    whole = tar_of({"0.png": PNG} | {f"{i}.png": encoded(photo(i)) for i in range(1, 8)}, "w:gz")
    write_folder(tmp_path, {"bad.zip": b"PK\x03\x04 nonsense", "cut.tar.gz": whole[: len(whole) // 2]})
    found = outcome(tmp_path)
    assert found["bad.zip"] == "unreadable_archive"
    assert found["tar://0.png::cut.tar.gz"] == "ok"
    assert found["cut.tar.gz"] == "unreadable_archive"


def test_links_and_encrypted_members_are_rejected(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    locked = bytearray(zip_of({"a.png": PNG}))
    locked[6] |= 1
    locked[locked.find(b"PK\x01\x02") + 8] |= 1
    write_folder(tmp_path, {"l.tar": buffer.getvalue(), "e.zip": bytes(locked)})
    assert outcome(tmp_path) == {"zip://a.png::e.zip": "encrypted", "tar://link.png::l.tar": "link"}


def test_empty_file_and_vanished_file_are_reasons(tmp_path: Path) -> None:
    write_folder(tmp_path, {"empty.png": b"", "gone.png": PNG})
    items = listed(tmp_path)
    (tmp_path / "gone.png").unlink()
    reasons = []
    for _, raw in open_items(RawRoot(str(tmp_path)), items, LimitSettings()):
        with pytest.raises(RejectError) as caught:
            raw.read()
        reasons.append(caught.value.reason)
    assert reasons == ["empty_file", "unreadable"]


def test_listing_ignores_what_no_reader_knows_and_counts_it(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": PNG, "labels.csv": b"x", "x.zip": zip_of({"b.jpg": PNG, "readme.txt": b"x"})})
    found = list_raw(str(tmp_path), public_spec(), SETTINGS)
    assert [item.raw_path for item in found.items] == ["a.png", "zip://b.jpg::x.zip"]
    assert found.ignored == {"csv": 1, "txt": 1}


def test_listing_digest_changes_with_content_of_the_list_only(tmp_path: Path) -> None:
    raw_url = str(write_folder(tmp_path, {"a.png": PNG, "b.png": PNG}))
    first = list_raw(raw_url, public_spec(), SETTINGS).digest
    assert list_raw(raw_url, public_spec(), SETTINGS).digest == first
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    assert list_raw(raw_url, public_spec(), SETTINGS).digest != first


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("*.png", "a/b/c.PNG", True),
        ("images/*.png", "images/x.png", True),
        ("images/*.png", "images/y/x.png", False),
        ("images/**/*.png", "images/y/z/x.png", True),
        ("images/**/*.png", "images/x.png", True),
        ("**/left_?.png", "q/left_1.png", True),
        ("**/left_?.png", "q/left_12.png", False),
    ],
)
def test_globs(glob: str, path: str, *, matches: bool) -> None:
    assert bool(glob_regex(glob).fullmatch(path)) == matches


def test_the_head_of_a_member_is_read_without_the_rest(tmp_path: Path) -> None:
    write_folder(tmp_path, everything_inside({"a.png": PNG, "i.zip": zip_of({"b.png": PNG})}) | {"c.png": PNG})
    for _, raw in open_items(RawRoot(str(tmp_path)), listed(tmp_path), LimitSettings()):
        assert raw.head(40) == PNG[:40]
        assert raw.head(1 << 20) == PNG
        assert raw.read() == PNG


@pytest.mark.process
def test_an_archive_is_what_its_first_bytes_say(tmp_path: Path) -> None:
    files = {"a.png": PNG}
    write_folder(
        tmp_path,
        {
            "plain.tar.gz": tar_of(files),
            "packed.tar": tar_of(files, "w:gz"),
            "zip.tar": zip_of(files),
            "zip.rar": zip_of(files),
            "page.zip": b"<!DOCTYPE html><html>Quota exceeded</html>",
            "lfs.tar.gz": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            "cut.zip": zip_of(files)[:-40],
            "none.zip": b"",
        },
    )
    assert set(outcome(tmp_path).items()) == {
        ("tar://a.png::plain.tar.gz", "ok"),
        ("tar://a.png::packed.tar", "ok"),
        ("tar://a.png::zip.tar", "ok"),
        ("libarchive://a.png::zip.rar", "ok"),
        ("page.zip", "unreadable_archive"),
        ("lfs.tar.gz", "unreadable_archive"),
        ("cut.zip", "unreadable_archive"),
        ("none.zip", "empty_file"),
    }
    details = {item.path: item.detail for item in listed(tmp_path) if item.kind == "reject"}
    assert "a web page" in details["page.zip"]
    assert "Git LFS" in details["lfs.tar.gz"]
    assert "cut off" in details["cut.zip"]


def test_of_members_of_one_name_the_last_counts(tmp_path: Path) -> None:
    older = encoded(photo(9))
    buffers = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(buffers[0], "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data in (older, PNG):
            archive.writestr("a.png", data)
    with tarfile.open(fileobj=buffers[1], mode="w") as tar:
        for data in (older, PNG):
            info = tarfile.TarInfo("a.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    tars = {
        "x.zip": buffers[0].getvalue(),
        "y.tar": buffers[1].getvalue(),
        "z.tgz": gzip.compress(buffers[1].getvalue()),
    }
    write_folder(tmp_path, tars)
    assert outcome(tmp_path) == dict.fromkeys(("zip://a.png::x.zip", "tar://a.png::y.tar", "tar://a.png::z.tgz"), "ok")
    found = list_raw(str(tmp_path), public_spec(), SETTINGS)
    assert found.ignored == {"replaced by a later member of the same name": 3}


def test_by_products_are_counted_by_kind(tmp_path: Path) -> None:
    junk = {"._a.png": b"\0", "__MACOSX/d/._a.png": b"\0", "d/Thumbs.db": b"\0", ".DS_Store": b"\0"}
    write_folder(tmp_path, {"a.png": PNG, "desktop.ini": b"\0", "x.zip": zip_of(junk | {"b.png": PNG}), **junk})
    found = list_raw(str(tmp_path), public_spec(), SETTINGS)
    assert [item.raw_path for item in found.items] == ["a.png", "zip://b.png::x.zip"]
    assert found.ignored == {"._*": 2, "__MACOSX": 2, "Thumbs.db": 2, ".DS_Store": 2, "desktop.ini": 1}


def test_a_failing_disk_is_never_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, {"a.png": PNG, "x.zip": zip_of({"b.png": PNG}), "y.tgz": tar_of({"c.png": PNG}, "w:gz")})
    items = listed(tmp_path)

    def fail(self: RawRoot, path: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(RawRoot, "open", fail)
    for _, raw in open_items(RawRoot(str(tmp_path)), items, LimitSettings()):
        with pytest.raises(UnavailableError, match="EIO"):
            raw.read()
    kinds = {item.path: (item.kind, item.detail) for item in listed(tmp_path)}
    assert kinds == {"a.png": ("file", ""), "x.zip": ("unavailable", "EIO"), "y.tgz": ("unavailable", "EIO")}


def test_no_space_for_a_spooled_copy_is_the_machines_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, {"x.zip": zip_of({"b.png": PNG})})
    items = listed(tmp_path)

    def full(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ingest.raw.streams.tempfile.SpooledTemporaryFile", full)
    for _, raw in open_items(RawRoot(str(tmp_path)), items, LimitSettings()):
        with pytest.raises(MachineError, match="ENOSPC"):
            raw.read()


def test_no_more_is_read_into_memory_than_the_budget_allows(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": bytes(2 << 20), "x.tar": tar_of({"b.png": bytes(2 << 20)})})
    limits = LimitSettings(decoded_bytes=1 << 20)
    for _, raw in open_items(RawRoot(str(tmp_path)), listed(tmp_path), limits):
        with pytest.raises(RejectError) as caught:
            raw.read()
        assert caught.value.reason == "over_budget"


def test_a_member_without_a_name_is_a_reject(tmp_path: Path) -> None:
    data = zip_of({"X": PNG, "b.png": PNG}, deflate=False)
    at = data.index(b"PK\1\2")
    nameless = data[: at + 28] + b"\0\0" + data[at + 30 : at + 46] + data[at + 47 :]
    end = nameless.rindex(b"PK\5\6")
    size = struct.pack("<L", struct.unpack_from("<L", nameless, end + 12)[0] - 1)
    write_folder(tmp_path, {"x.zip": nameless[: end + 12] + size + nameless[end + 16 :], "y.tar": tar_of({"": PNG})})
    items = list(members(RawRoot(str(tmp_path)), Found(path="x.zip", size=len(nameless)), LimitSettings()))
    items += members(RawRoot(str(tmp_path)), Found(path="y.tar", size=10240), LimitSettings())
    assert [(item.member, item.kind, item.detail) for item in items] == [
        ("b.png", "zip", ""),
        ("no name", "reject", "unreadable:a member without a name"),
        ("no name", "reject", "unreadable:a member without a name"),
    ]
    for item, raw in open_items(RawRoot(str(tmp_path)), items, LimitSettings()):
        if item.kind == "reject":
            with pytest.raises(RejectError):
                raw.read()
