"""Zips: names, flags and methods of many programs, parts and spans."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest

from ingest.raw.archive_reading import open_items
from ingest.raw.root import RawRoot
from ingest.settings import LimitSettings
from tests.ingest.material import encoded, photo, tar_of, write_folder, zip_of
from tests.ingest.raw.archives import PNG, cut_into, listed, noise, outcome, spanned_zip64


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
