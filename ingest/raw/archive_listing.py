"""The listing of an archive: every file in it, and in the archives in it, as an item.

Random access where the format has it (zip, plain tar); one forward pass where it has not (compressed tar, RAR, 7-Zip).
The first bytes of an archive say what it is, whatever its name says. Names that climb out of the archive, encrypted
members, links and decompression bombs are items with a reason, not errors; ratios of nested archives are multiplied.
Of several members of one name the last counts, as it does for every program that unpacks them.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import BinaryIO, cast

import numpy as np

from ingest.raw.archive import (
    BROKEN,
    SEVERAL,
    Container,
    in_stream,
    in_tar,
    in_zip,
    member_name,
    zip_objection,
)
from ingest.raw.disguise import HEAD_BYTES, disguise
from ingest.raw.faults import fault_of
from ingest.raw.items import Kind, RawItem, RejectError
from ingest.raw.names import archive_kind, leads_out
from ingest.raw.packed import unpacked
from ingest.raw.rar_and_7z import members_of
from ingest.raw.runs import Runs, member_of
from ingest.raw.split_archive import open_zip
from ingest.raw.streams import is_bomb, sound_pieces, spool
from ingest.settings import LimitSettings
from shards.errors import UnavailableError

_Entry = tuple[RawItem, Callable[[], Container]]
"""An item, and how to look into it if it is an archive itself (good until the next entry)."""

_PASSES = ("stream", "libarchive")
_NAMELESS = "no name"


def archive_items(container: Container, base: RawItem, limits: LimitSettings) -> Iterator[RawItem]:
    """The files inside an archive, and inside the archives in it.

    Args:
        container: The archive.
        base: What all items share.
        limits: Guards against absurd archives.

    Raises:
        MachineError: This machine lacks space, memory or file handles.
    """
    runs = Runs(base)
    broken: RawItem | None = None
    head = b""
    kind = container.kind
    try:
        with container.open() as stream:
            if not container.inner:
                head = stream.read(HEAD_BYTES)
                stream.seek(0)
                kind = _real_kind(head, kind)
            listed = _LISTERS[kind](replace(container, kind=kind), stream, base, limits)
            with closing(listed) as entries:
                for item, inside in entries:  # what was found before a break is kept
                    is_plain = item.kind == "reject" or archive_kind(item.member) not in SEVERAL
                    runs.add(item, [item] if is_plain else list(_expanded(item, inside, limits)))
    except (*BROKEN, RejectError) as error:
        broken = _unreadable(base, error, head)
    in_order = kind in _PASSES
    if broken and not in_order:
        yield broken
    yield from runs.items(by_name=not in_order)
    if broken and in_order:
        yield broken


def _real_kind(head: bytes, named: str) -> str:
    """What an archive is by its first bytes; what its name says where they are not known (a zip may have a prefix)."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return "zip"
    if head.startswith((b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c")):
        return "libarchive"
    if head.startswith((b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")):
        return "stream"
    return "tar" if head[257:262] == b"ustar" else named


def _unreadable(base: RawItem, error: Exception, head: bytes) -> RawItem:
    """The item that stands for an archive, or for the rest of one."""
    item = replace(base.holder or base, offset=0)
    fault = fault_of(error)
    if isinstance(fault, UnavailableError):
        return replace(item, kind="unavailable", detail=fault.message)
    if fault is not None:
        raise fault from error
    if isinstance(error, RejectError) and error.reason != "unreadable_archive":
        return replace(item, kind="reject", detail=f"{error.reason}:{error.detail}")
    detail = error.detail if isinstance(error, RejectError) else ""
    return replace(item, kind="reject", detail=f"unreadable_archive:{detail or _why(error, head)}")


def _why(error: Exception, head: bytes) -> str:
    said = str(error)
    if isinstance(error, EOFError) or "unexpected end" in said or "Truncated" in said:
        return "cut off"
    if isinstance(error, zipfile.BadZipFile) and head.startswith(b"PK"):
        return "cut off: the directory at its end is missing" if "not a zip file" in said else "its directory is broken"
    return disguise(head) or type(error).__name__


def _expanded(item: RawItem, inside: Callable[[], Container], limits: LimitSettings) -> Iterator[RawItem]:
    """What a member holds that is an archive itself."""
    if item.holder is not None:
        detail = "unreadable_archive:the third archive, one inside the other"
        yield replace(item, kind="reject", detail=detail)
    elif item.size == 0:
        yield replace(item, kind="reject", detail="empty_file")
    else:
        container = inside()
        in_place = container.direct or item.kind in _PASSES
        holder = item if in_place else replace(item, offset=-1 - item.offset)
        base = RawItem(path=item.path, parts=item.parts, holder=holder, stamp=item.stamp)
        yield from archive_items(container, base, limits)


def _zip_entries(
    container: Container, stream: BinaryIO, base: RawItem, limits: LimitSettings
) -> Generator[_Entry, None, None]:
    with open_zip(stream) as archive:
        infos = archive.infolist()
        overlapping = _overlapping(infos)
        for position, info in enumerate(infos):
            name = member_name(info)
            if name.endswith("/"):
                continue
            detail = _objection(name) or zip_objection(info)
            name = name or _NAMELESS
            if not detail and is_bomb(info.file_size, info.compress_size / container.expansion, limits):
                detail = "decompression_bomb"
            if not detail and position in overlapping:
                detail = "decompression_bomb:members that overlap"
            item = member_of(
                base,
                member=name,
                kind="reject" if detail else "zip",
                size=info.file_size,
                offset=position,
                check=info.CRC,
                detail=detail,
            )
            yield item, lambda info=info: in_zip(container, stream, archive, info, limits)  # type: ignore[misc]  # mypy cannot infer default arguments


def _overlapping(infos: Sequence[zipfile.ZipInfo]) -> frozenset[int]:
    """Positions of members whose packed bytes reach into those of the next one."""
    starts = np.fromiter((info.header_offset for info in infos), np.float64, len(infos))
    ends = starts + 30 + np.fromiter((info.compress_size for info in infos), np.float64, len(infos))
    order = np.argsort(starts, kind="stable")
    reaching = ends[order[:-1]] > starts[order[1:]]
    return frozenset(order[:-1][reaching].tolist())


def _tar_entries(
    container: Container, stream: BinaryIO, base: RawItem, limits: LimitSettings
) -> Generator[_Entry, None, None]:
    plain = container.kind == "tar"
    source = stream if plain else unpacked(stream, container.packed, limits)
    with tarfile.open(fileobj=source, mode="r:" if plain else "r|") as archive:
        for position, info in enumerate(archive):
            if info.isdir():
                continue
            pieces = _pieces(info)
            item = replace(
                base,
                member=info.name or _NAMELESS,
                kind=cast("Kind", container.kind),
                size=info.size,
                offset=info.offset_data if plain else position,
                stamp=f"{info.mtime}" if info.mtime else base.stamp,
                pieces=pieces if plain else (),
            )
            detail = _tar_objection(info, pieces, limits)
            if detail:
                item = replace(item, kind="reject", detail=detail, pieces=())

            def inside(item: RawItem = item, info: tarfile.TarInfo = info) -> Container:
                if plain:
                    return in_tar(container, stream, item)
                return in_stream(container, item, lambda: spool(archive.extractfile(info), item.size, limits))

            yield item, inside


def _pieces(info: tarfile.TarInfo) -> tuple[tuple[int, int], ...]:
    """The stored pieces of a sparse member; empty for others."""
    found = cast("Sequence[tuple[int, int]]", info.sparse if info.issparse() else ())
    return tuple((start, size) for start, size in found if size > 0)


def _tar_objection(info: tarfile.TarInfo, pieces: Sequence[tuple[int, int]], limits: LimitSettings) -> str:
    if info.size > limits.max_file_bytes:
        return "decompression_bomb"
    if info.issparse():
        if not sound_pieces(pieces, info.size):
            return "unreadable:the map of a sparse member is broken"
        if info.size > limits.decoded_bytes:
            return f"over_budget:a sparse member of {info.size} bytes"
        if not pieces and info.size:
            return "unreadable:a sparse member that is nothing but a hole"
    return (
        _objection(info.name)
        if info.isreg()
        else "link"
        if info.issym() or info.islnk()
        else "unsupported:no regular file"
    )


def _foreign_entries(
    container: Container, stream: BinaryIO, base: RawItem, limits: LimitSettings
) -> Generator[_Entry, None, None]:
    total = 0
    with members_of(stream) as found:
        for position, member in enumerate(found):
            if member.kind == "folder":
                continue
            total += member.size
            detail = "link" if member.kind == "link" else "" if member.kind == "file" else "unsupported:no regular file"
            detail = detail or ("encrypted" if member.encrypted else _objection(member.name))
            if member.size > limits.max_file_bytes or is_bomb(total, container.packed, limits, whole=True):
                detail = "decompression_bomb"
            item = replace(
                base,
                member=member.name or _NAMELESS,
                kind="reject" if detail else "libarchive",
                size=member.size,
                offset=position,
                detail=detail,
            )

            def inside(item: RawItem = item, opener: Callable[[], BinaryIO] = member.open) -> Container:
                return in_stream(container, item, lambda: spool(opener(), item.size, limits))

            yield item, inside


_LISTERS = {"zip": _zip_entries, "tar": _tar_entries, "stream": _tar_entries, "libarchive": _foreign_entries}


def _objection(name: str) -> str:
    if not name:
        return "unreadable:a member without a name"
    return "path_traversal" if leads_out(name) else ""
