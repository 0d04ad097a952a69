"""Members of zip, tar, compressed tar and gzip files, read in place; split ones as if they were whole.

Random access where the format has it (zip, plain tar); one forward pass where it has not (compressed tar). An archive
inside an archive is read once more the same way: in place where it lies stored, else unpacked into memory (into an
unnamed temporary file when large) while its members are read. Names that climb out of the archive, encrypted members,
links and decompression bombs are items with a reason, not errors; ratios of nested archives are multiplied.
"""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from typing import BinaryIO, Final, cast

from ingest.containers import (
    STREAM_TARS,
    Found,
    Limited,
    Shared,
    Window,
    data_offset,
    is_bomb,
    open_found,
    open_zip,
    spool,
    unpacked,
    whole_name,
)
from ingest.raw import Kind, RawFile, RawItem, RawRoot, RejectError
from ingest.settings import LimitSettings

_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError),
    *(NotImplementedError, KeyError, ValueError),
)
_UNPACK_FIRST: Final = {
    "rar": "RAR: unpack it beside itself first, `unrar x FILE.rar`",
    "7z": "7-Zip: unpack it beside itself first, `7z x FILE.7z`",
}


def archive_kind(path: str) -> str:
    """`zip`, `tar`, `stream` (compressed tar), `gzip`, or empty for a plain file; parts count as their whole."""
    name = whole_name(path).lower()
    if name.endswith(STREAM_TARS):
        return "stream"
    if name.endswith(".gz"):
        return "" if name.endswith(".nii.gz") else "gzip"
    return {"zip": "zip", "tar": "tar"}.get(name.rpartition(".")[2], "")


