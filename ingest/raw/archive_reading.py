"""Members of archives and packed files, read in place; split ones as if they were whole.

Random access where the format has it (zip, plain tar); one forward pass where it has not (compressed tar, RAR, 7-Zip).
An archive inside an archive is read once more the same way: in place where it lies stored, else unpacked into memory
(into an unnamed temporary file when large) while its members are read.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeVar, cast

from ingest.raw.archive import BROKEN, Container, in_stream, in_tar, in_zip, member_name, stored_member, top
from ingest.raw.faults import fault_of
from ingest.raw.items import RawFile, RawItem, RejectError
from ingest.raw.kept_zip import opened_zip
from ingest.raw.names import archive_kind, unpacked_name
from ingest.raw.packed import unpacked
from ingest.raw.rar_and_7z import members_of
from ingest.raw.root import RawRoot, open_regular
from ingest.raw.streams import Shared, spool
from ingest.settings import LimitSettings
from shards.errors import MachineError, UnavailableError

Opened = Iterator[tuple[RawItem, RawFile]]
T = TypeVar("T")


def open_items(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Iterator[tuple[RawItem, RawFile]]:
    """Each item with its file, in order; neighbours in one archive share one open handle.

    A file is good until the next one is asked for. What cannot be opened gives a file whose `open` raises
    `RejectError`; where the machine, the network or missing rights are to blame, `UnavailableError` or `MachineError`.
    """
    for (_, way), run in groupby(items, key=lambda item: (item.path, _way(item))):
        if way == "reject":
            yield from _open_rejects(run)
        elif way == "archive":
            yield from _open_members(root, list(run), limits)
        else:
            yield from _OPENERS[way](root, list(run), limits)


def _way(item: RawItem) -> str:
    if item.member and item.kind != "gzip":
        return "archive"
    return "reject" if item.kind in _CLOSED else item.kind


_CLOSED = ("reject", "unavailable", "ignored")


def _open_members(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Opened:
    """Members of one archive; those that are rejects take their turn without another pass."""
    closed = _open_rejects([item for item in items if item.kind in _CLOSED])
    sound = [item for item in items if item.kind not in _CLOSED]
    opened = _open_archive(_archive_of(root, sound[0]), sound, limits) if sound else iter(())
    with closing(opened) if isinstance(opened, Generator) else nullcontext():
        for item in items:
            yield next(closed if item.kind in _CLOSED else opened)


def _archive_of(root: RawRoot, item: RawItem) -> Container:
    return top(root.stored(item.path, item.parts), (item.holder or item).kind)


def _open_archive(container: Container, items: list[RawItem], limits: LimitSettings) -> Opened:
    """Members of an archive, whether `items` name them or what they hold."""
    opener = {"zip": _open_zip, "tar": _open_tar}.get(container.kind, _open_sequence)
    yield from opener(container, items, limits)


def _runs(container: Container, items: Iterable[RawItem]) -> Iterator[tuple[RawItem | None, list[RawItem]]]:
    """Neighbours by the archive inside `container` that holds them: None for its own members."""
    for holder, run in groupby(items, key=lambda item: None if container.inner else item.holder):
        yield holder, list(run)


def _open_zip(container: Container, items: list[RawItem], limits: LimitSettings) -> Opened:
    with ExitStack() as stack:
        try:
            stream, archive = stack.enter_context(opened_zip(container))
        except (*BROKEN, RejectError) as error:
            yield from _all_failing(items, error)
            return
        directory = _Directory(container, archive, limits)
        for holder, run in _runs(container, items):
            if holder is None:
                yield from ((item, directory.file(item)) for item in run)
                continue

            def inside(holder: RawItem = holder) -> Container:
                return in_zip(container, stream, archive, directory.info(holder), limits)

            yield from _open_inner(run, limits, inside)


class _Directory:
    """The members of an open zip, by their position in it and by name."""

    def __init__(self, container: Container, archive: zipfile.ZipFile, limits: LimitSettings) -> None:
        self._container = container
        self._archive = archive
        self._limits = limits
        self._infos = archive.infolist()

    def info(self, item: RawItem) -> zipfile.ZipInfo:
        """The entry of an item; `KeyError` where the archive has changed since it was listed."""
        position = item.offset if item.offset >= 0 else -1 - item.offset
        if position >= len(self._infos) or member_name(self._infos[position]) != item.member:
            raise KeyError("member is gone")
        return self._infos[position]

    def file(self, item: RawItem) -> RawFile:
        """A member as a raw file."""
        folder = item.member.rpartition("/")[0]

        def peek(num_bytes: int) -> bytes:
            with self._archive.open(self.info(item)) as member:
                return member.read(num_bytes)

        return _file(
            item,
            lambda: self._unpack(self.info(item)),
            beside=lambda name: self._unpack(self._by_name[f"{folder}/{name}" if folder else name]),
            peek=peek,
            limits=self._limits,
        )

    @cached_property
    def _by_name(self) -> dict[str, zipfile.ZipInfo]:
        return {member_name(info): info for info in self._infos}

    def _unpack(self, info: zipfile.ZipInfo) -> BinaryIO:
        with self._archive.open(info) as member:
            return spool(member, info.compress_size / self._container.expansion, self._limits)


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
                    return spool(stored_member(Shared(stream), item), item.size, limits)

                def peek(num_bytes: int, item: RawItem = item) -> bytes:
                    return stored_member(Shared(stream), item).read(num_bytes)

                yield item, _file(item, unpack, peek=peek, limits=limits)


def _open_sequence(container: Container, items: list[RawItem], limits: LimitSettings) -> Opened:
    """Members of what is read from its beginning on."""
    wanted: dict[int, list[RawItem]] = {}
    for item in items:
        wanted.setdefault((item if container.inner else item.holder or item).offset, []).append(item)
    error: Exception = RejectError("unreadable_archive", "member is gone")
    try:
        with container.open() as stream, _PASSES[container.kind](container, stream, limits) as members:
            for position, (size, opener) in enumerate(members):
                if position not in wanted:
                    continue
                run = wanted.pop(position)
                try:
                    spooled = spool(opener(), size, limits)
                except (*BROKEN, RejectError) as broken:  # the rest of the archive may be sound
                    yield from _all_failing(run, broken)
                    continue
                with spooled:
                    yield from _streamed(container, spooled, run, limits)
                if not wanted:
                    return
    except (*BROKEN, RejectError) as caught:
        error = caught
    yield from _all_failing([item for run in wanted.values() for item in run], error)


_Pass = Iterator[tuple[int, Callable[[], object]]]
"""Size and opener of one member after the other."""


@contextmanager
def _tar_pass(container: Container, stream: BinaryIO, limits: LimitSettings) -> Iterator[_Pass]:
    with tarfile.open(fileobj=unpacked(stream, container.packed, limits), mode="r|") as archive:
        yield ((info.size, lambda info=info: archive.extractfile(info)) for info in archive)  # type: ignore[misc]


@contextmanager
def _foreign_pass(container: Container, stream: BinaryIO, limits: LimitSettings) -> Iterator[_Pass]:
    del container, limits
    with members_of(stream) as found:
        yield ((member.size, member.open) for member in found)


_PASSES = {"stream": _tar_pass, "libarchive": _foreign_pass}


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
            with root.open(item.path) as stream:
                return spool(unpacked(stream, item.size, limits), item.size, limits)

        def peek(num_bytes: int, item: RawItem = item) -> bytes:
            with root.open(item.path) as stream:
                return unpacked(stream, item.size, limits).read(num_bytes)

        yield item, _file(item, unpack, peek=peek, limits=limits)


def _open_rejects(items: Iterable[RawItem]) -> Opened:
    for item in items:
        if item.kind == "unavailable":
            yield item, _failing(item, UnavailableError(item.detail, hint=_LATER))
        else:
            yield item, _failing(item, RejectError(*item.detail.partition(":")[::2]))


_LATER = "check the rights, the link or the server, then run it again"


def _open_url(root: RawRoot, items: list[RawItem], limits: LimitSettings) -> Opened:
    """Files anywhere, named by a list."""
    del root
    for item in items:

        def fetch(item: RawItem = item) -> BinaryIO:
            try:
                with _open_anywhere(item.path) as stream:
                    return spool(stream, limits.max_file_bytes, limits)
            except (ImportError, ValueError, KeyError) as error:
                raise RejectError("unreadable", type(error).__name__) from error

        yield item, _file(item, fetch, limits=limits)


def _open_anywhere(url: str) -> BinaryIO:
    """A stream of what a URL names."""
    if url.startswith("file://"):
        return open_regular(Path(url.removeprefix("file://")))
    import fsspec

    return cast("BinaryIO", fsspec.open(url, "rb").open())


_OPENERS = {"url": _open_url, "file": _open_plain, "gzip": _open_gzip}


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
        return _guarded(opener)

    name = item.name.lower()
    most = limits.decoded_bytes
    if item.member and item.kind != "gzip" and archive_kind(name) == "gzip":
        inner = _inner_packed(checked, item, limits)
        return RawFile(path=item.raw_path, name=unpacked_name(name), size=item.size, opener=inner, most_bytes=most)
    return RawFile(
        path=item.raw_path,
        name=name,
        size=item.size,
        opener=checked,
        beside=None if beside is None else lambda name: _neighbour(lambda: beside(name)),
        peek=None if peek is None else lambda size: _guarded(lambda: peek(size)),
        most_bytes=most,
    )


def _guarded(call: Callable[[], T]) -> T:
    """Call something that reads raw bytes; what it raises is a fault of the machine, of access, or of the file."""
    try:
        return call()
    except Exception as error:
        fault = fault_of(error)
        if fault is not None:
            raise fault from error
        if isinstance(error, BROKEN):
            raise RejectError("unreadable", type(error).__name__) from error
        raise


def _neighbour(call: Callable[[], BinaryIO]) -> BinaryIO:
    try:
        return _guarded(call)
    except RejectError as error:
        if isinstance(error.__cause__, FileNotFoundError | KeyError):
            raise RejectError("unreadable", "its data file is missing") from error.__cause__
        raise


def _inner_packed(opener: Callable[[], BinaryIO], item: RawItem, limits: LimitSettings) -> Callable[[], BinaryIO]:
    """Members of archives that are packed themselves."""

    def unpack() -> BinaryIO:
        with opener() as packed:
            return spool(unpacked(packed, item.size, limits), item.size, limits)

    return lambda: _guarded(unpack)


def _all_failing(items: Iterable[RawItem], error: Exception) -> Opened:
    known = fault_of(error) or (error if isinstance(error, RejectError) else None)
    for item in items:
        yield item, _failing(item, known or RejectError("unreadable_archive", type(error).__name__))


def _failing(item: RawItem, error: RejectError | UnavailableError | MachineError) -> RawFile:
    def fail() -> NoReturn:
        raise error.with_traceback(None)

    name = item.name.lower()
    return RawFile(path=item.raw_path, name=name, size=item.size, opener=fail)
