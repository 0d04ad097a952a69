"""The streams that archives are read through: joined parts, a window of a file, unpacking with a brake.

Split archives come in two ways. Cut byte by byte (`x.zip.001`, `x.zip.002` …, `x.tar.gz.aa` …) the parts in a row are
the archive. Spanned as PKZIP has it (`x.z01`, `x.z02` …, `x.zip` last; APPNOTE 8.3) they are too, except that every
offset counts from the start of its own part: the directory is rebased once it is read.
"""

from __future__ import annotations

import bisect
import bz2
import gzip
import io
import lzma
import re
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO, Final, cast

from ingest.raw import RawRoot, RejectError
from ingest.settings import LimitSettings

SPOOL_BYTES: Final = 64 << 20
FREE_BYTES: Final = 1 << 20
"""What may be unpacked of anything, however small it is packed."""

STREAM_TARS: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_CUT = re.compile(
    r"(?P<stem>.+\.(?:zip|tar|tgz|tbz2|txz|tar\.(?:gz|bz2|xz)))\.(?:part[-_]?)?(?P<part>\d{1,4}|[a-c][a-z])"
)
_SPANNED = re.compile(r"(?P<stem>.+)\.z(?P<part>\d{2,3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file below the raw URL, or the parts of one.

    Attributes:
        path: Its path; of a split archive that of the part by which it is known (`x.zip`, `x.zip.001`).
        size: Bytes of all parts; negative where it cannot be looked at.
        parts: Paths and sizes of the parts in order; empty for whole files.
        missing: What part is not there, in words.
    """

    path: str
    size: int
    parts: tuple[tuple[str, int], ...] = ()
    missing: str = ""


def whole_name(path: str) -> str:
    """The name that a split archive would have in one piece; other names as they are."""
    cut = _CUT.fullmatch(path.lower())
    return path[: len(cut["stem"])] if cut else path


def join_parts(files: Iterable[tuple[str, int]]) -> Iterator[Found]:
    """Put the parts of split archives together; the order of the paths is kept."""
    walked = list(files)
    groups: dict[str, list[tuple[int, str, int]]] = {}
    names = {path.lower() for path, _ in walked}
    for path, size in walked:
        found = _part(path, names)
        if found:
            groups.setdefault(found[0], []).append((found[1], path, size))
    for path, size in walked:
        found = _part(path, names)
        if found is None:
            yield Found(path=path, size=size)
            continue
        parts = sorted(groups[found[0]])
        known = parts[-1] if found[2] else parts[0]
        if path == known[1]:
            sizes = tuple((name, max(length, 0)) for _, name, length in parts)
            yield Found(path=path, size=sum(n for _, n in sizes), parts=sizes, missing=_gap(parts, spanned=found[2]))


def _part(path: str, names: set[str]) -> tuple[str, int, bool] | None:
    """Which archive a file is a part of, which one, and whether it is spanned; None for a whole file."""
    lower = path.lower()
    cut = _CUT.fullmatch(lower)
    if cut:
        part = cut["part"]
        number = int(part) if part.isdigit() else (ord(part[0]) - 97) * 26 + ord(part[1]) - 97
        return f"cut:{cut['stem']}", number, False
    spanned = _SPANNED.fullmatch(lower)
    if spanned:
        return f"spanned:{spanned['stem']}", int(spanned["part"]), True
    if lower.endswith(".zip") and any(f"{lower[:-4]}.z{first}" in names for first in ("01", "001", "02")):
        return f"spanned:{lower[:-4]}", _LAST, True
    return None


_LAST = 1 << 20


def _gap(parts: Sequence[tuple[int, str, int]], *, spanned: bool) -> str:
    numbers = [number for number, *_ in parts]
    if spanned and numbers[-1] != _LAST:
        return "the last part, .zip, is missing"
    body = numbers[:-1] if spanned else numbers
    first = 1 if spanned else min(body[0], 1)
    absent = next((want for want, have in enumerate(body, first) if want != have), None)
    return "" if absent is None else f"part {absent} is missing"


def open_found(root: RawRoot, path: str, parts: Sequence[tuple[str, int]]) -> BinaryIO:
    """A seekable stream of a file, or of its parts joined."""
    if not parts:
        return root.open(path)
    return cast("BinaryIO", io.BufferedReader(Joined(root, parts), 1 << 18))


class Joined(io.RawIOBase):
    """Files read as one. Attribute `starts`: where each begins."""

    def __init__(self, root: RawRoot, parts: Sequence[tuple[str, int]]) -> None:
        self._root = root
        self._paths = [path for path, _ in parts]
        ends = list(accumulate(size for _, size in parts))
        self.starts = [0, *ends[:-1]]
        self._size = ends[-1]
        self._open: dict[int, BinaryIO] = {}
        self._at = 0
        self._overlay: tuple[int, bytes] = (0, b"")

    def overlay(self, offset: int, data: bytes) -> None:
        """Show these bytes instead of those that lie there."""
        self._overlay = (offset, data)

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: object) -> int:
        """Read from the part that lies here."""
        view = memoryview(buffer)  # type: ignore[arg-type]  # the io protocol types it as a bare object
        if self._at >= self._size:
            return 0
        which = bisect.bisect_right(self.starts, self._at) - 1
        if which not in self._open:
            self._open[which] = self._root.open(self._paths[which])
        stream = self._open[which]
        stream.seek(self._at - self.starts[which])
        data = bytearray(stream.read(min(len(view), self._size - self._at)))
        first, patch = self._overlay
        for index in range(max(first, self._at), min(first + len(patch), self._at + len(data))):
            data[index - self._at] = patch[index - first]
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Close the parts."""
        for stream in self._open.values():
            stream.close()
        self._open.clear()
        super().close()


class Window(io.RawIOBase):
    """`size` bytes of a stream from `offset` on, as a file of its own; closes the stream with itself."""

    def __init__(self, stream: BinaryIO, offset: int, size: int) -> None:
        self._stream = stream
        self._offset = offset
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: object) -> int:
        """Read inside the window."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        self._stream.seek(self._offset + self._at)
        data = self._stream.read(max(0, min(len(view), self._size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Close the stream below."""
        self._stream.close()
        super().close()