def unpack_first(path: str) -> str:
    """What to type where an archive can only be read unpacked; else empty."""
    return _UNPACK_FIRST.get(path.lower().rpartition(".")[2], "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Container:
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


_Entry = tuple[RawItem, Callable[[], _Container]]
"""An item, and how to look into it if it is an archive itself (good until the next entry)."""


def members(root: RawRoot, found: Found, limits: LimitSettings) -> Iterator[RawItem]:
    """The files inside one archive, and inside the archives in it.

    Zip and plain tar: sorted by name; compressed tar: in their order, since it is read in one pass.
    """
    path = found.path
    if found.missing:
        yield RawItem(path=path, kind="reject", detail=f"unreadable_archive:{found.missing}")
    elif archive_kind(path) == "gzip":
        yield RawItem(path=path, member=path.rpartition("/")[2][:-3], kind="gzip", size=found.size)
    else:
        base = RawItem(path=path, parts=found.parts)
        yield from _members(_top(root, base, found.size), base, limits)


def _top(root: RawRoot, item: RawItem, size: int) -> _Container:
    return _Container(
        name=item.path.rpartition("/")[2],
        kind=archive_kind(item.path),
        open=lambda: open_found(root, item.path, item.parts),
        packed=size,
    )


def _members(container: _Container, base: RawItem, limits: LimitSettings) -> Iterator[RawItem]:
    """Items of an archive; `base` holds what all of them share."""
    runs: list[tuple[str, list[RawItem]]] = []
    lister = _zip_entries if container.kind == "zip" else _tar_entries
    broken: RawItem | None = None
    try:
        with closing(lister(container, base, limits)) as entries:
            for item, inside in entries:  # what was found before a break is kept
                runs.append((item.member, list(_expanded(item, inside, limits))))
    except RejectError as error:
        broken = _unreadable(base, error.reason, error.detail)
    except _BROKEN as error:
        broken = _unreadable(base, "unreadable_archive", type(error).__name__)
    if container.kind != "stream":
        runs.sort(key=lambda run: run[0])
    head = [broken] if broken and container.kind != "stream" else []
    yield from (*head, *(item for _, run in runs for item in run), *([broken] if broken and not head else []))


def _unreadable(base: RawItem, reason: str, detail: str) -> RawItem:
    """The item that stands for an archive, or for the rest of one."""
    item = base.holder or base
    return replace(item, kind="reject", detail=f"{reason}:{detail}", offset=0)


def _expanded(item: RawItem, inside: Callable[[], _Container], limits: LimitSettings) -> Iterator[RawItem]:
    """The item itself, or, for an archive, what it holds."""
    advice = unpack_first(item.member)
    if item.kind == "reject" or not (advice or archive_kind(item.member) in ("zip", "tar", "stream")):
        yield item
    elif advice or item.holder is not None:
        detail = f"unsupported:{advice}" if advice else "unreadable_archive:the third archive, one inside the other"
        yield replace(item, kind="reject", detail=detail)
    else:
        container = inside()
        in_place = container.direct or item.kind == "stream"
        holder = item if in_place else replace(item, offset=-1)
        yield from _members(container, RawItem(path=item.path, parts=item.parts, holder=holder), limits)


def _zip_entries(container: _Container, base: RawItem, limits: LimitSettings) -> Generator[_Entry, None, None]:
    with container.open() as stream, open_zip(stream) as archive:
        for info in archive.infolist():
            if info.is_dir() or info.filename.startswith("__MACOSX/"):
                continue
            detail = _objection(info.filename)
            if info.flag_bits & 1:
                detail = "encrypted"
            elif is_bomb(info.file_size, info.compress_size / container.expansion, limits):
                detail = "decompression_bomb"
            item = replace(
                base,
                member=info.filename,
                kind="reject" if detail else "zip",
                size=info.file_size,
                check=info.CRC,
                detail=detail,
            )
            yield item, lambda info=info: _in_zip(container, stream, archive, info, limits)  # type: ignore[misc]  # mypy cannot infer default arguments


def _in_zip(
    container: _Container, stream: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo, limits: LimitSettings
) -> _Container:
    """A member of a zip as an archive: in place where it is stored."""
    stored = info.compress_type == zipfile.ZIP_STORED

    def opened() -> BinaryIO:
        if archive_kind(info.filename) == "stream":
            return cast("BinaryIO", archive.open(info))
        if stored:
            window = Window(_Kept(stream), data_offset(stream, info), info.file_size)
            return cast("BinaryIO", io.BufferedReader(window, 1 << 16))
        with archive.open(info) as member:
            return spool(member, info.compress_size / container.expansion, limits)

    item = RawItem(path="", member=info.filename, size=info.file_size)
    expansion = max(1.0, info.file_size / max(info.compress_size, 1)) * container.expansion
    return _inner(container, item, opened, expansion=expansion, direct=stored)


def _tar_entries(container: _Container, base: RawItem, limits: LimitSettings) -> Generator[_Entry, None, None]:
    plain = container.kind == "tar"
    with container.open() as stream:
        source = stream if plain else unpacked(stream, container.name, container.packed, limits)
        with tarfile.open(fileobj=source, mode="r:" if plain else "r|") as archive:
            for position, info in enumerate(archive):
                if info.isdir():
                    continue
                detail = _objection(info.name) if info.isreg() else "link"
                if info.size > limits.max_file_bytes:
                    detail = "decompression_bomb"
                item = replace(
                    base,
                    member=info.name,
                    kind="reject" if detail else cast("Kind", container.kind),
                    size=info.size,
                    offset=info.offset_data if plain else position,
                    detail=detail,
                )

                def inside(item: RawItem = item, info: tarfile.TarInfo = info) -> _Container:
                    if plain:
                        return _in_tar(container, stream, item)
                    return _in_stream(container, item, lambda: spool(archive.extractfile(info), item.size, limits))

                yield item, inside


def _in_tar(container: _Container, stream: BinaryIO, item: RawItem) -> _Container:
    """A member of a plain tar as an archive, in place."""

    def opened() -> BinaryIO:
        return cast("BinaryIO", io.BufferedReader(Window(_Kept(stream), item.offset, item.size), 1 << 16))

    return _inner(container, item, opened, expansion=container.expansion, direct=True)


def _in_stream(container: _Container, item: RawItem, unpack: Callable[[], BinaryIO]) -> _Container:
    """A member of a compressed tar as an archive; at worst all that was packed is its."""
    expansion = container.expansion * max(1.0, item.size / max(container.packed, 1.0))
    return _inner(container, item, unpack, expansion=expansion, direct=False)


def _inner(
    container: _Container, item: RawItem, opener: Callable[[], BinaryIO], *, expansion: float, direct: bool
) -> _Container:
    name = item.member.rpartition("/")[2]
    return _Container(
        name=name,
        kind=archive_kind(name),
        open=opener,
        packed=item.size / expansion,
        expansion=expansion,
        direct=direct and container.direct,
        inner=True,
    )


def _Kept(stream: BinaryIO) -> BinaryIO:  # noqa: N802  # stands where a class would
    """A stream that a window must not close, since the archive around it is still being read."""
    return cast("BinaryIO", _Borrowed(stream))


class _Borrowed:
    def __init__(self, stream: BinaryIO) -> None:
        self.seek = stream.seek
        self.read = stream.read

    def close(self) -> None:
        """Leave it open."""


def _objection(name: str) -> str:
    parts = name.replace("\\", "/").split("/")
    return "path_traversal" if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] else ""


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
    opened = _open_archive(_top(root, first, size), sound, limits) if sound else iter(())
    with closing(opened) if isinstance(opened, Generator) else nullcontext():
        for item in items:
            yield from _open_rejects(root, [item], limits) if item.kind == "reject" else (next(opened),)


