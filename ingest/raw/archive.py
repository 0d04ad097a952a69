"""Archives wherever they lie: on disk, in parts, or inside another archive."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final, cast

from ingest.raw.items import RawItem, RawRoot
from ingest.raw.split_archive import data_offset, open_found, whole_name
from ingest.raw.streams import Window, spool
from ingest.settings import LimitSettings

BROKEN: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError),
    *(NotImplementedError, KeyError, ValueError),
)
"""What broken archives make the libraries raise."""

_STREAM_TARS: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_UNPACK_FIRST: Final = {
    "rar": "RAR: unpack it beside itself first, `unrar x FILE.rar`",
    "7z": "7-Zip: unpack it beside itself first, `7z x FILE.7z`",
}


def archive_kind(path: str) -> str:
    """`zip`, `tar`, `stream` (compressed tar), `gzip`, or empty for a plain file; parts count as their whole."""
    name = whole_name(path).lower()
    if name.endswith(_STREAM_TARS):
        return "stream"
    if name.endswith(".gz"):
        return "" if name.endswith(".nii.gz") else "gzip"
    return {"zip": "zip", "tar": "tar"}.get(name.rpartition(".")[2], "")


def unpack_first(path: str) -> str:
    """What to type where an archive can only be read unpacked; else empty."""
    return _UNPACK_FIRST.get(path.lower().rpartition(".")[2], "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """An archive, wherever it lies.

    Attributes:
        name: Its file name.
        kind: `zip`, `tar` or `stream`.
        open: Gives a stream of it, seekable unless it is a `stream`.
        packed: Bytes on disk that it comes from.
        expansion: How many times larger it is than those bytes.
        direct: Whether `open` reads in place, without unpacking an archive around it.
        inner: Whether it lies inside an archive.
    """

    name: str
    kind: str
    open: Callable[[], BinaryIO]
    packed: float
    expansion: float = 1.0
    direct: bool = True
    inner: bool = False


def top(root: RawRoot, item: RawItem, size: int) -> Container:
    """The archive that an item lies in, as a file of so many bytes."""
    return Container(
        name=item.path.rpartition("/")[2],
        kind=archive_kind(item.path),
        open=lambda: open_found(root, item.path, item.parts),
        packed=size,
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

    item = RawItem(path="", member=info.filename, size=info.file_size)
    expansion = max(1.0, info.file_size / max(info.compress_size, 1)) * container.expansion
    return _inner(container, item, opened, expansion=expansion, direct=stored)


def in_tar(container: Container, stream: BinaryIO, item: RawItem) -> Container:
    """A member of a plain tar as an archive, in place."""

    def opened() -> BinaryIO:
        window = Window(cast("BinaryIO", _Borrowed(stream)), item.offset, item.size)
        return cast("BinaryIO", io.BufferedReader(window, 1 << 16))

    return _inner(container, item, opened, expansion=container.expansion, direct=True)


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