def open_zip(stream: BinaryIO) -> zipfile.ZipFile:
    """A zip directory; that of a spanned archive is rebased to the joined stream.

    Raises:
        BadZipFile: It is none.
    """
    joined = stream.raw if isinstance(stream, io.BufferedReader) else None
    spans = _directory_offset(joined, stream) if isinstance(joined, Joined) else None
    archive = zipfile.ZipFile(stream)
    if isinstance(joined, Joined) and spans is not None:
        shift = archive.start_dir - spans
        for info in archive.infolist():
            if info.volume >= len(joined.starts):
                raise zipfile.BadZipFile("a part is missing")
            info.header_offset += joined.starts[info.volume] - shift
            if hasattr(info, "_end_offset"):
                setattr(info, "_end_offset", None)  # noqa: B010  # newer Pythons computed it from the offsets above
    return archive


def _directory_offset(joined: Joined, stream: BinaryIO) -> int | None:
    """What the end record of a spanned zip says where its directory begins, in its own part; None if not spanned.

    A spanned zip64's locator is shown as that of a zip in one part, which is all that `zipfile` reads.
    """
    size = stream.seek(0, io.SEEK_END)
    tail_start = stream.seek(max(0, size - 65_557))
    tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        return None
    disk, _, _, _, _, offset, _ = struct.unpack("<HHHHLLH", tail[at + 4 : at + 22])
    if at >= 76 and tail[at - 20 : at - 16] == b"PK\x06\x07":
        disk, zip64_offset, _ = struct.unpack("<LQL", tail[at - 16 : at])
        offset = struct.unpack("<Q", tail[at - 28 : at - 20])[0]
        joined.overlay(tail_start + at - 16, struct.pack("<LQL", 0, zip64_offset, 1))
    stream.seek(0)
    return int(offset) if disk else None


def data_offset(stream: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin."""
    stream.seek(info.header_offset)
    header = stream.read(30)
    if header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile("no local header")
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    return int(info.header_offset + 30 + name_bytes + extra_bytes)


def is_bomb(size: int, packed: float, limits: LimitSettings) -> bool:
    """Whether so many bytes may not come out of so few."""
    return size > limits.max_file_bytes or (size > FREE_BYTES and size > packed * limits.max_ratio)


class Guarded(io.RawIOBase):
    """A decompressing stream that stops when it has grown out of all proportion to the bytes it came from."""

    def __init__(self, stream: io.BufferedIOBase, packed: float, limits: LimitSettings) -> None:
        self._stream = stream
        self._most = max(FREE_BYTES, int(packed * limits.max_ratio))
        self._count = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: object) -> int:
        """Unpack some more."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._stream.read1(len(view))  # what comes before a break is still given
        view[: len(data)] = data
        self._count += len(data)
        if self._count > self._most:
            raise RejectError("decompression_bomb", f"more than {self._most} bytes")
        return len(data)


def unpacked(stream: BinaryIO, name: str, packed: float, limits: LimitSettings) -> BinaryIO:
    """The tar inside a compressed tar of this name."""
    lower = name.lower()
    opener: Callable[[BinaryIO], object] = gzip.open
    if lower.endswith(("bz2", "tbz2")):
        opener = bz2.open
    elif lower.endswith(("xz", "txz")):
        opener = lzma.open
    inner = cast("io.BufferedIOBase", opener(stream))
    return cast("BinaryIO", io.BufferedReader(Guarded(inner, packed, limits), 1 << 18))


class Limited(io.RawIOBase):
    """The next `size` bytes of a stream."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._left = size

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, all that are left without it."""
        data = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


class Shared(io.BufferedReader):
    """A view of a spooled file: closing it leaves the file open for the next reader."""

    def __init__(self, spooled: BinaryIO) -> None:
        spooled.seek(0)
        super().__init__(cast("io.RawIOBase", spooled))

    def close(self) -> None:
        """Let the file go, open."""
        if not self.closed:
            self.detach()


def spool(stream: object, packed: float, limits: LimitSettings) -> BinaryIO:
    """Unpack a member into memory, or into an unnamed temporary file when it is large."""
    source = cast("BinaryIO", stream)
    most = min(limits.max_file_bytes, max(FREE_BYTES, int(packed * limits.max_ratio)))
    spooled = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115  # the caller closes it
    count = 0
    try:
        while chunk := source.read(1 << 20):
            count += len(chunk)
            if count > most:
                raise RejectError("decompression_bomb", f"more than {most} bytes")
            spooled.write(chunk)
    except BaseException:
        spooled.close()
        raise
    spooled.seek(0)
    return cast("BinaryIO", spooled)
