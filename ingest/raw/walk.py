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
    return _Walk(real_root=os.path.realpath(folder)).files(folder)


@dataclass(slots=True, kw_only=True)
class _Folder:
    """A folder under way: its names that are left, the next one last.

    Attributes:
        path: Where it is.
        inner: Its path below the walk's folder, with a slash behind it; empty for that folder itself.
        real: Its path without links.
        names: What is left in it; folders with a slash behind them.
    """

    path: Path
    inner: str
    real: str
    names: list[str]


@dataclass(slots=True, kw_only=True)
class _Walk:
    """What a walk remembers: the folders that links led to."""

    real_root: str
    followed: set[str] = field(default_factory=set)

    def files(self, top: Path) -> Iterator[Walked]:
        """Everything below a folder; folders may lie deeper in each other than calls can."""
        branch: list[_Folder] = []
        yield from self._enter(branch, top, "", self.real_root)
        while branch:
            folder = branch[-1]
            if not folder.names:
                branch.pop()
                continue
            name = folder.names.pop()
            path, inner = folder.path / name, folder.inner + name
            if not name.endswith("/"):
                yield _file(path, inner)
                continue
            is_link = path.is_symlink()
            real = os.path.realpath(path) if is_link else f"{folder.real.rstrip('/')}/{name[:-1]}"
            if self._is_listed_elsewhere(real, is_link=is_link):
                yield Walked(inner[:-1], ignored="link to a folder that is listed anyway")
                continue
            if is_link:
                self.followed.add(real)
            yield from self._enter(branch, path, inner, real)

    def _enter(self, branch: list[_Folder], path: Path, inner: str, real: str) -> Iterator[Walked]:
        """Begin a folder; where it may not be entered, that is told."""
        try:
            with os.scandir(path) as entries:
                names = [f"{entry.name}/" if _is_folder(entry) else entry.name for entry in entries]
        except OSError as error:
            yield Walked(inner or ".", unavailable=_code(error))
            return
        names.sort(reverse=True)
        branch.append(_Folder(path=path, inner=inner, real=real, names=names))

    def _is_listed_elsewhere(self, real: str, *, is_link: bool) -> bool:
        """Whether a folder is reached by its own path, or was by another link."""
        if is_link:
            return any(_inside(real, known) for known in (self.real_root, *self.followed))
        return real == self.real_root or real in self.followed


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