def _size(root: RawRoot, path: str) -> int:
    try:
        return root.size(path)
    except OSError:
        return 0


def _open_archive(container: _Container, items: list[RawItem], limits: LimitSettings) -> Opened:
    """Members of an archive, whether `items` name them or what they hold."""
    opener = {"zip": _open_zip, "tar": _open_tar, "stream": _open_stream}[container.kind]
    yield from opener(container, items, limits)


def _runs(container: _Container, items: Iterable[RawItem]) -> Iterator[tuple[RawItem | None, list[RawItem]]]:
    """Neighbours by the archive inside `container` that holds them: None for its own members."""
    for holder, run in groupby(items, key=lambda item: None if container.inner else item.holder):
        yield holder, list(run)


def _open_zip(container: _Container, items: list[RawItem], limits: LimitSettings) -> Opened:
    try:
        stream = container.open()
        archive = open_zip(stream)
    except (*_BROKEN, RejectError) as error:
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
                    lambda name=name: _in_zip(container, stream, archive, archive.getinfo(name), limits),  # type: ignore[misc]
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


def _open_inner(items: list[RawItem], limits: LimitSettings, inside: Callable[[], _Container]) -> Opened:
    """Members of an archive inside an archive."""
    try:
        container = inside()
    except (*_BROKEN, RejectError) as error:
        yield from _all_failing(items, error)
        return
    yield from _open_archive(container, items, limits)


def _open_tar(container: _Container, items: list[RawItem], limits: LimitSettings) -> Opened:
    try:
        stream = container.open()
    except (*_BROKEN, RejectError) as error:
        yield from _all_failing(items, error)
        return
    with stream:
        for holder, run in _runs(container, items):
            if holder is not None:
                yield from _open_inner(run, limits, lambda holder=holder: _in_tar(container, stream, holder))  # type: ignore[misc]
                continue
            for item in run:

                def unpack(item: RawItem = item) -> BinaryIO:
                    stream.seek(item.offset)
                    return spool(Limited(stream, item.size), item.size, limits)

                def peek(num_bytes: int, item: RawItem = item) -> bytes:
                    stream.seek(item.offset)
                    return stream.read(min(num_bytes, item.size))

                yield item, _file(item, unpack, peek=peek, limits=limits)


def _open_stream(container: _Container, items: list[RawItem], limits: LimitSettings) -> Opened:
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
    except (*_BROKEN, RejectError) as caught:
        error = caught
    yield from _all_failing([item for run in wanted.values() for item in run], error)


def _streamed(container: _Container, spooled: BinaryIO, items: list[RawItem], limits: LimitSettings) -> Opened:
    """One member of a compressed tar, or what it holds."""
    holder = None if container.inner else items[0].holder
    if holder is None:
        for item in items:
            yield item, _file(item, lambda: Shared(spooled), limits=limits)
        return
    inner = _in_stream(container, holder, lambda: Shared(spooled))
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
        except _BROKEN as error:
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
        except _BROKEN as error:
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
