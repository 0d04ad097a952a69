"""Members are read in place; hostile ones become items with a reason."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import shutil
import struct
import subprocess
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.job.list import cut_units, list_raw
from ingest.raw.archive_reading import open_items
from ingest.raw.items import RawItem, RejectError
from ingest.raw.listing import members
from ingest.raw.root import RawRoot
from ingest.raw.split_archive import Found
from ingest.settings import IngestSettings, LimitSettings
from ingest.source.globs import glob_regex
from shards.errors import MachineError, UnavailableError
from tests.ingest.material import encoded, photo, public_spec, tar_of, write_folder, zip_of

PNG = encoded(photo(0))
SETTINGS = IngestSettings()


def listed(folder: Path, **layout: object) -> list[RawItem]:
    return list(list_raw(str(folder), public_spec(layout=layout), SETTINGS).items)


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


def test_units_never_cut_a_compressed_tar() -> None:
    items = [RawItem(path=f"{i}.png", size=10) for i in range(3)]
    items += [RawItem(path="a.tar.gz", member=str(i), kind="stream", size=10, offset=i) for i in range(5)]
    items += [RawItem(path="z.png", size=10)]
    units = cut_units(items, IngestSettings(unit_bytes=20))
    assert [len(unit.items) for unit in units] == [2, 6, 1]
    assert [item for unit in units for item in unit.items] == items


def everything_inside(outer: dict[str, bytes]) -> dict[str, bytes]:
    """The same archive in every kind of archive."""
    return {
        "stored.zip": zip_of(outer, deflate=False),
        "deflated.zip": zip_of(outer),
        "plain.tar": tar_of(outer),
        "packed.tar.gz": tar_of(outer, "w:gz"),
    }


def test_archives_inside_archives_are_read_once_more(tmp_path: Path) -> None:
    files = {"b.png": PNG, "a.png": PNG}
    inner = {"i.zip": zip_of(files), "j.tar": tar_of(files), "k.tgz": tar_of(files, "w:gz"), "c.png": PNG}
    write_folder(tmp_path, everything_inside(inner))
    found = outcome(tmp_path)
    assert set(found.values()) == {"ok"}
    assert len(found) == 4 * 7
    assert "zip://a.png::tar://i.zip::plain.tar" in found
    assert [path for path in found if path.endswith("stored.zip")] == [
        "zip://c.png::stored.zip",
        "zip://a.png::zip://i.zip::stored.zip",
        "zip://b.png::zip://i.zip::stored.zip",
        "tar://a.png::zip://j.tar::stored.zip",
        "tar://b.png::zip://j.tar::stored.zip",
        "tar://b.png::zip://k.tgz::stored.zip",
        "tar://a.png::zip://k.tgz::stored.zip",
    ]


def test_gzipped_members_and_volumes_are_unpacked_by_name(tmp_path: Path) -> None:
    files = {"a.ppm.gz": gzip.compress(PNG)}
    write_folder(tmp_path, everything_inside({"i.zip": zip_of(files), "b.ppm.gz": gzip.compress(PNG)}))
    found = outcome(tmp_path)
    assert len(found) == 8
    assert set(found.values()) == {"ok"}


def test_a_third_level_and_broken_inner_archives_are_items_with_a_reason(tmp_path: Path) -> None:
    deep = zip_of({"two.zip": zip_of({"three.zip": zip_of({"a.png": PNG}), "b.png": PNG}), "bad.zip": b"PK\x03\x04 no"})
    write_folder(tmp_path, {"one.zip": deep})
    assert outcome(tmp_path) == {
        "zip://b.png::zip://two.zip::one.zip": "ok",
        "zip://bad.zip::one.zip": "unreadable_archive",
        "zip://three.zip::zip://two.zip::one.zip": "unreadable_archive",
    }


def test_units_cut_inner_archives_only_where_they_lie_in_place(tmp_path: Path) -> None:
    inner = {"i.zip": zip_of({f"{i}.png": PNG for i in range(4)}, deflate=False)}
    write_folder(tmp_path, everything_inside(inner))
    units = cut_units(listed(tmp_path), IngestSettings(unit_bytes=1))
    assert sorted(len(unit.items) for unit in units) == [1] * 8 + [4, 4]
    for unit in units:
        for _, raw in open_items(RawRoot(str(tmp_path)), list(unit.items), LimitSettings()):
            assert raw.read() == PNG


@pytest.mark.slow
def test_a_bomb_in_two_layers_is_rejected(tmp_path: Path) -> None:
    zeros = b"\0" * (3 << 20)
    layer = {"i.zip": zip_of({f"{i}.png": zeros for i in range(40)})}
    settings = LimitSettings(max_ratio=1100)
    for name, data in everything_inside(layer).items():
        write_folder(tmp_path / name, {name: data})
        items = list(list_raw(str(tmp_path / name), public_spec(), IngestSettings(limits=settings)).items)
        outer_ratio = len(layer["i.zip"]) / len(data)
        assert outer_ratio > 3 or name in ("stored.zip", "plain.tar")
        reasons = set()
        for _, raw in open_items(RawRoot(str(tmp_path / name)), items, settings):
            try:
                reasons.add("ok" if raw.read() == zeros else "other")
            except RejectError as error:
                reasons.add(error.reason)
        assert reasons == ({"ok"} if outer_ratio <= 3 else {"decompression_bomb"}), name


def cut_into(data: bytes, name: str, size: int, suffix: str) -> dict[str, bytes]:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    letters = suffix == "aa"
    return {
        f"{name}.{chr(97 + n // 26) + chr(97 + n % 26) if letters else str(n + 1).zfill(len(suffix))}": piece
        for n, piece in enumerate(pieces)
    }


@pytest.mark.parametrize("suffix", ["001", "01", "aa"])
@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_archives_cut_into_parts_are_read_as_one(tmp_path: Path, name: str, suffix: str) -> None:
    files = {f"{i}.png": encoded(photo(i)) for i in range(5)} | {"p.png": PNG}
    make = {"x.zip": zip_of, "x.tar": tar_of, "x.tar.gz": lambda files: tar_of(files, "w:gz")}[name]
    data = make(files)
    parts = cut_into(data, name, len(data) // 5 + 1, suffix)
    write_folder(tmp_path, parts)
    found = outcome(tmp_path)
    assert len(found) == 6
    scheme = "zip" if name == "x.zip" else "tar"
    assert found[f"{scheme}://p.png::{name}.{suffix}"] == "ok"
    assert set(found.values()) == {"ok", "other bytes"}
    (tmp_path / list(parts)[2]).unlink()
    assert outcome(tmp_path) == {f"{name}.{suffix}": "unreadable_archive"}


@pytest.mark.process
@pytest.mark.skipif(shutil.which("zip") is None, reason="no Info-ZIP on this machine")
def test_spanned_zips_of_info_zip_are_read_in_place(tmp_path: Path) -> None:
    files = {f"{i}.png": encoded(noise(i)) for i in range(20)} | {"p.png": PNG}
    write_folder(tmp_path / "files", files)
    command = ["zip", "-q", "-s", "64k", "-r", str(tmp_path / "raw" / "x.zip"), "."]
    (tmp_path / "raw").mkdir()
    subprocess.run(command, cwd=tmp_path / "files", check=True)
    parts = sorted(path.name for path in (tmp_path / "raw").iterdir())
    assert len(parts) > 4
    assert "x.z01" in parts
    seen = {}
    for item, raw in open_items(RawRoot(str(tmp_path / "raw")), listed(tmp_path / "raw"), LimitSettings()):
        seen[item.member] = raw.read()
        assert raw.head(8) == files[item.member][:8]
    assert seen == files
    (tmp_path / "raw" / "x.z02").unlink()
    assert outcome(tmp_path / "raw") == {"x.zip": "unreadable_archive"}


def test_a_spanned_zip64_is_read_in_place(tmp_path: Path) -> None:
    write_folder(tmp_path, spanned_zip64({f"{i}.png": encoded(noise(i)) for i in range(6)} | {"p.png": PNG}))
    found = outcome(tmp_path)
    assert len(found) == 7
    assert found["zip://p.png::big.zip"] == "ok"
    assert "unreadable" not in found.values()


def noise(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (80, 80, 3), dtype=np.uint8)


def spanned_zip64(files: dict[str, bytes]) -> dict[str, bytes]:
    """A zip in three parts as APPNOTE has it, with zip64 end records: offsets count from the start of their part."""
    disks = [bytearray(b"PK\x07\x08"), bytearray(), bytearray()]
    directory = b""
    for number, (name, data) in enumerate(files.items()):
        disk = min(2, number * 3 // len(files))
        offset, crc = len(disks[disk]), zlib.crc32(data)
        sizes = struct.pack("<LLLHH", crc, len(data), len(data), len(name), 0)
        disks[disk] += b"PK\x03\x04" + struct.pack("<HHHHH", 45, 0, 0, 0, 33) + sizes + name.encode() + data
        entry = struct.pack("<HHHHHH", 45, 45, 0, 0, 0, 33) + sizes + struct.pack("<HHHLL", 0, disk, 0, 0, offset)
        directory += b"PK\x01\x02" + entry + name.encode()
    start = len(disks[2])
    record_at = start + len(directory)
    count = len(files)
    record = b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 2, 2, count, count, len(directory), start)
    locator = b"PK\x06\x07" + struct.pack("<LQL", 2, record_at, 3)
    end = b"PK\x05\x06" + struct.pack("<HHHHLLH", 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    disks[2] += directory + record + locator + end
    return {"big.z01": bytes(disks[0]), "big.z02": bytes(disks[1]), "big.zip": bytes(disks[2])}


def test_the_head_of_a_member_is_read_without_the_rest(tmp_path: Path) -> None:
    write_folder(tmp_path, everything_inside({"a.png": PNG, "i.zip": zip_of({"b.png": PNG})}) | {"c.png": PNG})
    for _, raw in open_items(RawRoot(str(tmp_path)), listed(tmp_path), LimitSettings()):
        assert raw.head(40) == PNG[:40]
        assert raw.head(1 << 20) == PNG
        assert raw.read() == PNG


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


def test_names_of_zips_as_windows_and_macos_write_them(tmp_path: Path) -> None:
    data = zip_of({"dir_a_b.png": PNG, "M__ller.png": PNG, "code_X.png": PNG}, deflate=False)
    data = data.replace(b"dir_a_b", b"dir\\a\\b").replace(b"M__ller", "Müller".encode())
    write_folder(tmp_path, {"x.zip": data.replace(b"code_X", b"code_\x81")})
    assert outcome(tmp_path) == {
        "zip://Müller.png::x.zip": "ok",
        "zip://code_ü.png::x.zip": "ok",
        "zip://dir/a/b.png::x.zip": "ok",
    }


def test_what_a_zip_holds_and_nobody_can_unpack_is_said(tmp_path: Path) -> None:
    data = bytearray(zip_of({"a.png": PNG, "b.png": PNG}, deflate=False))
    at = data.index(b"PK\1\2")
    data[at + 10], data[8] = 9, 9
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    write_folder(tmp_path, {"x.zip": bytes(data), "y.zip": buffer.getvalue()})
    assert outcome(tmp_path) == {
        "zip://a.png::x.zip": "unsupported",
        "zip://b.png::x.zip": "ok",
        "zip://link.png::y.zip": "link",
    }
    assert "Deflate64" in next(item.detail for item in listed(tmp_path) if item.member == "a.png")


def test_members_of_a_zip_that_share_their_bytes_are_a_bomb(tmp_path: Path) -> None:
    data = zip_of({"a.png": PNG, "b.png": PNG}, deflate=False)
    at = data.rindex(b"PK\1\2")
    write_folder(tmp_path, {"x.zip": data[: at + 42] + struct.pack("<L", 0) + data[at + 46 :]})
    assert sorted(outcome(tmp_path).values()) in (["decompression_bomb", "ok"], ["decompression_bomb", "unreadable"])


def test_by_products_are_counted_by_kind(tmp_path: Path) -> None:
    junk = {"._a.png": b"\0", "__MACOSX/d/._a.png": b"\0", "d/Thumbs.db": b"\0", ".DS_Store": b"\0"}
    write_folder(tmp_path, {"a.png": PNG, "desktop.ini": b"\0", "x.zip": zip_of(junk | {"b.png": PNG}), **junk})
    found = list_raw(str(tmp_path), public_spec(), SETTINGS)
    assert [item.raw_path for item in found.items] == ["a.png", "zip://b.png::x.zip"]
    assert found.ignored == {"._*": 2, "__MACOSX": 2, "Thumbs.db": 2, ".DS_Store": 2, "desktop.ini": 1}


@pytest.mark.process
@pytest.mark.skipif(shutil.which("tar") is None, reason="no GNU tar on this machine")
@pytest.mark.parametrize(
    "options", [["--format=gnu"], ["--format=pax", "--sparse-version=1.0"], ["--format=pax", "-z"]]
)
def test_sparse_members_give_their_true_bytes(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "files").mkdir()
    with (tmp_path / "files" / "a.png").open("wb") as file:
        file.write(PNG)
        file.seek(1 << 20)
        file.write(b"end")
        file.truncate((1 << 20) + 70_000)
    (tmp_path / "files" / "b.png").write_bytes(PNG)
    (tmp_path / "raw").mkdir()
    name = tmp_path / "raw" / ("x.tar.gz" if "-z" in options else "x.tar")
    subprocess.run(["tar", "-S", *options, "-C", tmp_path / "files", "-cf", name, "a.png", "b.png"], check=True)
    seen = {}
    for item, raw in open_items(RawRoot(str(tmp_path / "raw")), listed(tmp_path / "raw"), LimitSettings()):
        seen[item.member] = raw.read()
        assert raw.head(8) == PNG[:8]
    assert seen == {name: (tmp_path / "files" / name).read_bytes() for name in ("a.png", "b.png")}


@pytest.mark.parametrize("extension", ["tar.bz2", "tar.xz", "tar.zst", "tzst"])
def test_tars_of_every_packing_are_read(tmp_path: Path, extension: str) -> None:
    packed = {"bz2": bz2.compress, "xz": lzma.compress}.get(extension[-3:].lstrip("."), zstd)
    write_folder(tmp_path, {f"x.{extension}": packed(tar_of({"a.png": PNG}))})
    assert outcome(tmp_path) == {f"tar://a.png::x.{extension}": "ok"}


def test_single_packed_files_are_read_whatever_packed_them(tmp_path: Path) -> None:
    packed = {"a.png.bz2": bz2.compress(PNG), "a.png.xz": lzma.compress(PNG), "a.png.zst": zstd(PNG)}
    write_folder(tmp_path, {**packed, "a.png.gz": PNG, "x.zip": zip_of(packed)})
    assert outcome(tmp_path) == {
        "bz2://a.png::a.png.bz2": "ok",
        "gzip://a.png::a.png.gz": "ok",
        "xz://a.png::a.png.xz": "ok",
        "zstd://a.png::a.png.zst": "ok",
        **{f"zip://{name}::x.zip": "ok" for name in packed},
    }


def zstd(data: bytes) -> bytes:
    import pyarrow as pa

    return pa.Codec("zstd").compress(data, asbytes=True)


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
