"""Unpacking gzip, bzip2, xz and zstd: member after member, checked, in pieces, within limits.

gzip is unpacked by ISA-L, in about half of the time that zlib takes.

What follows the last sound member and does not begin another one is left out, as `gzip -d` does: zeros of a tape,
bytes that an upload added. Data that are not packed at all, whatever their name says, are given as they are.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, Final, cast

from isal import isal_zlib

from ingest.raw.items import RejectError
from ingest.settings import LimitSettings

__all__ = ["Guarded", "inflate", "unpacked"]

FREE_BYTES: Final = 1 << 20
"""What may be unpacked of anything, however small it is packed."""

_CHUNK_BYTES: Final = 1 << 17
_PIECE_BYTES: Final = 1 << 20
_XZ_MEMORY_BYTES: Final = 512 << 20


def _gzip() -> Any:
    return isal_zlib.decompressobj(wbits=31)


def _xz() -> Any:
    return lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)


_FORMATS: Final[tuple[tuple[bytes, Callable[[], Any]], ...]] = (
    (b"\x1f\x8b\x08", _gzip),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", _xz),
    (b"\x5d\0\0", _xz),
)
_WRONG: Final = (cast("type[Exception]", isal_zlib.error), lzma.LZMAError)
"""What decompressors raise on data or checksums that are wrong; ISA-L's stub says that its error is no class."""
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"
_HEAD_BYTES: Final = 10


class Members(io.RawIOBase):
    """The content of a stream of packed members, one after the other.

    Args:
        stream: The packed bytes.
        head: Those that were read of it already.
        magic: What each member begins with.
        make: A new decompressor.
    """

    def __init__(self, stream: BinaryIO, head: bytes, magic: bytes, make: Callable[[], Any]) -> None:
        self._stream = stream
        self._rest = head
        self._magic = magic
        self._make = make
        self._member: Any = make()
        self._done = False

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: object) -> int:
        """Unpack some more.

        Raises:
            EOFError: The last member is cut off.
            OSError: The data or their checksum are wrong.
        """
        view = memoryview(buffer)  # type: ignore[arg-type]  # the io protocol types it as a bare object
        data = next(self.pieces(len(view)), b"")
        view[: len(data)] = data
        return len(data)

    def pieces(self, size: int) -> Iterator[bytes]:
        """What comes out, up to `size` bytes at a time; raises as `readinto` does."""
        while not self._done:
            if data := self._step(size):
                yield data

    def _step(self, size: int) -> bytes:
        """Unpack up to `size` bytes, or move on to the next member."""
        if self._member is None:
            self._done = not self._next()
            return b""
        if not self._rest and getattr(self._member, "needs_input", True):
            self._rest = self._stream.read(_CHUNK_BYTES)
            if not self._rest:
                raise EOFError("the packed data end before their end mark")
        try:
            data: bytes = self._member.decompress(self._rest, size)
        except _WRONG as error:
            raise gzip.BadGzipFile(str(error)) from error
        if self._member.eof:
            self._rest, self._member = self._member.unused_data, None
        else:
            self._rest = getattr(self._member, "unconsumed_tail", b"")
        return data

    def _next(self) -> bool:
        """Begin the next member, if there is one."""
        self._rest = self._rest.lstrip(b"\0")
        while len(self._rest) < _HEAD_BYTES:
            more = self._stream.read(_CHUNK_BYTES)
            if not more:
                break
            self._rest = (self._rest + more).lstrip(b"\0")
        if not self._rest.startswith(self._magic):
            return False
        self._member = self._make()
        return True


class Prefixed(io.RawIOBase):
    """Bytes that were read already, then the rest of their stream."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: object) -> int:
        """Read the head, then the stream."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._head[: len(view)] or self._stream.read(len(view))
        self._head = self._head[len(view) :]
        view[: len(data)] = data
        return len(data)


class Guarded(io.RawIOBase):
    """A decompressing stream that stops when it has grown out of all proportion to the bytes it came from."""

    def __init__(self, stream: BinaryIO, packed: float, limits: LimitSettings) -> None:
        self._stream = stream
        self._most = _most_unpacked(packed, limits)
        self._count = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: object) -> int:
        """Unpack some more.

        Raises:
            RejectError: It has grown too large.
        """
        count: int = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        self._count += count
        if self._count > self._most:
            raise RejectError("decompression_bomb", f"more than {self._most} bytes")
        return count


def _most_unpacked(packed: float, limits: LimitSettings) -> int:
    """Bytes that may come out of so many packed ones."""
    return max(FREE_BYTES, int(packed * limits.max_ratio))


def _format_of(head: bytes) -> tuple[bytes, Callable[[], Any]] | None:
    """Magic and decompressor of what begins so."""
    return next((entry for entry in _FORMATS if head.startswith(entry[0])), None)


def unpacked(stream: BinaryIO, packed: float, limits: LimitSettings) -> BinaryIO:
    """The content of a packed stream, told from its first bytes; of one that is not packed, the stream itself.

    Args:
        stream: The packed bytes; need not be seekable.
        packed: How many bytes on disk they come from.
        limits: How much may come out of them.
    """
    head = stream.read(_HEAD_BYTES)
    inner: object
    found = _format_of(head)
    if found is not None:
        inner = Members(stream, head, *found)
    elif head.startswith(_ZSTD) or head[1:4] == _ZSTD_SKIPPABLE:
        inner = _zstd(Prefixed(head, stream))
    else:
        return cast("BinaryIO", io.BufferedReader(Prefixed(head, stream), _CHUNK_BYTES))
    return cast("BinaryIO", io.BufferedReader(Guarded(cast("BinaryIO", inner), packed, limits), 1 << 18))


class _zstd(io.RawIOBase):  # noqa: N801  # stands beside the functions that make decompressors
    """Zstandard by way of Arrow, which limits the window to 128 MiB."""

    def __init__(self, stream: io.RawIOBase) -> None:
        import pyarrow as pa

        self._stream = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: object) -> int:
        """Unpack some more."""
        try:
            return int(self._stream.readinto(buffer))  # Arrow's `read` never frees its buffer when the data are broken
        except MemoryError:  # sound data need a window of 128 MiB at most
            raise RejectError("over_budget", "zstd data that ask for absurdly much memory") from None


def inflate(data: bytes, limits: LimitSettings) -> bytes:
    """All that is packed in `data`.

    Raises:
        RejectError: It is broken, or grows too large.
    """
    parts: list[bytes] = []
    size, most = 0, min(limits.max_file_bytes, limits.decoded_bytes // 2)  # joining the parts holds them twice
    bomb = _most_unpacked(len(data), limits)
    try:
        for part in _pieces(data, limits):
            size += len(part)
            if size > bomb:
                raise RejectError("decompression_bomb", f"more than {bomb} bytes")
            if size > most:
                raise RejectError("over_budget", f"more than {most} bytes")
            parts.append(part)
    except (OSError, EOFError) as error:
        raise RejectError("unreadable", type(error).__name__) from error
    return b"".join(parts)


def _pieces(data: bytes, limits: LimitSettings) -> Iterator[bytes]:
    """What comes out of packed data, without the copies that a file object makes of most formats."""
    found = _format_of(data)
    if found is not None:
        return Members(io.BytesIO(data), b"", *found).pieces(_PIECE_BYTES)
    stream = unpacked(cast("BinaryIO", io.BytesIO(data)), len(data), limits)
    return iter(partial(stream.read, _PIECE_BYTES), b"")
