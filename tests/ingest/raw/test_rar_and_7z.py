"""RAR and 7-Zip archives by way of libarchive."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.job.list import list_raw
from ingest.raw.archive_reading import open_items
from ingest.raw.items import RejectError
from ingest.raw.rar_and_7z import available, members_of
from ingest.raw.root import RawRoot
from ingest.settings import IngestSettings, LimitSettings
from tests.ingest.material import encoded, ingest, photo, public_spec, tar_of, write_folder

pytestmark = pytest.mark.skipif(not available(), reason="no libarchive on this machine")
FILES = {f"d/{number}.png": encoded(photo(number)) for number in range(4)}


def seven_zip(files: Mapping[str, bytes]) -> bytes:
    import libarchive

    buffer = bytearray()

    def write(data: bytes) -> int:
        buffer.extend(data)
        return len(data)

    with libarchive.custom_writer(write, "7zip") as archive:
        for name, data in files.items():
            archive.add_file_from_memory(name, len(data), data)
    return bytes(buffer)


def rar5(files: Mapping[str, bytes], *, kept: int | None = None) -> bytes:
    """A RAR 5 archive whose members are stored (https://www.rarlab.com/technote.htm)."""
    out = b"Rar!\x1a\x07\x01\x00" + _block(bytes([1, 0, 0]))
    for name, data in files.items():
        fields = [2, 2, len(data), 4, len(data), 0]  # file header with data: data size, has a CRC, size, attributes
        head = b"".join(_vint(field) for field in fields) + struct.pack("<L", zlib.crc32(data))
        out += _block(head + _vint(0) + _vint(1) + _vint(len(name.encode())) + name.encode()) + data[:kept]
    return out + _block(bytes([5, 0, 0]))


def _vint(value: int) -> bytes:
    out = bytearray()
    while True:
        out.append((value & 0x7F) | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def _block(head: bytes) -> bytes:
    sized = _vint(len(head)) + head
    return struct.pack("<L", zlib.crc32(sized)) + sized


MAKERS: dict[str, Any] = {"rar": rar5, "7z": seven_zip}


def read_all(folder: Path) -> dict[str, bytes | str]:
    root = RawRoot(str(folder))
    found: dict[str, bytes | str] = {}
    for item, raw in open_items(root, list(list_raw(root.url, public_spec(), IngestSettings()).items), LimitSettings()):
        try:
            found[item.raw_path] = raw.read()
        except RejectError as error:
            found[item.raw_path] = f"{error.reason}:{error.detail}"
    return found


@pytest.mark.process
@pytest.mark.parametrize("extension", MAKERS)
def test_members_are_read_in_one_pass(tmp_path: Path, extension: str) -> None:
    write_folder(tmp_path, {f"x.{extension}": MAKERS[extension](FILES)})
    assert read_all(tmp_path) == {f"libarchive://{name}::x.{extension}": data for name, data in FILES.items()}


@pytest.mark.process
@pytest.mark.parametrize("extension", MAKERS)
def test_parts_and_archives_in_archives_are_read(tmp_path: Path, extension: str) -> None:
    data = MAKERS[extension](FILES)
    step = len(data) // 3
    parts = {f"x.{extension}.{n + 1:03d}": data[n * step : (n + 1) * step if n < 2 else None] for n in range(3)}
    inner = MAKERS[extension]({"i.tar": tar_of({"a.png": FILES["d/0.png"]})})
    write_folder(tmp_path, parts | {f"y.{extension}": inner, "z.tar": tar_of({f"x.{extension}": data})})
    found = read_all(tmp_path)
    assert found.pop(f"tar://a.png::libarchive://i.tar::y.{extension}") == FILES["d/0.png"]
    assert sorted(found.values(), key=str) == sorted([*FILES.values(), *FILES.values()], key=str)


@pytest.mark.process
def test_a_job_takes_the_pictures_of_a_7z(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", {"x.7z": seven_zip(FILES | {"._a.png": b"x", "readme.txt": b"x"})})
    report = ingest(raw, tmp_path / "dataset", workers=0)
    assert (report.kept, report.rejected, dict(report.ignored)) == (4, 0, {"._*": 1, "txt": 1})


@pytest.mark.process
def test_broken_data_have_a_reason_and_a_cut_archive_keeps_what_came_before(tmp_path: Path) -> None:
    broken = bytearray(seven_zip(FILES))
    broken[len(broken) // 2] ^= 0xFF
    cut = rar5(FILES)[: -len(FILES["d/3.png"]) // 2]
    write_folder(tmp_path, {"flip.7z": bytes(broken), "cut.rar": cut, "none.rar": b"Rar!\x1a\x07\x01\x00"})
    found = read_all(tmp_path)
    assert str(found["libarchive://d/3.png::flip.7z"]).startswith("unreadable_archive:")
    assert found["libarchive://d/0.png::cut.rar"] == FILES["d/0.png"]
    assert str(found["libarchive://d/3.png::cut.rar"]).startswith("unreadable_archive:")


@pytest.mark.slow
def test_names_that_leave_the_archive_and_bombs_are_rejected(tmp_path: Path) -> None:
    bomb = seven_zip({"a.png": bytes(64 << 20)})
    write_folder(tmp_path, {"x.rar": rar5({"../up.png": b"x", "/root.png": b"x"}), "y.7z": bomb})
    found = {path: str(value).partition(":")[0] for path, value in read_all(tmp_path).items()}
    assert found == {
        "libarchive://../up.png::x.rar": "path_traversal",
        "libarchive:///root.png::x.rar": "path_traversal",
        "libarchive://a.png::y.7z": "decompression_bomb",
    }


def test_where_libarchive_is_missing_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.raw.rar_and_7z._binding", lambda: None)
    write_folder(tmp_path, {"x.rar": rar5(FILES), "y.7z": seven_zip(FILES)})
    found = read_all(tmp_path)
    assert set(found) == {"x.rar", "y.7z"}
    assert all(str(value).startswith("unsupported:RAR and 7-Zip need libarchive") for value in found.values())


def test_an_error_of_the_stream_is_handed_on_as_it_is() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"), members_of(Failing(rar5(FILES))) as found:
        list(found)


def test_a_wrong_checksum_of_a_member_is_damage_of_the_data() -> None:
    """libarchive only warns of it where the damage lies in stored bytes."""
    data = bytearray(SMALL["7z"])
    found = set()
    for at in range(len(data)):
        changed = bytes(data[:at]) + bytes([data[at] ^ 0x10]) + bytes(data[at + 1 :])
        try:
            with members_of(io.BytesIO(changed)) as members:
                for member in members:
                    if member.kind == "file":
                        member.open().read(1 << 20)
        except RejectError as error:
            found.add((error.reason, error.detail))
    assert ("unreadable_archive", "a checksum is wrong") in found


@pytest.mark.slow
@given(st.sampled_from(sorted(MAKERS)), st.data())
def test_any_damage_gives_members_or_a_reason(extension: str, draw: st.DataObject) -> None:
    data = bytearray(SMALL[extension])
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    reason = "unreadable_archive"
    try:
        with members_of(io.BytesIO(bytes(data))) as found:
            for member in found:
                if member.kind == "file":
                    member.open().read(1 << 20)
    except RejectError as error:
        reason = error.reason
    assert reason in ("unreadable_archive", "encrypted", "unsupported")


SMALL = (
    {extension: make({"a.png": b"abc" * 50, "b": b"x"}) for extension, make in MAKERS.items()} if available() else {}
)
