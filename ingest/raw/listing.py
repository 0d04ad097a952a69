"""Every file below a raw URL, those in archives too, as an item."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Final

from ingest.raw.apart import Apart
from ingest.raw.archive import top
from ingest.raw.archive_listing import archive_items
from ingest.raw.datasets import files_without_datasets
from ingest.raw.items import RawItem
from ingest.raw.names import unpacked_name
from ingest.raw.rar_and_7z import available
from ingest.raw.root import RawRoot
from ingest.raw.split_archive import Found, join_parts
from ingest.settings import LimitSettings

__all__ = ["SLOW_ARCHIVES", "all_items", "members"]

SLOW_ARCHIVES: Final = ("stream", "libarchive")
"""Kinds of archives without a directory, whose listing takes a pass over all of each."""


def all_items(root: RawRoot, limits: LimitSettings, *, deep: bool = True) -> Iterator[RawItem]:
    """Every file below the raw URL, those in archives too; outside of them what is no data has the kind `ignored`.

    A dataset that lies there, such as the one that is added to, is one such item.

    Args:
        root: The raw URL.
        limits: Guards against absurd archives.
        deep: Whether to look into archives that take a pass over all of each; else they are items as a whole.
    """
    with closing(Apart(limits)) as apart:
        for found in join_parts(files_without_datasets(root)):
            special = _special(found)
            if special is not None:
                yield special
            elif found.missing or (found.kind and (deep or found.kind not in SLOW_ARCHIVES)):
                yield from _members(root, found, limits, apart)
            else:
                yield RawItem(path=found.path, size=found.size, stamp=found.walked.stamp)


def _special(found: Found) -> RawItem | None:
    """The item of what is no regular file, cannot be read now, or is no data; None for a file."""
    walked = found.walked
    if walked.unavailable:
        return RawItem(path=found.path, kind="unavailable", detail=walked.unavailable)
    if walked.rejected:
        return RawItem(path=found.path, kind="reject", detail=f"unsupported:{walked.rejected}")
    return RawItem(path=found.path, kind="ignored", detail=found.ignored) if found.ignored else None


def members(root: RawRoot, found: Found, limits: LimitSettings) -> Iterator[RawItem]:
    """The files inside one archive, and inside the archives in it.

    Zip and plain tar: sorted by name; others: in their order, since they are read in one pass.

    Raises:
        MachineError: This machine lacks space, memory or file handles.
    """
    with closing(Apart(limits)) as apart:
        yield from _members(root, found, limits, apart)


def _members(root: RawRoot, found: Found, limits: LimitSettings, apart: Apart) -> Iterator[RawItem]:
    path = found.path
    if found.missing:
        yield RawItem(path=path, kind="reject", detail=f"unreadable_archive:{found.missing}")
    elif found.kind == "gzip":
        member, stamp = unpacked_name(path.rpartition("/")[2]), found.walked.stamp
        yield RawItem(path=path, member=member, kind="gzip", size=found.size, stamp=stamp)
    elif found.size == 0:
        yield RawItem(path=path, kind="reject", detail="empty_file")
    else:
        base = RawItem(path=path, parts=found.parts, size=found.size, stamp=found.walked.stamp)
        if found.kind == "libarchive" and available() and not root.url.startswith("memory://"):
            yield from apart.files(root.url, base)
        else:
            stored = root.stored(path, found.parts, size=found.size)
            yield from archive_items(top(stored, found.kind), replace(base, size=0), limits)
