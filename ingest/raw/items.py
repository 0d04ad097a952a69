"""What a listing holds and a reader gets: the items of a source, and the files that they are opened as.

A raw path is an fsspec chain relative to the source's raw URL: `a/b.png`, `zip://b.png::a.zip`,
`tar://b.png::a.tar.gz`, `gzip://b.ppm::b.ppm.gz`, and once more inside: `zip://b.png::tar://a.zip::c.tar`.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Literal, NamedTuple

from ingest.raw.names import packing, printable, scheme_of
from ingest.raw.web_address import name_in, plain_address, without_secrets

Kind = Literal["file", "zip", "tar", "stream", "libarchive", "gzip", "url", "reject", "unavailable", "ignored"]


class RejectError(Exception):
    """A raw file or image that is not taken; it becomes a row of `rejects/`.

    Args:
        reason: One word of the list in `ingest.picture.quality`.
        detail: Our own words or the name of an error class; never text out of the file (it may name a person).
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Stated(NamedTuple):
    """What a list of files says of one of them; empty where it says nothing."""

    modality: str = ""
    group: str = ""
    licence: str = ""
    anatomy: str = ""
    label: str = ""


_NOTHING = Stated()


class Place(NamedTuple):
    """Where a file belongs that is one slice of a series; see `ingest.job.place`.

    Attributes:
        series: Keyed hash of the series' UID.
        frame: The slice's number in it, as `z0012`; `t0003z0012` where positions repeat, `s01z0012` where the series
            holds several stacks.
        alone: Whether its stack is this file only.
        taken: Whether the source's frame rule takes it.
        spacing: Millimetres between rows and between columns.
        low: Lower end of the stack's intensity range, for files without a window; NaN without one.
        high: Its upper end.
        unknown: Whether the file, or what says its stack's range, cannot be read now: it is nothing to take yet.
    """

    series: str
    frame: str
    alone: bool = False
    taken: bool = True
    spacing: tuple[float, float] = (1.0, 1.0)
    low: float = math.nan
    high: float = math.nan
    unknown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RawItem:
    """One listed raw file.

    Attributes:
        path: Path of the file, or of the archive that holds it, below the raw URL.
        member: Path inside the archive; empty for plain files.
        kind: How it is opened; `stream` is a member of a compressed tar, `gzip` a packed file, whatever packed it. A
            `reject` can never be opened, what is `unavailable` cannot be opened now, and `ignored` is no data.
        size: Bytes (packed size for `gzip`).
        offset: First byte inside a plain tar, position inside other archives.
        check: CRC-32 that a zip directory states, else 0; part of the listing's digest.
        stamp: Time of the last change or entity tag, of a member or else of its archive; empty where none is known. It
            is no part of the listing's digest, since a copy of the same files has other times.
        detail: Why a `reject` is one, as `reason` or `reason:detail`; the error of what is `unavailable`; the kind of
            what is `ignored`.
        stated: What a list or table says of the file.
        per_frame: What a table says of each image of the file, where it goes by their numbers.
        part: Number of the layout's part that the file belongs to.
        parts: Paths and sizes of the parts where `path` is a split archive.
        holder: The archive inside the archive `path` that holds the member, where there is one; its `offset` is
            positive where it can be read in place.
        place: Where in a series of files the file belongs, once the series are known.
        pieces: Place in the file and length of each stored piece, where a tar holds it without its runs of zeros.
    """

    path: str
    member: str = ""
    kind: Kind = "file"
    size: int = 0
    offset: int = 0
    check: int = 0
    stamp: str = ""
    detail: str = ""
    stated: Stated = _NOTHING
    per_frame: tuple[Stated, ...] = ()
    part: int = 0
    parts: tuple[tuple[str, int], ...] = ()
    holder: RawItem | None = None
    place: Place | None = None
    pieces: tuple[tuple[int, int], ...] = ()

    @property
    def raw_path(self) -> str:
        """The fsspec chain below the raw URL; of a whole URL what may be kept of it."""
        if self.kind == "url":
            return printable(without_secrets(self.path))
        if not self.member or self.kind == "file":
            return printable(self.path)
        archive = self.holder.member if self.holder else self.path
        scheme = packing(self.path) if self.kind == "gzip" else scheme_of(archive)
        return f"{scheme}://{printable(self.member)}::{self.holder.raw_path if self.holder else printable(self.path)}"

    @property
    def name(self) -> str:
        """The file's name, by which its format is told."""
        return name_in(self.path) if self.kind == "url" else (self.member or self.path).rpartition("/")[2]

    def said_of(self, frame: str) -> Stated:
        """What lists and tables say of one image of the file, by the number that its frame ends with."""
        number = _NUMBER.search(frame) if self.per_frame else None
        if number is None or int(number[0]) >= len(self.per_frame):
            return self.stated
        return self.per_frame[int(number[0])]

    @property
    def inner_path(self) -> str:
        """Archive and member as one path: what globs and expressions see; a URL without its query."""
        if self.kind == "url":
            return plain_address(self.path)
        if not self.member or self.kind == "gzip":
            return self.path
        return f"{self.holder.inner_path if self.holder else self.path}/{self.member}"


_NUMBER = re.compile(r"\d+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawFile:
    """A raw file that a reader may open, as often as it likes.

    Attributes:
        path: The raw path.
        name: Last part of the path, lower case; formats are told by it.
        size: Bytes, as far as known.
        opener: Gives a seekable binary stream.
        peek: Gives the first bytes without unpacking the rest, for members of archives.
        beside: Opens a neighbour by file name, for formats that keep header and data apart.
        most_bytes: More than this is never read into memory at once; 0: no limit.
    """

    path: str
    name: str
    size: int
    opener: Callable[[], BinaryIO]
    beside: Callable[[str], BinaryIO] | None = None
    peek: Callable[[int], bytes] | None = None
    most_bytes: int = 0

    def head(self, num_bytes: int) -> bytes:
        """The first bytes, or all if there are fewer."""
        if self.peek is not None:
            return self.peek(num_bytes)
        with self.opener() as stream:
            return stream.read(num_bytes)

    def open(self) -> BinaryIO:
        """A seekable stream at the start of the file."""
        return self.opener()

    def read(self) -> bytes:
        """All bytes.

        Raises:
            RejectError: They are more than may be held in memory.
        """
        with self.opener() as stream:
            if self.most_bytes:
                size = stream.seek(0, io.SEEK_END)
                if size > self.most_bytes:
                    raise RejectError("over_budget", f"{size} bytes, more than {self.most_bytes}")
                stream.seek(0)
            return stream.read()

    @classmethod
    def of_bytes(cls, data: bytes, name: str) -> RawFile:
        """A raw file in memory."""
        return cls(path=name, name=name.rpartition("/")[2].lower(), size=len(data), opener=lambda: io.BytesIO(data))
