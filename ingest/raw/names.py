"""What the name of a raw file says: an archive, a packed file, a part of a split archive, or no data at all."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

__all__ = [
    "archive_kind",
    "ignored_kind",
    "leads_out",
    "packing",
    "part_of",
    "printable",
    "scheme_of",
    "seen_path",
    "unpacked_name",
    "whole_name",
]

_PACKINGS: Final = {"gz": "gzip", "bz2": "bz2", "xz": "xz", "zst": "zstd", "zstd": "zstd"}
_PACKED_TARS: Final = ("tgz", "taz", "tbz", "tb2", "tbz2", "txz", "tlz", "tzst")
_PACKED_TAR: Final = re.compile(rf".*\.(?:{'|'.join(_PACKED_TARS)}|tar\.(?:{'|'.join(_PACKINGS)}|lzma))")
_PLAIN: Final = frozenset(
    (
        *("png", "jpg", "jpeg", "tif", "tiff", "bmp", "ppm", "pgm", "dcm", "dicom", "ima", "nii", "npy"),
        *("txt", "csv", "json"),
    )
)
"""Extensions that no archive and no part of one has: listings ask for the kind of millions of such names."""
_CUT: Final = re.compile(
    rf"(?P<stem>.+\.(?:zip|7z|rar|tar|{'|'.join(_PACKED_TARS)}|tar\.(?:{'|'.join(_PACKINGS)})))"
    r"\.(?:part[-_]?)?(?P<part>\d{1,4}|[a-c][a-z])"
)
_RAR_VOLUME: Final = re.compile(r"(?P<stem>.+)\.part(?P<part>\d{1,5})\.rar")
_OLD_RAR_VOLUME: Final = re.compile(r"(?P<stem>.+)\.(?P<letter>[r-z])(?P<part>\d{2})")
_SPANNED: Final = re.compile(r"(?P<stem>.+)\.z(?P<part>\d{2,3})")
SPANNED_FIRST: Final = (".z01", ".z001", ".z02")
OLD_RAR_FIRST: Final = (".r00", ".r01")
LAST: Final = 1 << 20
"""The number of a spanned archive's last part, which has no number in its name."""

_DRIVE: Final = re.compile(r"[A-Za-z]:")

_IGNORED_FOLDERS: Final = {
    name.lower(): name
    for name in (
        *("__MACOSX", ".git", ".svn", ".hg", ".ipynb_checkpoints", "@eaDir", ".Spotlight-V100", ".Trashes"),
        *(".fseventsd", "$RECYCLE.BIN", "System Volume Information"),
    )
}
_IGNORED_FILES: Final = {
    name.lower(): name for name in (".DS_Store", "Thumbs.db", "ehthumbs.db", "desktop.ini", ".localized", ".directory")
}


def whole_name(path: str) -> str:
    """The name that a split archive would have in one piece; other names as they are."""
    lower = path.lower()
    cut = _CUT.fullmatch(lower)
    if cut:
        return path[: len(cut["stem"])]
    volume = _RAR_VOLUME.fullmatch(lower)
    return f"{path[: len(volume['stem'])]}.rar" if volume else path


def archive_kind(path: str) -> str:
    """How an archive of this name is read; parts count as their whole.

    Returns:
        `zip`, `tar`, `stream` (a compressed tar), `libarchive` (RAR, 7-Zip), `gzip` (one packed file, whatever packed
        it), or empty for a plain file.
    """
    if path.rpartition(".")[2].lower() in _PLAIN:
        return ""
    name = whole_name(path).lower()
    if _PACKED_TAR.fullmatch(name):
        return "stream"
    extension = name.rpartition("/")[2].partition(".")[2].rpartition(".")[2]
    if extension in _PACKINGS:
        return "" if name.endswith(".nii.gz") else "gzip"
    return {"zip": "zip", "tar": "tar", "rar": "libarchive", "7z": "libarchive"}.get(extension, "")


def packing(path: str) -> str:
    """What packed a single file of this name: `gzip`, `bz2`, `xz`, `zstd`, or empty."""
    return _PACKINGS.get(path.lower().rpartition(".")[2], "")


def unpacked_name(path: str) -> str:
    """The name of a packed file without the extension of its packing."""
    return path.rpartition(".")[0] if packing(path) else path


def seen_path(path: str) -> str:
    """The path that globs and keys see: archives are folders, and the packing of a single file is not there."""
    path = printable(path)
    return unpacked_name(path) if archive_kind(path) == "gzip" else path


def printable(path: str) -> str:
    """`path` as valid Unicode: each invalid byte is written as a backslash, x and two hex digits."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@lru_cache(maxsize=1024)
def scheme_of(archive: str) -> str:
    """The fsspec scheme by which members of an archive of this name are written."""
    kind = archive_kind(archive.rpartition("/")[2])
    if kind in ("zip", "libarchive"):
        return kind
    return "zip" if re.search(r"\.zip(\.[^./]*)?$", archive.lower()) else "tar"


def part_of(path: str, firsts: set[str]) -> tuple[str, int, bool] | None:
    """Which split archive a file is a part of.

    Args:
        path: The file.
        firsts: Lower-case paths of files that look like a first part (`SPANNED_FIRST`, `OLD_RAR_FIRST`).

    Returns:
        A name for the archive, the part's number, and whether the last part has no number; None for a whole file.
    """
    lower = path.lower()
    cut = _CUT.fullmatch(lower)
    if cut:
        part = cut["part"]
        number = int(part) if part.isdigit() else (ord(part[0]) - 97) * 26 + ord(part[1]) - 97
        return f"cut:{cut['stem']}", number, False
    volume = _RAR_VOLUME.fullmatch(lower)
    if volume:
        return f"rar:{volume['stem']}", int(volume["part"]), False
    spanned = _SPANNED.fullmatch(lower)
    if spanned:
        return f"spanned:{spanned['stem']}", int(spanned["part"]), True
    if lower.endswith(".zip") and any(f"{lower[:-4]}{first}" in firsts for first in SPANNED_FIRST):
        return f"spanned:{lower[:-4]}", LAST, True
    return _old_rar_part(lower, firsts)


def _old_rar_part(lower: str, firsts: set[str]) -> tuple[str, int, bool] | None:
    """Volumes named `x.rar`, `x.r00`, `x.r01` …, `x.s00` …."""
    stem = lower.removesuffix(".rar")
    if stem != lower:
        return (f"oldrar:{stem}", 0, False) if any(f"{stem}{first}" in firsts for first in OLD_RAR_FIRST) else None
    volume = _OLD_RAR_VOLUME.fullmatch(lower)
    if volume and any(f"{volume['stem']}{first}" in firsts for first in OLD_RAR_FIRST):
        return f"oldrar:{volume['stem']}", 1 + 100 * (ord(volume["letter"]) - ord("r")) + int(volume["part"]), False
    return None


def leads_out(path: str) -> bool:
    """Whether a path leads out of the folder or archive that it belongs to: by `..`, a root or a drive's letter."""
    plain = path.replace("\\", "/")
    return plain.startswith("/") or ".." in plain.split("/") or _DRIVE.match(plain) is not None


def ignored_kind(path: str) -> str:
    """A word for what a file manager, version control or an archiver left beside the data; else empty.

    These files are never data, whatever their extension: `._scan.dcm` holds the resource fork of `scan.dcm`.
    """
    *folders, name = path.replace("\\", "/").lower().split("/")
    found = next((_IGNORED_FOLDERS[folder] for folder in folders if folder in _IGNORED_FOLDERS), "")
    return found or _IGNORED_FILES.get(name, "._*" if name.startswith("._") else "")
