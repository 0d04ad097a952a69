"""Archives wherever they lie: on disk, in parts, or inside another archive."""

from __future__ import annotations

import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final, cast

from ingest.raw.items import RawItem
from ingest.raw.names import archive_kind
from ingest.raw.root import Stored
from ingest.raw.split_archive import data_offset
from ingest.raw.streams import Sparse, Window, spool
from ingest.settings import LimitSettings

BROKEN: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError),
    *(NotImplementedError, KeyError, ValueError),  # zipfile: a compression or version that it does not know, and names
)
"""What broken archives make the libraries raise."""

SEVERAL: Final = ("zip", "tar", "stream", "libarchive")
"""Kinds of archives that hold several files."""

_ZIP_METHODS: Final = {
    1: "Shrink",
    6: "Implode",
    9: "Deflate64",
    19: "LZ77",
    93: "Zstandard",
    94: "MP3",
    95: "XZ",
    96: "JPEG",
    97: "WavPack",
    98: "PPMd",
    99: "AES encryption",
}
_READ_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_UNICODE_PATH: Final = 0x7075
_UTF8: Final = 0x800


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """An archive, wherever it lies.

    Attributes:
        name: Its file name.
        kind: `zip`, `tar`, `stream` or `libarchive`.
        open: Gives a stream of it, seekable unless it is a `stream`.
        packed: Bytes on disk that it comes from.
        expansion: How many times larger it is than those bytes.
        direct: Whether `open` reads in place, without unpacking an archive around it.
        inner: Whether it lies inside an archive.
        key: What tells the file from all others and from itself before a change; empty where that is not known.
    """

    name: str
    kind: str
    open: Callable[[], BinaryIO]
    packed: float
    expansion: float = 1.0
    direct: bool = True
    inner: bool = False
    key: tuple[object, ...] = ()


def top(stored: Stored, kind: str) -> Container:
    """An archive below the raw URL."""
    return Container(
        name=stored.path.rpartition("/")[2],
        kind=kind,
        open=stored.open,
        packed=stored.size,
        key=stored.key,
    )


def in_zip(
    container: Container, stream: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo, limits: LimitSettings
) -> Container:
    """A member of a zip as an archive: in place where it is stored."""
    stored = info.compress_type == zipfile.ZIP_STORED

    def opened() -> BinaryIO:
        if archive_kind(info.filename) == "stream":
            return cast("BinaryIO", archive.open(info))
        if stored:
            window = Window(cast("BinaryIO", _Borrowed(stream)), data_offset(stream, info), info.file_size)
            return cast("BinaryIO", io.BufferedReader(window, 1 << 16))
        with archive.open(info) as member:
            return spool(member, info.compress_size / container.expansion, limits)

    item = RawItem(path="", member=member_name(info), size=info.file_size)
    expansion = max(1.0, info.file_size / max(info.compress_size, 1)) * container.expansion
    return _inner(container, item, opened, expansion=expansion, direct=stored)


def in_tar(container: Container, stream: BinaryIO, item: RawItem) -> Container:
    """A member of a plain tar as an archive, in place."""

    def opened() -> BinaryIO:
        return stored_member(cast("BinaryIO", _Borrowed(stream)), item)

    return _inner(container, item, opened, expansion=container.expansion, direct=True)


def stored_member(stream: BinaryIO, item: RawItem) -> BinaryIO:
    """The bytes of a member of a plain tar, those of a sparse one with their runs of zeros."""
    inside: io.RawIOBase
    if item.pieces:
        inside = Sparse(stream, item.offset, item.size, item.pieces)
    else:
        inside = Window(stream, item.offset, item.size)
    return cast("BinaryIO", io.BufferedReader(inside, 1 << 16))


def in_stream(container: Container, item: RawItem, unpack: Callable[[], BinaryIO]) -> Container:
    """A member of a compressed tar as an archive; at worst all that was packed is its."""
    expansion = container.expansion * max(1.0, item.size / max(container.packed, 1.0))
    return _inner(container, item, unpack, expansion=expansion, direct=False)


def _inner(
    container: Container, item: RawItem, opener: Callable[[], BinaryIO], *, expansion: float, direct: bool
) -> Container:
    name = item.member.rpartition("/")[2]
    return Container(
        name=name,
        kind=archive_kind(name),
        open=opener,
        packed=item.size / expansion,
        expansion=expansion,
        direct=direct and container.direct,
        inner=True,
    )


class _Borrowed:
    """A stream that a window must not close, since the archive around it is still being read."""

    def __init__(self, stream: BinaryIO) -> None:
        self.seek = stream.seek
        self.read = stream.read

    def close(self) -> None:
        """Leave it open."""


def zip_objection(info: zipfile.ZipInfo) -> str:
    """Why a member of a zip cannot be read, as `reason` or `reason:detail`; else empty."""
    if info.flag_bits & 1:
        return "encrypted"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "link"
    if info.compress_type not in _READ_METHODS:
        name = _ZIP_METHODS.get(info.compress_type, f"method {info.compress_type}")
        return f"unsupported:packed with {name}, unpack the archive beside itself first"
    return ""


def member_name(info: zipfile.ZipInfo) -> str:
    """The name of a member of a zip, with `/` between folders.

    Names without the UTF-8 flag are UTF-8 where they are valid as such (zips of macOS and Linux), else code page 437;
    Info-ZIP's field of the Unicode path comes first. Backslashes, which some programs on Windows write, are `/`.
    """
    name = info.orig_filename
    if not info.flag_bits & _UTF8 and not name.isascii():
        raw = name.encode("cp437", "replace")
        name = _unicode_path(info.extra, raw) or _as_utf8(raw) or name
    return name.partition("\0")[0].replace("\\", "/")


def _as_utf8(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return ""


def _unicode_path(extra: bytes, raw: bytes) -> str:
    """The name in Info-ZIP's extra field, if it is there and belongs to these bytes."""
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(field) > 5 and struct.unpack("<L", field[1:5])[0] == zlib.crc32(raw):
            return _as_utf8(field[5:])
    return ""
