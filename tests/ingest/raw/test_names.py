"""What names say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.raw.names import (
    archive_kind,
    ignored_kind,
    leads_out,
    packing,
    part_of,
    scheme_of,
    unpacked_name,
    whole_name,
)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.zip", "zip"),
        ("A.ZIP.003", "zip"),
        ("a.tar", "tar"),
        ("a.tar.aa", "tar"),
        ("a.tgz", "stream"),
        ("a.tar.zst", "stream"),
        ("a.tar.bz2.part-02", "stream"),
        ("a.rar", "libarchive"),
        ("a.part02.rar", "libarchive"),
        ("a.7z.001", "libarchive"),
        ("a.ppm.gz", "gzip"),
        ("a.nii.xz", "gzip"),
        ("a.nii.gz", ""),
        ("a.png", ""),
        ("zip", ""),
        ("gz", ""),
    ],
)
def test_kinds_of_archives(name: str, kind: str) -> None:
    assert archive_kind(name) == kind


def test_names_around_an_archive() -> None:
    assert whole_name("d/x.tar.gz.aa") == "d/x.tar.gz"
    assert whole_name("x.part1.rar") == "x.rar"
    assert [unpacked_name(name) for name in ("a.png.bz2", "a.png")] == ["a.png", "a.png"]
    assert [packing(name) for name in ("a.GZ", "a.zst", "a.png")] == ["gzip", "zstd", ""]
    assert [scheme_of(name) for name in ("a.zip", "x.zip.001", "d/a.rar", "a.tgz")] == [
        "zip",
        "zip",
        "libarchive",
        "tar",
    ]


@pytest.mark.parametrize(
    ("path", "firsts", "part"),
    [
        ("d/x.zip.002", (), ("cut:d/x.zip", 2, False)),
        ("x.tar.ba", (), ("cut:x.tar", 26, False)),
        ("x.part10.rar", (), ("rar:x", 10, False)),
        ("x.rar", ("x.r00",), ("oldrar:x", 0, False)),
        ("x.r07", ("x.r00",), ("oldrar:x", 8, False)),
        ("x.s00", ("x.r00",), ("oldrar:x", 101, False)),
        ("x.rar", (), None),
        ("x.z01", (), ("spanned:x", 1, True)),
        ("x.zip", ("x.z01",), ("spanned:x", 1 << 20, True)),
        ("x.zip", (), None),
        ("image.001", (), None),
    ],
)
def test_parts_of_split_archives(path: str, firsts: tuple[str, ...], part: tuple[str, int, bool] | None) -> None:
    assert part_of(path, set(firsts)) == part


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("d/._scan.dcm", "._*"),
        ("__MACOSX/d/a.png", "__MACOSX"),
        ("d/.DS_Store", ".DS_Store"),
        ("d/THUMBS.DB", "Thumbs.db"),
        ("desktop.ini", "desktop.ini"),
        (".git/objects/00/a.png", ".git"),
        ("d/a.png", ""),
        ("d/_.png", ""),
        ("Thumbs.db.png", ""),
    ],
)
def test_what_is_no_data(path: str, kind: str) -> None:
    assert ignored_kind(path) == kind


@given(st.text(max_size=40), st.sampled_from(["", ".zip", ".tar.gz", ".z01", ".rar", ".part1.rar", ".r00", ".zip.001"]))
def test_any_name_is_judged(stem: str, extension: str) -> None:
    name = stem + extension
    assert archive_kind(name) in ("", "zip", "tar", "stream", "libarchive", "gzip")
    assert name.startswith(unpacked_name(name))
    assert whole_name(whole_name(name)) == whole_name(name) or extension
    ignored_kind(name)
    part_of(name, {name.lower()})
    assert scheme_of(name) in ("zip", "tar", "libarchive")


@pytest.mark.parametrize("path", ["/a", "\\a", "..", "../a", "a/../../b", "a\\..\\b", "C:/a", "c:a", "C:\\a"])
def test_paths_that_lead_out(path: str) -> None:
    assert leads_out(path)


@pytest.mark.parametrize("path", ["a", "..a/b", "a..", "12:30.png", "col:on.png", "ä:b", "1:b", "a/C:/b", ""])
def test_paths_that_stay_where_they_are(path: str) -> None:
    assert not leads_out(path)
