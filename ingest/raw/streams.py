"""The streams that archives are read through: parts joined, a window of a file, a file with holes, a spooled copy."""

from __future__ import annotations

import bisect
import io
import tempfile
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import BinaryIO, Final, cast

from ingest.raw.items import RejectError
from ingest.raw.packed import FREE_BYTES
from ingest.settings import LimitSettings

SPOOL_BYTES: Final = 64 << 20
_MOST_OPEN: Final = 16


class _Seekable(io.RawIOBase):
    """A readable stream of known size; it keeps its own position."""

    _size: int
    _at: int = 0

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


class Joined(_Seekable):
    """Files read as one.

    Args:
        opener: Opens a file by its path.
        parts: Paths and sizes of the files, in order.

    Attributes:
        starts: Where each begins.
    """

    def __init__(self, opener: Callable[[str], BinaryIO], parts: Sequence[tuple[str, int]]) -> None:
        self._opener = opener
        self._paths = [path for path, _ in parts]
        ends = list(accumulate(size for _, size in parts))
        self.starts = [0, *ends[:-1]]
        self._size = ends[-1]
        self._open: dict[int, BinaryIO] = {}
        self._overlay: tuple[int, bytes] = (0, b"")

    def overlay(self, offset: int, data: bytes) -> None:
        """Show these bytes instead of those that lie there."""
        self._overlay = (offset, data)

    def readinto(self, buffer: object) -> int:
        """Read from the part that lies here."""
        view = memoryview(buffer)  # type: ignore[arg-type]  # the io protocol types it as a bare object
        if self._at >= self._size:
            return 0
        which = bisect.bisect_right(self.starts, self._at) - 1
        stream = self._part(which)
        stream.seek(self._at - self.starts[which])
        data = bytearray(stream.read(min(len(view), self._size - self._at)))
        first, patch = self._overlay
        for index in range(max(first, self._at), min(first + len(patch), self._at + len(data))):
            data[index - self._at] = patch[index - first]
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _part(self, which: int) -> BinaryIO:
        """One part, open; of archives in hundreds of parts only a few are open at a time."""
        if which not in self._open:
            if len(self._open) >= _MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            self._open[which] = self._opener(self._paths[which])
        return self._open[which]

    def close(self) -> None:
        """Close the parts."""
        for stream in self._open.values():
            stream.close()
        self._open.clear()
        super().close()


class Window(_Seekable):
    """`size` bytes of a stream from `offset` on, as a file of its own; closes the stream with itself."""

    def __init__(self, stream: BinaryIO, offset: int, size: int) -> None:
        self._stream = stream
        self._offset = offset
        self._size = size

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


class Sparse(_Seekable):
    """A member of a tar that was stored without its runs of zeros.

    Args:
        stream: The tar.
        offset: Where the stored bytes begin.
        size: Bytes of the whole file.
        pieces: Place in the file and length of each stored piece, in order and apart.
    """

    def __init__(self, stream: BinaryIO, offset: int, size: int, pieces: Sequence[tuple[int, int]]) -> None:
        self._stream = stream
        self._size = size
        self._starts = [start for start, _ in pieces]
        lengths = [length for _, length in pieces]
        before = [0, *accumulate(lengths)]
        self._places = [(length, offset + stored) for length, stored in zip(lengths, before, strict=False)]

    def readinto(self, buffer: object) -> int:
        """Read stored bytes, or zeros up to where the next ones are."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        which = bisect.bisect_right(self._starts, self._at) - 1
        wanted = max(0, min(len(view), self._size - self._at))
        if which >= 0 and self._at < self._starts[which] + self._places[which][0]:
            length, stored = self._places[which]
            inside = self._at - self._starts[which]
            self._stream.seek(stored + inside)
            data = self._stream.read(min(wanted, length - inside))
        else:
            end = self._starts[which + 1] if which + 1 < len(self._starts) else self._size
            data = bytes(max(0, min(wanted, end - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def sound_pieces(pieces: Sequence[tuple[int, int]], size: int) -> bool:
    """Whether the pieces of a sparse member lie in order, apart from each other and inside the file."""
    end = 0
    for start, length in pieces:
        if start < end or length < 0 or start + length > size:
            return False
        end = start + length
    return True


def is_bomb(size: int, packed: float, limits: LimitSettings, *, whole: bool = False) -> bool:
    """Whether so many bytes may not come out of so few; a `whole` archive may be larger than any file."""
    return (size > limits.max_file_bytes and not whole) or (size > FREE_BYTES and size > packed * limits.max_ratio)


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
