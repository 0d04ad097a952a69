"""Members of zip, tar, compressed tar and gzip files, read in place.

Random access where the format has it (zip, plain tar); one forward pass where it has not (compressed tar). Names that
climb out of the archive, encrypted members, links and decompression bombs are items with a reason, not errors.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

from ingest.raw import RawFile, RawItem, RawRoot, RejectError
from ingest.settings import LimitSettings

SPOOL_BYTES = 64 << 20
_STREAM_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, NotImplementedError)
_FREE_BYTES = 1 << 20


def archive_kind(path: str) -> str:
    """`zip`, `tar`, `stream` (compressed tar), `gzip`, or empty for a plain file."""
    name = path.lower()
    if name.endswith(_STREAM_TARS):
        return "stream"
    if name.endswith(".gz"):
        return "" if name.endswith(".nii.gz") else "gzip"
    return {"zip": "zip", "tar": "tar"}.get(name.rpartition(".")[2], "")


def members(root: RawRoot, path: str, size: int, limits: LimitSettings) -> Iterator[RawItem]:
    """The files inside one archive.

    Zip and plain tar: sorted by name; compressed tar: in their order, since it is read in one pass.
    """
    kind = archive_kind(path)
    if kind == "gzip":
        yield RawItem(path=path, member=path.rpartition("/")[2][:-3], kind="gzip", size=size)
        return
    found: list[RawItem] = []
    lister = _zip_members if kind == "zip" else _tar_members
    try:
        found.extend(lister(root, path, size, limits))  # what was found before a break is kept
    except RejectError as error:
        found.append(RawItem(path=path, kind="reject", detail=f"{error.reason}:{error.detail}"))
    except _BROKEN as error:
        found.append(RawItem(path=path, kind="reject", detail=f"unreadable_archive:{type(error).__name__}"))
    yield from found if kind == "stream" else sorted(found, key=lambda item: item.member)


def _zip_members(root: RawRoot, path: str, _size: int, limits: LimitSettings) -> Iterator[RawItem]:
    with root.open(path) as stream, zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            if info.is_dir() or info.filename.startswith("__MACOSX/"):
                continue
            detail = _objection(info.filename)
            if info.flag_bits & 1:
                detail = "encrypted"
            elif _is_bomb(info.file_size, info.compress_size, limits):
                detail = "decompression_bomb"
            yield RawItem(
                path=path,
                member=info.filename,
                kind="reject" if detail else "zip",
                size=info.file_size,
                check=info.CRC,
                detail=detail,
            )


def _tar_members(root: RawRoot, path: str, size: int, limits: LimitSettings) -> Iterator[RawItem]:
    plain = archive_kind(path) == "tar"
    with root.open(path) as stream:
        source = stream if plain else _unpacked(stream, path, size, limits)
        with tarfile.open(fileobj=source, mode="r:" if plain else "r|") as archive:
            for position, info in enumerate(archive):
                if info.isdir():
                    continue
                detail = _objection(info.name) if info.isreg() else "link"
                if info.size > limits.max_file_bytes:
                    detail = "decompression_bomb"
                yield RawItem(
                    path=path,
                    member=info.name,
                    kind="reject" if detail else "tar" if plain else "stream",
                    size=info.size,
                    offset=info.offset_data if plain else position,
                    detail=detail,
                )


def _objection(name: str) -> str:
    parts = name.replace("\\", "/").split("/")
    return "path_traversal" if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] else ""


def _is_bomb(size: int, packed: int, limits: LimitSettings) -> bool:
    return size > limits.max_file_bytes or (size > _FREE_BYTES and size > packed * limits.max_ratio)


class _Guarded(io.RawIOBase):
    """A decompressing stream that stops when it has grown out of all proportion to the bytes it came from."""

    def __init__(self, stream: io.BufferedIOBase, packed: int, limits: LimitSettings) -> None:
        self._stream = stream
        self._most = max(_FREE_BYTES, int(packed * limits.max_ratio))
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]  # the io protocol types it as a bare object
        data = self._stream.read1(len(view))  # what comes before a break is still given
        view[: len(data)] = data
        self._count += len(data)
        if self._count > self._most:
            raise RejectError("decompression_bomb", f"more than {self._most} bytes")
        return len(data)


def _unpacked(stream: BinaryIO, path: str, packed: int, limits: LimitSettings) -> BinaryIO:
    name = path.lower()
    opener: Callable[[BinaryIO], object] = gzip.open
    if name.endswith(("bz2", "tbz2")):
        opener = bz2.open
    elif name.endswith(("xz", "txz")):
        opener = lzma.open
    inner = cast("io.BufferedIOBase", opener(stream))
    return cast("BinaryIO", io.BufferedReader(_Guarded(inner, packed, limits), 1 << 18))


def open_items(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Iterator[tuple[RawItem, RawFile]]:
    """Each item with its file, in order; neighbours in one archive share one open handle.

    A file is good until the next one is asked for. What cannot be opened gives a file whose `open` raises
    `RejectError`.
    """
    start = 0
    while start < len(items):
        first = items[start]
        end = start + 1
        while end < len(items) and (items[end].path, items[end].kind) == (first.path, first.kind):
            end += 1
        yield from _OPENERS[first.kind](root, items[start:end], limits)
        start = end


def _open_plain(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Iterator[tuple[RawItem, RawFile]]:
    for item in items:
        folder = item.path.rpartition("/")[0]
        yield (
            item,
            _file(
                item,
                lambda path=item.path: root.open(path),  # type: ignore[misc]  # mypy cannot infer default arguments
                beside=lambda name, folder=folder: root.open(f"{folder}/{name}" if folder else name),  # type: ignore[misc]
                limits=limits,
            ),
        )


def _open_zip(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Iterator[tuple[RawItem, RawFile]]:
    try:
        stream = root.open(items[0].path)
        archive = zipfile.ZipFile(stream)
    except _BROKEN as error:
        for item in items:
            yield item, _failing(item, "unreadable_archive", type(error).__name__)
        return
    with stream, archive:

        def unpack(name: str) -> BinaryIO:
            info = archive.getinfo(name)
            with archive.open(info) as member:
                return _spool(cast("BinaryIO", member), info.compress_size, limits)

        for item in items:
            folder = item.member.rpartition("/")[0]
            yield (
                item,
                _file(
                    item,
                    lambda name=item.member: unpack(name),  # type: ignore[misc]
                    beside=lambda name, folder=folder: unpack(f"{folder}/{name}" if folder else name),  # type: ignore[misc]
                    limits=limits,
                ),
            )


def _open_tar(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Iterator[tuple[RawItem, RawFile]]:
    with root.open(items[0].path) as stream:
        for item in items:

            def unpack(item: RawItem = item) -> BinaryIO:
                stream.seek(item.offset)
                return _spool(_Slice(stream, item.size), item.size, limits)

            yield item, _file(item, unpack, limits=limits)


def _open_stream(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Iterator[tuple[RawItem, RawFile]]:
    wanted = {item.offset: item for item in items}
    path = items[0].path
    try:
        with root.open(path) as stream:
            source = _unpacked(stream, path, root.size(path), limits)
            with tarfile.open(fileobj=source, mode="r|") as archive:
                for position, info in enumerate(archive):
                    item = wanted.get(position)
                    member = archive.extractfile(info) if item else None
                    if item is None or member is None:
                        continue
                    with _spool(cast("BinaryIO", member), info.size, limits) as spooled:
                        del wanted[position]
                        yield item, _file(item, lambda spooled=spooled: _Shared(spooled), limits=limits)  # type: ignore[misc]
    except RejectError as error:
        reason, detail = error.reason, error.detail
    except _BROKEN as error:
        reason, detail = "unreadable_archive", type(error).__name__
    else:
        reason, detail = "unreadable_archive", "member is gone"
    for item in wanted.values():
        yield item, _failing(item, reason, detail)


def _open_gzip(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Iterator[tuple[RawItem, RawFile]]:
    for item in items:

        def unpack(item: RawItem = item) -> BinaryIO:
            with root.open(item.path) as stream, gzip.open(stream) as member:
                return _spool(cast("BinaryIO", member), item.size, limits)

        yield item, _file(item, unpack, limits=limits)


def _open_rejects(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Iterator[tuple[RawItem, RawFile]]:
    del root, limits
    for item in items:
        reason, _, detail = item.detail.partition(":")
        yield item, _failing(item, reason, detail)


def _open_url(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Iterator[tuple[RawItem, RawFile]]:
    """Files anywhere, named by a list."""
    import fsspec

    del root
    for item in items:

        def fetch(item: RawItem = item) -> BinaryIO:
            try:
                with fsspec.open(item.path, "rb") as stream:
                    return _spool(stream, limits.max_file_bytes, limits)
            except (ImportError, ValueError, KeyError) as error:
                raise RejectError("unreadable", type(error).__name__) from error

        yield item, _file(item, fetch, limits=limits)


_OPENERS = {
    "url": _open_url,
    "file": _open_plain,
    "zip": _open_zip,
    "tar": _open_tar,
    "stream": _open_stream,
    "gzip": _open_gzip,
    "reject": _open_rejects,
}


class _Slice(io.RawIOBase):
    """The next `size` bytes of a stream."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._left = size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


