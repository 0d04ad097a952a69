"""One shard against its index rows: its hash, the structure of its tar, the place and checksum of each image."""

from __future__ import annotations

import hashlib
import math
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import google_crc32c

from shards.dataset.shard_file import is_named_after
from shards.decode.base import Status
from shards.decode.header import read_header
from shards.decode.library import decode_pixels, upright_size
from shards.errors import ShardError, StoreError
from shards.files import parse_json
from shards.pixels.digest import pixel_sha256
from shards.store import Store

Rows = Sequence[Mapping[str, Any]]
RawItem = tuple[str, str, str]
"""Source, raw path and raw frame: where an image came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: `missing`, `size`, `rows`, `hash`, `structure`, `checksum`, `sidecar`, `pixels`, `duplicate`, `table`,
            `unreadable`, `unread`.
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


def check_shard(store: Store, shard: str, rows: Rows, conceded: Collection[RawItem] = ()) -> list[Problem]:
    """Read one shard and compare it with its rows.

    Args:
        store: The dataset's store.
        shard: Path of the tar.
        rows: Its index rows, in their order.
        conceded: Images that a job has given up because another one held them: they stay in the shard without a row.

    Returns:
        What is wrong; empty where all is well.
    """
    try:
        with store.open_stream(shard) as stream:
            hashed = _Hashed(stream)
            problems = list(_check_members(hashed, shard, rows, conceded))
            while hashed.read(1 << 20):
                pass
    except (ShardError, StoreError) as error:
        return [Problem(kind="unreadable", path=shard, detail=error.message)]
    name, digest = PurePosixPath(shard).stem, hashed.digest.hexdigest()
    if not is_named_after(name, digest, ((str(row["key"]), str(row["pixel_sha256"])) for row in rows)):
        problems.insert(0, Problem(kind="hash", path=shard, detail=f"its content has SHA-256 {digest[: len(name)]}…"))
    return problems


def _check_members(stream: _Hashed, shard: str, rows: Rows, conceded: Collection[RawItem]) -> Iterator[Problem]:
    """Walk the tar beside its rows: image, JSON, image, JSON and so on."""
    expected = {int(row["shard_row"]): row for row in rows}
    number = seen = 0
    image: tuple[tarfile.TarInfo, bytes] | None = None
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload] # reads are all it needs
            for member in tar:
                file = tar.extractfile(member)
                data = file.read() if file else b""
                if image is None:
                    image = (member, data)
                    continue
                row = expected.get(number)
                sidecar = _sidecar(image[0].name, member.name, data)
                if row is not None:
                    yield from _check_sample(shard, row, image, member.name, sidecar)
                    seen += 1
                elif sidecar is None or _raw_item(sidecar) not in conceded:
                    detail = f"{image[0].name} is not in the index ({len(rows)} rows)"
                    yield Problem(kind="structure", path=shard, detail=detail)
                image, number = None, number + 1
    except (tarfile.TarError, EOFError) as error:
        yield Problem(kind="structure", path=shard, detail=str(error))
        return
    if image is not None or seen != len(rows):
        detail = f"{seen} images of {len(rows)}" + (f", no JSON beside {image[0].name}" if image else "")
        yield Problem(kind="structure", path=shard, detail=detail)


def _sidecar(image: str, name: str, data: bytes) -> Mapping[str, Any] | None:
    """The JSON beside an image; None where it is none, or not this image's."""
    try:
        content = parse_json(data)
    except ValueError:
        return None
    return content if isinstance(content, dict) and name == f"{image.rpartition('.')[0]}.json" else None


def _raw_item(sidecar: Mapping[str, Any]) -> RawItem:
    return tuple(str(sidecar.get(name, "")) for name in ("source", "raw_path", "raw_frame"))  # type: ignore[return-value]


def _check_sample(
    shard: str,
    row: Mapping[str, Any],
    image: tuple[tarfile.TarInfo, bytes],
    name: str,
    sidecar: Mapping[str, Any] | None,
) -> Iterator[Problem]:
    problems = list(_check_image(shard, row, *image))
    yield from problems
    if sidecar is None:
        yield Problem(kind="structure", path=shard, detail=f"{name} is not the JSON of {row['key']}")
        return
    for column, value in row.items():
        if column in sidecar and not _same(sidecar[column], value):
            detail = f"{row['key']}: {column} is {sidecar[column]!r} in the tar, {value!r} in the index"
            yield Problem(kind="sidecar", path=shard, detail=detail)
    if not problems:
        yield from _check_pixels(shard, row, image[1], sidecar)


def _same(stated: object, indexed: object) -> bool:
    """Whether a sidecar and a row say the same; JSON has null where a row has NaN."""
    if isinstance(indexed, float) and math.isnan(indexed):
        return stated is None
    return stated == indexed


def _check_image(shard: str, row: Mapping[str, Any], member: tarfile.TarInfo, data: bytes) -> Iterator[Problem]:
    name = f"{row['key']}.{row['extension']}"
    place = (member.name, member.offset_data, len(data))
    if place != (name, row["byte_offset"], row["byte_length"]):
        detail = f"row {row['shard_row']}: {name} at {row['byte_offset']} ({row['byte_length']} bytes) in the index, "
        yield Problem(kind="structure", path=shard, detail=f"{detail}{place[0]} at {place[1]} ({place[2]}) in the tar")
    elif google_crc32c.value(data) != row["crc32c"]:
        detail = f"{name} at offset {row['byte_offset']} has other bytes than the index says"
        yield Problem(kind="checksum", path=shard, detail=detail)


def _check_pixels(shard: str, row: Mapping[str, Any], data: bytes, sidecar: Mapping[str, Any]) -> Iterator[Problem]:
    """The size that the image states against its row; of a PNG that was stored unreduced also the pixels' hash."""
    header = read_header(data)
    if isinstance(header, Status) or header.codec == "other":
        yield Problem(kind="pixels", path=shard, detail=f"{row['key']} is no image that can be read")
        return
    width, height = upright_size(header)
    found = (width, height, header.components or row["channels"])
    indexed = (row["width"], row["height"], row["channels"])
    if found != indexed:
        detail = f"{row['key']} is {_shape(found)} in the tar, {_shape(indexed)} in the index"
        yield Problem(kind="pixels", path=shard, detail=detail)
    elif header.codec == "png" and (sidecar.get("raw_width"), sidecar.get("raw_height")) == (width, height):
        pixels = decode_pixels(data, header, row["channels"])
        picture = pixels if isinstance(pixels, Status) or row["channels"] > 1 else pixels[..., 0]
        if isinstance(picture, Status) or pixel_sha256(picture) != row["pixel_sha256"]:
            detail = f"{row['key']} has other pixels than its hash in the index says"
            yield Problem(kind="pixels", path=shard, detail=detail)


def _shape(shape: tuple[int, int, int]) -> str:
    return "{} x {} pixels of {} channels".format(*shape)
