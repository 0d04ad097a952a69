"""Members are read in place; hostile ones become items with a reason."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from ingest.archives import open_items
from ingest.listing import cut_units, glob_regex, list_raw
from ingest.raw import RawItem, RawRoot, RejectError
from ingest.settings import IngestSettings, LimitSettings
from tests.ingest.material import encoded, photo, public_spec, tar_of, write_folder, zip_of

PNG = encoded(photo(0))
SETTINGS = IngestSettings()


def listed(folder: Path, **layout: object) -> list[RawItem]:
    return list(list_raw(RawRoot(str(folder)), public_spec(layout=layout), SETTINGS).items)


def outcome(folder: Path, **layout: object) -> dict[str, str]:
    """Raw path → `ok` or the reason."""
    found = {}
    for item, raw in open_items(RawRoot(str(folder)), listed(folder, **layout), LimitSettings()):
        try:
            found[item.raw_path] = "ok" if raw.read() == PNG else "other bytes"
        except RejectError as error:
            found[item.raw_path] = error.reason
    return found


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
    found = list_raw(RawRoot(str(tmp_path)), public_spec(), SETTINGS)
    assert [item.raw_path for item in found.items] == ["a.png", "zip://b.jpg::x.zip"]
    assert found.ignored == {"csv": 1, "txt": 1}


def test_listing_digest_changes_with_content_of_the_list_only(tmp_path: Path) -> None:
    root = RawRoot(str(write_folder(tmp_path, {"a.png": PNG, "b.png": PNG})))
    first = list_raw(root, public_spec(), SETTINGS).digest
    assert list_raw(root, public_spec(), SETTINGS).digest == first
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    assert list_raw(root, public_spec(), SETTINGS).digest != first


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


def test_units_never_cut_a_compressed_tar() -> None:
    items = [RawItem(path=f"{i}.png", size=10) for i in range(3)]
    items += [RawItem(path="a.tar.gz", member=str(i), kind="stream", size=10, offset=i) for i in range(5)]
    items += [RawItem(path="z.png", size=10)]
    units = cut_units(items, IngestSettings(unit_bytes=20))
    assert [len(unit.items) for unit in units] == [2, 6, 1]
    assert [item for unit in units for item in unit.items] == items
