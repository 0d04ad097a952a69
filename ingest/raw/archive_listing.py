"""The listing of an archive: every file in it, and in the archives in it, as an item.

Random access where the format has it (zip, plain tar); one forward pass where it has not (compressed tar). Names that
climb out of the archive, encrypted members, links and decompression bombs are items with a reason, not errors; ratios
of nested archives are multiplied.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import cast

from ingest.raw.archive import BROKEN, Container, archive_kind, in_stream, in_tar, in_zip, top, unpack_first
from ingest.raw.items import Kind, RawItem, RawRoot, RejectError
from ingest.raw.split_archive import Found, open_zip
from ingest.raw.streams import is_bomb, spool, unpacked
from ingest.settings import LimitSettings

_Entry = tuple[RawItem, Callable[[], Container]]
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
        yield from _members(top(root, base, found.size), base, limits)


def _members(container: Container, base: RawItem, limits: LimitSettings) -> Iterator[RawItem]:
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
    except BROKEN as error:
        broken = _unreadable(base, "unreadable_archive", type(error).__name__)
    if container.kind != "stream":
        runs.sort(key=lambda run: run[0])
    head = [broken] if broken and container.kind != "stream" else []
    yield from (*head, *(item for _, run in runs for item in run), *([broken] if broken and not head else []))


def _unreadable(base: RawItem, reason: str, detail: str) -> RawItem:
    """The item that stands for an archive, or for the rest of one."""
    item = base.holder or base
    return replace(item, kind="reject", detail=f"{reason}:{detail}", offset=0)


def _expanded(item: RawItem, inside: Callable[[], Container], limits: LimitSettings) -> Iterator[RawItem]:
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


def _zip_entries(container: Container, base: RawItem, limits: LimitSettings) -> Generator[_Entry, None, None]:
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
            yield item, lambda info=info: in_zip(container, stream, archive, info, limits)  # type: ignore[misc]  # mypy cannot infer default arguments


def _tar_entries(container: Container, base: RawItem, limits: LimitSettings) -> Generator[_Entry, None, None]:
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

                def inside(item: RawItem = item, info: tarfile.TarInfo = info) -> Container:
                    if plain:
                        return in_tar(container, stream, item)
                    return in_stream(container, item, lambda: spool(archive.extractfile(info), item.size, limits))

                yield item, inside


def _objection(name: str) -> str:
    parts = name.replace("\\", "/").split("/")
    return "path_traversal" if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] else ""
