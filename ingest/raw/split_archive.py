"""Detects the parts of a split archive and reads the central directory of a split zip.

They come in two ways. Cut byte by byte (`x.zip.001`, `x.zip.002` …, `x.tar.gz.aa` …) the parts in a row are the
archive. Spanned as PKZIP has it (`x.z01`, `x.z02` …, `x.zip` last; APPNOTE 8.3) they are too, except that every offset
counts from the start of its own part: the directory is rebased once it is read. Volumes of a RAR archive are read in
a row, too.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from ingest.raw.compact import Compact
from ingest.raw.names import LAST, OLD_RAR_FIRST, SPANNED_FIRST, archive_kind, ignored_kind, part_of
from ingest.raw.root import Walked
from ingest.raw.streams import Joined

_NOWHERE = Walked("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file below the raw URL, or the parts of one.

    Attributes:
        path: Its path; of a split archive that of the part by which it is known (`x.zip`, `x.zip.001`).
        size: Bytes of all parts.
        parts: Paths and sizes of the parts in order; empty for whole files.
        missing: What part is not there, in words.
        walked: What the walk says of it.
    """

    path: str
    size: int
    parts: tuple[tuple[str, int], ...] = ()
    missing: str = ""
    walked: Walked = _NOWHERE

    @property
    def kind(self) -> str:
        """How it is read as an archive (`ingest.raw.names.archive_kind`); empty for a plain file."""
        return archive_kind(self.path)

    @property
    def ignored(self) -> str:
        """A word for what is no data, by the walk or by its name; else empty."""
        return self.walked.ignored or ignored_kind(self.path)


def join_parts(files: Iterable[Walked]) -> Iterator[Found]:
    """Put the parts of split archives together; the order of the paths is kept."""
    walked = files if isinstance(files, Compact) else Compact(files)
    groups: dict[str, list[tuple[int, str, int]]] = {}
    firsts = {lower for file in walked if (lower := file.path.lower()).endswith((*SPANNED_FIRST, *OLD_RAR_FIRST))}
    for file in walked:
        found = part_of(file.path, firsts) if _is_file(file) else None
        if found:
            groups.setdefault(found[0], []).append((found[1], file.path, file.size))
    for file in walked:
        found = part_of(file.path, firsts) if _is_file(file) else None
        if found is None:
            yield Found(path=file.path, size=file.size, walked=file)
            continue
        parts = sorted(groups[found[0]])
        known = parts[-1] if found[2] else parts[0]
        if file.path == known[1]:
            sizes = tuple((name, length) for _, name, length in parts)
            yield Found(
                path=file.path,
                size=sum(n for _, n in sizes),
                parts=sizes,
                missing=_gap(parts, spanned=found[2], first=0 if found[0].startswith("oldrar:") else 1),
                walked=file,
            )


def _is_file(file: Walked) -> bool:
    return not (file.ignored or file.rejected or file.unavailable)


def _gap(parts: Sequence[tuple[int, str, int]], *, spanned: bool, first: int) -> str:
    numbers = [number for number, *_ in parts]
    if spanned and numbers[-1] != LAST:
        return "the last part, .zip, is missing"
    body = numbers[:-1] if spanned else numbers
    first = first if spanned else min(body[0], first)
    absent = next((want for want, have in enumerate(body, first) if want != have), None)
    return "" if absent is None else f"part {absent} is missing"


def open_zip(stream: BinaryIO) -> zipfile.ZipFile:
    """A zip directory; that of a spanned archive is rebased to the joined stream.

    Raises:
        BadZipFile: It is none.
    """
    joined = stream.raw if isinstance(stream, io.BufferedReader) else None
    spans = _directory_offset(joined, stream) if isinstance(joined, Joined) else None
    archive = zipfile.ZipFile(stream)
    if isinstance(joined, Joined) and spans is not None:
        shift = archive.start_dir - spans
        for info in archive.infolist():
            if info.volume >= len(joined.starts):
                raise zipfile.BadZipFile("a part is missing")
            info.header_offset += joined.starts[info.volume] - shift
            if hasattr(info, "_end_offset"):
                setattr(info, "_end_offset", None)  # noqa: B010  # newer Pythons computed it from the offsets above
    return archive


def _directory_offset(joined: Joined, stream: BinaryIO) -> int | None:
    """What the end record of a spanned zip says where its directory begins, in its own part; None if not spanned.

    A spanned zip64's locator is shown as that of a zip in one part, which is all that `zipfile` reads.
    """
    size = stream.seek(0, io.SEEK_END)
    tail_start = stream.seek(max(0, size - 65_557))
    tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        return None
    disk, _, _, _, _, offset, _ = struct.unpack("<HHHHLLH", tail[at + 4 : at + 22])
    if at >= 76 and tail[at - 20 : at - 16] == b"PK\x06\x07":
        disk, zip64_offset, _ = struct.unpack("<LQL", tail[at - 16 : at])
        offset = struct.unpack("<Q", tail[at - 28 : at - 20])[0]
        joined.overlay(tail_start + at - 16, struct.pack("<LQL", 0, zip64_offset, 1))
    stream.seek(0)
    return int(offset) if disk else None


def data_offset(stream: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin."""
    stream.seek(info.header_offset)
    header = stream.read(30)
    if header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile("no local header")
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    return int(info.header_offset + 30 + name_bytes + extra_bytes)
