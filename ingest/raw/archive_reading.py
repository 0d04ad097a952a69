"""Members of zip, tar, compressed tar and gzip files, read in place; split ones as if they were whole.

Random access where the format has it (zip, plain tar); one forward pass where it has not (compressed tar). An archive
inside an archive is read once more the same way: in place where it lies stored, else unpacked into memory (into an
unnamed temporary file when large) while its members are read.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from itertools import groupby
from typing import BinaryIO

from ingest.raw.archive import BROKEN, Container, archive_kind, in_stream, in_tar, in_zip, top
from ingest.raw.items import RawFile, RawItem, RawRoot, RejectError
from ingest.raw.split_archive import open_zip
from ingest.raw.streams import Limited, Shared, spool, unpacked
from ingest.settings import LimitSettings

Opened = Iterator[tuple[RawItem, RawFile]]


def open_items(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Iterator[tuple[RawItem, RawFile]]:
    """Each item with its file, in order; neighbours in one archive share one open handle.

    A file is good until the next one is asked for. What cannot be opened gives a file whose `open` raises
    `RejectError`.
    """
    for (_, way), run in groupby(items, key=lambda item: (item.path, _way(item))):
        if way == "archive":
            yield from _open_members(root, list(run), limits)
        else:
            yield from _OPENERS[way](root, list(run), limits)


def _way(item: RawItem) -> str:
    return "archive" if item.member and item.kind != "gzip" else item.kind


def _open_members(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Opened:
    """Members of one archive; those that are rejects take their turn without another pass."""
    first = items[0]
    size = sum(n for _, n in first.parts) if first.parts else _size(root, first.path)
    sound = [item for item in items if item.kind != "reject"]
    opened = _open_archive(top(root, first, size), sound, limits) if sound else iter(())
    with closing(opened) if isinstance(opened, Generator) else nullcontext():
        for item in items:
            yield from _open_rejects(root, [item], limits) if item.kind == "reject" else (next(opened),)


def _size(root: RawRoot, path: str) -> int:
    try:
        return root.size(path)
    except OSError:
        return 0


def _open_archive(container: Container, items: list[RawItem], limits: LimitSettings) -> Opened:
    """Members of an archive, whether `items` name them or what they hold."""
    opener = {"zip": _open_zip, "tar": _open_tar, "stream": _open_stream}[container.kind]
    yield from opener(container, items, limits)


def _runs(container: Container, items: Iterable[RawItem]) -> Iterator[tuple[RawItem | None, list[RawItem]]]:
    """Neighbours by the archive inside `container` that holds them: None for its own members."""
    for holder, run in groupby(items, key=lambda item: None if container.inner else item.holder):
        yield holder, list(run)


def _open_zip(container: Container, items: list[RawItem], limits: LimitSettings) -> Opened:
    try:
        stream = container.open()
        archive = open_zip(stream)
    except (*BROKEN, RejectError) as error:
        yield from _all_failing(items, error)
        return
    with stream, archive:

        def unpack(name: str) -> BinaryIO:
            info = archive.getinfo(name)
            with archive.open(info) as member:
                return spool(member, info.compress_size / container.expansion, limits)

        def peek(name: str, num_bytes: int) -> bytes:
            with archive.open(name) as member:
                return member.read(num_bytes)

        for holder, run in _runs(container, items):
            if holder is not None:
                name = holder.member
                yield from _open_inner(
                    run,
                    limits,
                    lambda name=name: in_zip(container, stream, archive, archive.getinfo(name), limits),  # type: ignore[misc]
                )
                continue
            for item in run:
                folder = item.member.rpartition("/")[0]
                yield (
                    item,
                    _file(
                        item,
                        lambda name=item.member: unpack(name),  # type: ignore[misc]
                        beside=lambda name, folder=folder: unpack(f"{folder}/{name}" if folder else name),  # type: ignore[misc]
                        peek=lambda size, name=item.member: peek(name, size),  # type: ignore[misc]
                        limits=limits,
                    ),
                )


def _open_inner(items: list[RawItem], limits: LimitSettings, inside: Callable[[], Container]) -> Opened:
    """Members of an archive inside an archive."""
    try:
        container = inside()
    except (*BROKEN, RejectError) as error:
        yield from _all_failing(items, error)
        return
    yield from _open_archive(container, items, limits)


def _open_tar(container: Container, items: list[RawItem], limits: LimitSettings) -> Opened:
    try:
        stream = container.open()
    except (*BROKEN, RejectError) as error:
        yield from _all_failing(items, error)
        return
    with stream:
        for holder, run in _runs(container, items):
            if holder is not None:
                yield from _open_inner(run, limits, lambda holder=holder: in_tar(container, stream, holder))  # type: ignore[misc]
                continue
            for item in run:

                def unpack(item: RawItem = item) -> BinaryIO:
                    stream.seek(item.offset)
                    return spool(Limited(stream, item.size), item.size, limits)

                def peek(num_bytes: int, item: RawItem = item) -> bytes:
                    stream.seek(item.offset)
                    return stream.read(min(num_bytes, item.size))

                yield item, _file(item, unpack, peek=peek, limits=limits)


def _open_stream(container: Container, items: list[RawItem], limits: LimitSettings) -> Opened:
    wanted: dict[int, list[RawItem]] = {}
    for item in items:
        wanted.setdefault((item if container.inner else item.holder or item).offset, []).append(item)
    error: Exception = RejectError("unreadable_archive", "member is gone")
    try:
        with container.open() as stream:
            source = unpacked(stream, container.name, container.packed, limits)
            with tarfile.open(fileobj=source, mode="r|") as archive:
                for position, info in enumerate(archive):
                    member = archive.extractfile(info) if position in wanted else None
                    if member is None:
                        continue
                    with spool(member, info.size, limits) as spooled:
                        yield from _streamed(container, spooled, wanted.pop(position), limits)
                    if not wanted:
                        return
    except (*BROKEN, RejectError) as caught:
        error = caught
    yield from _all_failing([item for run in wanted.values() for item in run], error)


def _streamed(container: Container, spooled: BinaryIO, items: list[RawItem], limits: LimitSettings) -> Opened:
    """One member of a compressed tar, or what it holds."""
    holder = None if container.inner else items[0].holder
    if holder is None:
        for item in items:
            yield item, _file(item, lambda: Shared(spooled), limits=limits)
        return
    inner = in_stream(container, holder, lambda: Shared(spooled))
    yield from _open_archive(inner, items, limits)


def _open_plain(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Opened:
    for item in items:
        folder = item.path.rpartition("/")[0]
        yield (
            item,
            _file(
                item,
                lambda path=item.path: root.open(path),  # type: ignore[misc]
                beside=lambda name, folder=folder: root.open(f"{folder}/{name}" if folder else name),  # type: ignore[misc]
                limits=limits,
            ),
        )


def _open_gzip(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Opened:
    for item in items:

        def unpack(item: RawItem = item) -> BinaryIO:
            with root.open(item.path) as stream, gzip.open(stream) as member:
                return spool(member, item.size, limits)

        yield item, _file(item, unpack, limits=limits)


def _open_rejects(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Opened:
    del root, limits
    for item in items:
        reason, _, detail = item.detail.partition(":")
        yield item, _failing(item, reason, detail)


def _open_url(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Opened:
    """Files anywhere, named by a list."""
    import fsspec

    del root
    for item in items:

        def fetch(item: RawItem = item) -> BinaryIO:
            try:
                with fsspec.open(item.path, "rb") as stream:
                    return spool(stream, limits.max_file_bytes, limits)
            except (ImportError, ValueError, KeyError) as error:
                raise RejectError("unreadable", type(error).__name__) from error

        yield item, _file(item, fetch, limits=limits)


_OPENERS = {"url": _open_url, "file": _open_plain, "gzip": _open_gzip, "reject": _open_rejects}


def _file(
    item: RawItem,
    opener: Callable[[], BinaryIO],
    *,
    limits: LimitSettings,
    beside: Callable[[str], BinaryIO] | None = None,
    peek: Callable[[int], bytes] | None = None,
) -> RawFile:
    def checked() -> BinaryIO:
        if item.size == 0 and item.kind not in ("gzip", "url"):
            raise RejectError("empty_file")
        if item.size > limits.max_file_bytes:
            raise RejectError("too_large", f"more than {limits.max_file_bytes} bytes")
        try:
            return opener()
        except BROKEN as error:
            raise RejectError("unreadable", type(error).__name__) from error

    name = (item.member or item.path).rpartition("/")[2].lower()
    if item.kind in ("zip", "tar", "stream") and archive_kind(name) == "gzip":
        return RawFile(path=item.raw_path, name=name[:-3], size=item.size, opener=_gunzip(checked, item, limits))
    return RawFile(path=item.raw_path, name=name, size=item.size, opener=checked, beside=beside, peek=peek)


def _gunzip(opener: Callable[[], BinaryIO], item: RawItem, limits: LimitSettings) -> Callable[[], BinaryIO]:
    """Members of archives that are gzipped themselves."""

    def unpack() -> BinaryIO:
        try:
            with opener() as packed, gzip.open(packed) as stream:
                return spool(stream, item.size, limits)
        except BROKEN as error:
            raise RejectError("unreadable", type(error).__name__) from error

    return unpack


def _all_failing(items: Iterable[RawItem], error: Exception) -> Opened:
    reason, detail = "unreadable_archive", type(error).__name__
    if isinstance(error, RejectError):
        reason, detail = error.reason, error.detail
    for item in items:
        yield item, _failing(item, reason, detail)


def _failing(item: RawItem, reason: str, detail: str) -> RawFile:
    def fail() -> BinaryIO:
        raise RejectError(reason, detail)

    name = (item.member or item.path).rpartition("/")[2].lower()
    return RawFile(path=item.raw_path, name=name, size=item.size, opener=fail)