class _Shared(io.BufferedReader):
    """A view of a spooled file: closing it leaves the file open for the next reader."""

    def __init__(self, spooled: BinaryIO) -> None:
        spooled.seek(0)
        super().__init__(cast("io.RawIOBase", spooled))

    def close(self) -> None:
        if not self.closed:
            self.detach()


def _spool(stream: object, packed: int, limits: LimitSettings) -> BinaryIO:
    """Unpack a member into memory, or into an unnamed temporary file when it is large."""
    source = cast("BinaryIO", stream)
    most = min(limits.max_file_bytes, max(_FREE_BYTES, int(packed * limits.max_ratio)))
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


def _file(
    item: RawItem,
    opener: Callable[[], BinaryIO],
    *,
    limits: LimitSettings,
    beside: Callable[[str], BinaryIO] | None = None,
) -> RawFile:
    def checked() -> BinaryIO:
        if item.size == 0 and item.kind not in ("gzip", "url"):
            raise RejectError("empty_file")
        if item.size > limits.max_file_bytes:
            raise RejectError("too_large", f"more than {limits.max_file_bytes} bytes")
        try:
            return opener()
        except _BROKEN as error:
            raise RejectError("unreadable", type(error).__name__) from error

    name = (item.member or item.path).rpartition("/")[2].lower()
    if item.kind in ("zip", "tar", "stream") and archive_kind(name) == "gzip":
        return RawFile(path=item.raw_path, name=name[:-3], size=item.size, opener=_gunzip(checked, item, limits))
    return RawFile(path=item.raw_path, name=name, size=item.size, opener=checked, beside=beside)


def _gunzip(opener: Callable[[], BinaryIO], item: RawItem, limits: LimitSettings) -> Callable[[], BinaryIO]:
    """Members of archives that are gzipped themselves."""

    def unpack() -> BinaryIO:
        try:
            with opener() as packed, gzip.open(packed) as stream:
                return _spool(stream, item.size, limits)
        except _BROKEN as error:
            raise RejectError("unreadable", type(error).__name__) from error

    return unpack


def _failing(item: RawItem, reason: str, detail: str) -> RawFile:
    def fail() -> BinaryIO:
        raise RejectError(reason, detail)

    name = (item.member or item.path).rpartition("/")[2].lower()
    return RawFile(path=item.raw_path, name=name, size=item.size, opener=fail)
