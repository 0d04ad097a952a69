"""Which files are parts of one archive, and which part is missing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.raw.root import RawRoot, Walked
from ingest.raw.split_archive import data_offset, join_parts, open_zip
from tests.ingest.material import write_folder, zip_of


def joined(*names: str) -> dict[str, tuple[list[str], str]]:
    """Path → parts and what is missing, of files of ten bytes each."""
    found = join_parts(Walked(name, 10) for name in sorted(names))
    return {one.path: ([name for name, _ in one.parts], one.missing) for one in found}


def test_parts_are_put_together_by_number() -> None:
    assert joined("x.zip.001", "x.zip.002", "x.zip.010", "y.png") == {
        "x.zip.001": (["x.zip.001", "x.zip.002", "x.zip.010"], "part 3 is missing"),
        "y.png": ([], ""),
    }
    assert joined("x.tar.aa", "x.tar.ab") == {"x.tar.aa": (["x.tar.aa", "x.tar.ab"], "")}
    assert joined("x.part1.rar", "x.part2.rar", "x.part10.rar", "z.rar") == {
        "x.part1.rar": (["x.part1.rar", "x.part2.rar", "x.part10.rar"], "part 3 is missing"),
        "z.rar": ([], ""),
    }
    assert joined("x.r00", "x.r01", "x.rar") == {"x.rar": (["x.rar", "x.r00", "x.r01"], "")}
    assert joined("x.r00", "x.r01") == {"x.r00": (["x.r00", "x.r01"], "part 0 is missing")}


def test_spanned_zips_are_known_by_their_last_part() -> None:
    assert joined("x.z01", "x.z02", "x.zip") == {"x.zip": (["x.z01", "x.z02", "x.zip"], "")}
    assert joined("x.z02", "x.zip") == {"x.zip": (["x.z02", "x.zip"], "part 1 is missing")}
    assert joined("x.z01", "x.z02") == {"x.z02": (["x.z01", "x.z02"], "the last part, .zip, is missing")}


def test_what_is_no_file_is_no_part() -> None:
    found = list(join_parts([Walked("x.zip.001", 5), Walked("x.zip.002", rejected="no regular file but a FIFO")]))
    assert [(one.path, one.parts) for one in found] == [("x.zip.001", (("x.zip.001", 5),)), ("x.zip.002", ())]


@pytest.mark.slow
@given(st.lists(st.from_regex(r"[xy]\.(zip|rar|z0[12]|r0[01]|zip\.00[123]|part[12]\.rar|tar\.a[ab])", fullmatch=True)))
def test_every_file_is_in_one_archive_or_alone(names: list[str]) -> None:
    unique = sorted(set(names))
    found = list(join_parts(Walked(name, 1) for name in unique))
    seen = [name for one in found for name in ([part for part, _ in one.parts] or [one.path])]
    assert sorted(seen) == unique


def test_a_zip_in_parts_is_opened_as_one(tmp_path: Path) -> None:
    data = zip_of({"a.txt": b"stored"}, deflate=False)
    write_folder(tmp_path, {"x.zip.001": data[:20], "x.zip.002": data[20:]})
    parts = (("x.zip.001", 20), ("x.zip.002", len(data) - 20))
    with RawRoot(str(tmp_path)).stored("x.zip.001", parts).open() as stream, open_zip(stream) as archive:
        info = archive.getinfo("a.txt")
        assert archive.read(info) == b"stored"
        stream.seek(data_offset(stream, info))
        assert stream.read(6) == b"stored"
    with pytest.raises(Exception, match="no local header"):
        data_offset(io.BytesIO(bytes(100)), info)
