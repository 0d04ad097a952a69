"""An open zip is kept for the next unit of work: reading the directory of a million members takes longer than a unit.

One archive is kept per process, of local files only, and only while nobody reads it. It is used again if the file is
still the same one, by inode, size and time of change.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final

from ingest.raw.archive import Container
from ingest.raw.split_archive import open_zip

__all__ = ["opened_zip"]

_WORTH_MEMBERS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    key: tuple[object, ...]
    stream: BinaryIO
    archive: zipfile.ZipFile

    def close(self) -> None:
        self.archive.close()
        self.stream.close()


_idle: list[_Kept] = []


@contextmanager
def opened_zip(container: Container) -> Iterator[tuple[BinaryIO, zipfile.ZipFile]]:
    """The stream and directory of a zip; closed afterwards, or kept.

    Raises:
        BadZipFile: It is none.
        OSError: It cannot be read.
    """
    kept = _take(container)
    if kept is None:
        stream = container.open()
        try:
            kept = _Kept(key=container.key, stream=stream, archive=open_zip(stream))
        except BaseException:
            stream.close()
            raise
    is_sound = False
    try:
        yield kept.stream, kept.archive
        is_sound = True
    except GeneratorExit:  # the reader has what it wanted
        is_sound = True
        raise
    finally:
        if is_sound and kept.key and len(kept.archive.filelist) >= _WORTH_MEMBERS:
            _keep(kept)
        else:
            kept.close()


def _keep(kept: _Kept) -> None:
    while _idle:
        _idle.pop().close()
    _idle.append(kept)


def _take(container: Container) -> _Kept | None:
    """The kept archive if it is this one; another one is closed."""
    if not container.key or not _idle:
        return None
    kept = _idle.pop()
    if kept.key == container.key:
        return kept
    kept.close()
    return None
