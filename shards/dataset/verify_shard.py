"""One shard against its index rows: its hash, the structure of its tar, the place and checksum of each image."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import google_crc32c

from shards.dataset.shard_file import is_named_after
from shards.errors import ShardError, StoreError
from shards.store import Store

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: `missing`, `size`, `rows`, `hash`, `structure`, `checksum`, `duplicate`, `table`, `unreadable`.
        path: The object, relative to the dataset.
        detail: What was expected and what was found.
    """

    kind: str
    path: str
    detail: str


class _Hashed:
    """A stream that hashes what is read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.digest.update(data)
        return data


def check_shard(store: Store, shard: str, rows: Rows) -> list[Problem]:
    """Read one shard and compare it with its rows.

    Args:
        store: The dataset's store.
        shard: Path of the tar.
        rows: Its index rows (`shard_row, key, extension, byte_offset, byte_length, crc32c`), in their order.

    Returns:
        What is wrong; empty where all is well.
    """
    try:
        with store.open_stream(shard) as stream:
            hashed = _Hashed(stream)
            problems = list(_check_members(hashed, shard, rows))
            while hashed.read(1 << 20):
                pass
    except (ShardError, StoreError) as error:
        return [Problem(kind="unreadable", path=shard, detail=error.message)]
    name, digest = PurePosixPath(shard).stem, hashed.digest.hexdigest()
    if not is_named_after(name, digest, ((str(row["key"]), str(row["pixel_sha256"])) for row in rows)):
        problems.insert(0, Problem(kind="hash", path=shard, detail=f"its content has SHA-256 {digest[: len(name)]}…"))
    return problems


def _check_members(stream: _Hashed, shard: str, rows: Rows) -> Iterator[Problem]:
    """Walk the tar beside its rows: image, JSON, image, JSON and so on."""
    expected = iter(rows)
    seen = 0
    key = ""
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload] # reads are all it needs
            for member in tar:
                file = tar.extractfile(member)
                data = file.read() if file else b""
                if key:
                    yield from _check_json(shard, key, member.name, data)
                    key = ""
                    continue
                row = next(expected, None)
                if row is None:
                    detail = f"{member.name} is not in the index ({len(rows)} rows)"
                    yield Problem(kind="structure", path=shard, detail=detail)
                    return
                yield from _check_image(shard, row, member, data)
                key, seen = str(row["key"]), seen + 1
    except (tarfile.TarError, EOFError) as error:
        yield Problem(kind="structure", path=shard, detail=str(error))
        return
    if key or seen != len(rows):
        detail = f"{seen} images of {len(rows)}" + (f", no JSON beside {key}" if key else "")
        yield Problem(kind="structure", path=shard, detail=detail)


def _check_image(shard: str, row: Mapping[str, Any], member: tarfile.TarInfo, data: bytes) -> Iterator[Problem]:
    name = f"{row['key']}.{row['extension']}"
    place = (member.name, member.offset_data, len(data))
    if place != (name, row["byte_offset"], row["byte_length"]):
        detail = f"row {row['shard_row']}: {name} at {row['byte_offset']} ({row['byte_length']} bytes) in the index, "
        yield Problem(kind="structure", path=shard, detail=f"{detail}{place[0]} at {place[1]} ({place[2]}) in the tar")
    elif google_crc32c.value(data) != row["crc32c"]:
        detail = f"{name} at offset {row['byte_offset']} has other bytes than the index says"
        yield Problem(kind="checksum", path=shard, detail=detail)


def _check_json(shard: str, key: str, name: str, data: bytes) -> Iterator[Problem]:
    try:
        good = name == f"{key}.json" and isinstance(json.loads(data), dict)
    except ValueError:
        good = False
    if not good:
        yield Problem(kind="structure", path=shard, detail=f"{name} is not the JSON of {key}")
