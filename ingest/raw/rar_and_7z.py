"""RAR and 7-Zip archives by way of the system's libarchive, in one forward pass.

Only these formats are switched on. Where libarchive is not installed, `available` is False and such archives are items
with a reason that says what to install.
"""

from __future__ import annotations

import ctypes
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

from ingest.raw.items import RejectError

__all__ = ["INSTALL", "Member", "available", "members_of"]

INSTALL: Final = "RAR and 7-Zip need libarchive (Debian: libarchive13); or unpack it beside itself first"

_FORMATS: Final = ("rar", "rar5", "7zip")
_BLOCK_BYTES: Final = 1 << 18
_EOF: Final = 1


def available() -> bool:
    """Whether libarchive and its Python binding are installed."""
    return _binding() is not None


def _binding() -> Any:
    try:
        from libarchive import ffi
    except (ImportError, OSError, TypeError, AttributeError):  # what the binding raises where the library is missing
        return None
    return ffi


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member, good until the next one is asked for.

    Attributes:
        name: Its path, `/` between folders.
        size: Bytes, as the archive says.
        kind: `file`, `folder`, `link`, or `other` (devices and what else has no bytes).
        encrypted: Whether it cannot be read without a password.
        open: Gives its bytes, once, as a stream that cannot seek.
    """

    name: str
    size: int
    kind: str
    encrypted: bool
    open: Callable[[], BinaryIO]


@contextmanager
def members_of(stream: BinaryIO) -> Iterator[Iterator[Member]]:
    """The members of an archive, in its order.

    Args:
        stream: The archive, seekable; volumes joined.

    Raises:
        RejectError: It is broken (`unreadable_archive`), or its directory is `encrypted`.
        OSError: The stream cannot be read; its own error, as it was raised.
    """
    ffi = _binding()
    if ffi is None:
        raise RejectError("unsupported", INSTALL)
    source = _Source(ffi, stream)
    archive = ffi.read_new()
    try:
        for name in _FORMATS:
            ffi.get_read_format_function(name)(archive)
        ffi.read_set_seek_callback(archive, source.seek)
        source.guard(lambda: ffi.read_open(archive, None, ffi.NO_OPEN_CB, source.read, ffi.NO_CLOSE_CB))
        yield _entries(ffi, archive, source)
    finally:
        ffi.read_free(archive)


class _Source:
    """The callbacks through which libarchive reads, and the error that one of them met."""

    def __init__(self, ffi: Any, stream: BinaryIO) -> None:
        self._ffi = ffi
        self._stream = stream
        self._buffer = ctypes.create_string_buffer(_BLOCK_BYTES)
        self._error: BaseException | None = None
        self.read = ffi.READ_CALLBACK(self._read)
        self.seek = ffi.SEEK_CALLBACK(self._seek)

    def guard(self, call: Callable[[], Any]) -> Any:
        """Call libarchive; its errors and those of the callbacks are raised as ours."""
        from libarchive.exception import ArchiveError

        try:
            return call()
        except ArchiveError as error:
            if self._error is not None:
                raise self._error from error
            said = str(error.msg or "").lower()
            locked = "encrypt" in said or "passphrase" in said or "password" in said
            raise RejectError("encrypted" if locked else "unreadable_archive", _reason(said)) from error

    def _read(self, _archive: Any, _context: Any, target: Any) -> int:
        try:
            data = self._stream.read(_BLOCK_BYTES)
        except BaseException as error:  # noqa: BLE001  # an exception must not cross the C code
            self._error = error
            return -1
        ctypes.memmove(self._buffer, data, len(data))
        ctypes.cast(target, ctypes.POINTER(ctypes.c_void_p))[0] = ctypes.cast(self._buffer, ctypes.c_void_p).value
        return len(data)

    def _seek(self, _archive: Any, _context: Any, offset: int, whence: int) -> int:
        try:
            return self._stream.seek(offset, whence)
        except BaseException as error:  # noqa: BLE001
            self._error = error
            return -30


def _reason(said: str) -> str:
    """Libarchive's complaint in our words: its own may quote the file."""
    if "truncated" in said:
        return "cut off"
    if "solid" in said:
        return "a solid RAR archive of the old kind: unpack it beside itself first"
    if "unrecognized" in said:
        return "neither RAR nor 7-Zip"
    if "unsupported" in said or "not supported" in said:
        return "a compression that libarchive does not read"
    return ""


def _entries(ffi: Any, archive: Any, source: _Source) -> Iterator[Member]:
    library = ffi.libarchive
    entry = ffi.entry_new()
    kinds = {0: "file", 0o100000: "file", 0o040000: "folder", 0o120000: "link"}
    library.archive_entry_pathname_utf8.restype = ctypes.c_char_p
    library.archive_entry_pathname_utf8.argtypes = [ctypes.c_void_p]
    library.archive_entry_hardlink_utf8.restype = ctypes.c_char_p
    library.archive_entry_hardlink_utf8.argtypes = [ctypes.c_void_p]
    library.archive_entry_is_data_encrypted.argtypes = [ctypes.c_void_p]
    try:
        while source.guard(lambda: ffi.read_next_header2(archive, entry)) != _EOF:
            raw = library.archive_entry_pathname_utf8(entry) or ffi.entry_pathname(entry) or b""
            linked = library.archive_entry_hardlink_utf8(entry) is not None
            yield Member(
                name=raw.decode("utf-8", "surrogateescape").replace("\\", "/"),
                size=max(0, int(ffi.entry_size(entry))),
                kind="link" if linked else kinds.get(ffi.entry_filetype(entry), "other"),
                encrypted=bool(library.archive_entry_is_data_encrypted(entry)),
                open=lambda: cast("BinaryIO", io.BufferedReader(_Data(ffi, archive, source), _BLOCK_BYTES)),
            )
    finally:
        ffi.entry_free(entry)


class _Data(io.RawIOBase):
    """The bytes of the member that was reached last."""

    def __init__(self, ffi: Any, archive: Any, source: _Source) -> None:
        self._ffi = ffi
        self._archive = archive
        self._source = source

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: object) -> int:
        """Unpack some more."""
        view = memoryview(buffer)  # type: ignore[arg-type]  # the io protocol types it as a bare object
        place = (ctypes.c_char * len(view)).from_buffer(view)
        count = int(self._source.guard(lambda: self._ffi.read_data(self._archive, place, len(view))))
        if count < 0:  # a warning to libarchive: the bytes are there, and are not those that were packed
            raise RejectError("unreadable_archive", "a checksum is wrong")
        return count
