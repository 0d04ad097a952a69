"""The files below a local folder: regular ones, in a fixed order, with what cannot be read said and not left out.

Links to files and folders are followed, wherever they lead, since large disks are often linked into a raw folder. A
folder is gone through once: a link to one that is reached anyway, or was followed before, is told and left alone.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Walked", "walk"]


class Walked(NamedTuple):
    """A file that was found, or something else with a word of what it is.

    Attributes:
        path: Below the folder, with `/`.
        size: Bytes; 0 where that is not known.
        ignored: Why it is left alone, as a kind that is counted; empty for a file.
        rejected: Why it can never be read; empty for a file.
        unavailable: The error that says it cannot be read now; empty for a file.
    """

    path: str
    size: int = 0
    ignored: str = ""
    rejected: str = ""
    unavailable: str = ""


_KINDS: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def walk(folder: Path) -> Iterator[Walked]:
    """Everything below a folder, sorted by path, with the names of one branch in memory.

    A folder is sorted as its name and a slash, which is how the paths in it begin.
    """
    return _Walk(real_root=os.path.realpath(folder)).below(folder, "", os.path.realpath(folder))


@dataclass(slots=True, kw_only=True)
class _Walk:
    """What a walk remembers: the folders that links led to."""

    real_root: str
    followed: set[str] = field(default_factory=set)

    def below(self, folder: Path, inner: str, real: str) -> Iterator[Walked]:
        """Everything below one folder; `real` is its path without links."""
        try:
            with os.scandir(folder) as entries:
                names = [f"{entry.name}/" if _is_folder(entry) else entry.name for entry in entries]
        except OSError as error:
            yield Walked(inner or ".", unavailable=_code(error))
            return
        names.sort(reverse=True)
        while names:
            name = names.pop()
            path = folder / name
            if not name.endswith("/"):
                yield _file(path, inner + name)
            elif path.is_symlink():
                yield from self._linked(path, inner + name)
            else:
                below = os.path.join(real, name[:-1])  # noqa: PTH118  # strings: a folder may hold millions
                if below == self.real_root or below in self.followed:
                    yield Walked(inner + name[:-1], ignored="link to a folder that is listed anyway")
                else:
                    yield from self.below(path, inner + name, below)

    def _linked(self, path: Path, inner: str) -> Iterator[Walked]:
        """Follow a link to a folder unless what it leads to is listed elsewhere."""
        real = os.path.realpath(path)
        if any(_inside(real, known) for known in (self.real_root, *self.followed)):
            yield Walked(inner[:-1], ignored="link to a folder that is listed anyway")
            return
        self.followed.add(real)
        yield from self.below(path, inner, real)


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _file(path: Path, inner: str) -> Walked:
    try:
        found = path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return Walked(inner, rejected="a link that leads nowhere" if path.is_symlink() else "gone while listing")
        return Walked(inner, unavailable=_code(error))
    if stat.S_ISREG(found.st_mode):
        return Walked(inner, found.st_size)
    return Walked(inner, rejected=f"no regular file but {_KINDS.get(stat.S_IFMT(found.st_mode), 'something else')}")


def _code(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "OSError")
