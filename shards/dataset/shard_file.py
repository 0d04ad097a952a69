"""WebDataset shards: plain ustar files whose bytes depend on their samples alone.

A sample is two members, `<key>.jpg` (or `.png`) and then `<key>.json`. Time, owner and mode are fixed, JSON keys are
sorted, so that the same samples in the same order give the same file whoever writes it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, BinaryIO, Self

import google_crc32c

from shards.errors import ShardError
from shards.files import json_object
from shards.schema import MODALITIES, is_name, modality_folder

_BLOCK = tarfile.BLOCKSIZE
_TAGS = {modality_folder(modality): modality for modality in MODALITIES}
IMAGE_EXTENSIONS = ("jpg", "png")
_FLUSH_BYTES = 8 << 20
_FULL_DISK_SECONDS = 5.0
_FULL_DISK_PAUSE_SECONDS = 0.1
_NAME_BYTES = 100
_MOST_BYTES = 8**11
_DAMAGED = "the tar is cut or damaged; run `biovfm verify --deep`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image as it stands in a shard.

    Attributes:
        key: Unique name, `[0-9a-z_-]+`.
        extension: `jpg` or `png`.
        image: The compressed image.
        meta: What a reader of the bare tar needs to know; JSON values only.
    """

    key: str
    extension: str
    image: bytes
    meta: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A sample as it lies in a shard: both members with headers and padding.

    Attributes:
        key: Of the sample.
        data: The bytes of both members, whole tar blocks.
        byte_length: Of the image, which begins behind the first header.
    """

    key: str
    data: bytes
    byte_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a sample came to lie in its shard: row, first image byte, image bytes and their CRC-32C."""

    shard_row: int
    byte_offset: int
    byte_length: int
    crc32c: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """A finished shard on local disk: file, SHA-256 (hex), bytes and samples."""

    path: Path
    sha256: str
    size: int
    num_samples: int


def shard_path(source: str, modality: str, sha256: str) -> str:
    """The path of a shard below its dataset, named after its content."""
    return f"shards/{source}/{modality_folder(modality)}/{sha256[:20]}.tar"


def canonical_path(source: str, modality: str, position: int, samples: Iterable[tuple[str, str]]) -> str:
    """The path of a shard of the canonical form, named after its position and its samples.

    Args:
        source: Source id.
        modality: Modality tag.
        position: Number of the shard among those of the source and modality, from 0.
        samples: Key and pixel SHA-256 of each, in order.
    """
    name = f"{position:06d}-{_samples_digest(samples)}"
    return f"shards/{source}/{modality_folder(modality)}/{name}.tar"


def is_named_after(stem: str, sha256: str, samples: Iterable[tuple[str, str]]) -> bool:
    """Whether a shard has the name of its content.

    Args:
        stem: Its name without `.tar`.
        sha256: SHA-256 (hex) of its bytes.
        samples: Key and pixel SHA-256 of each of its samples, in order, as the index has them.
    """
    position, dash, digest = stem.partition("-")
    if dash and position.isdigit():
        return digest == _samples_digest(samples)
    return sha256.startswith(stem)


def _samples_digest(samples: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for key, pixel_sha256 in samples:
        digest.update(f"{key} {pixel_sha256}\n".encode())
    return digest.hexdigest()[:20]


def shard_tags(path: str) -> tuple[str, str]:
    """Source id and modality tag of a shard, from its path below the dataset.

    Raises:
        ShardError: It is no shard's path.
    """
    parts = path.split("/")
    if len(parts) != 4 or parts[2] not in _TAGS:
        raise ShardError(f"{path} is no path of a shard", hint="run `biovfm verify` on the dataset")
    return parts[1], _TAGS[parts[2]]


class ShardWriter:
    """Writes one shard to a local file.

    Args:
        path: The file to make; `close` finishes it, leaving the `with` block on an error removes it.
        durable: Whether `close` returns only when the file is on the disk. It is written out as it grows, beside the
            work of the caller, who waits for its last part alone.
    """

    def __init__(self, path: Path, *, durable: bool = False) -> None:
        self.path = path
        self._durable = durable
        self._flush: Thread | None = None
        self._flushed = 0
        self.size = 0
        self.num_samples = 0
        self._hash = hashlib.sha256()
        self._file = path.open("xb", buffering=0)
        self._is_cut = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.closed:
            self._wait()
            self._file.close()
            self.path.unlink()

    def add(self, sample: Sample) -> Placement:
        """Append one sample.

        Raises:
            ShardError: The key or the extension is not allowed.
        """
        if not is_name(sample.key) or sample.extension not in IMAGE_EXTENSIONS:
            raise ShardError(f"{sample.key}.{sample.extension} is no sample name ([0-9a-z_-]+ and jpg or png)")
        offset = self._member(f"{sample.key}.{sample.extension}", sample.image)
        meta = json.dumps(dict(sample.meta), sort_keys=True, separators=(",", ":"), allow_nan=False)
        self._member(f"{sample.key}.json", meta.encode())
        return self._place(offset, sample.image)

    def add_block(self, block: Block) -> Placement:
        """Append a sample as it lies in another shard: the same bytes as `add` would write, several times as fast."""
        offset = self.size + _BLOCK
        self._write(block.data)
        return self._place(offset, memoryview(block.data)[_BLOCK : _BLOCK + block.byte_length])

    def _place(self, offset: int, image: bytes | memoryview) -> Placement:
        self.num_samples += 1
        return Placement(
            shard_row=self.num_samples - 1,
            byte_offset=offset,
            byte_length=len(image),
            crc32c=google_crc32c.value(bytes(image)),
        )

    def close(self) -> ShardFile:
        """Finish the file."""
        self._write(b"\0" * 2 * _BLOCK)
        self._write(b"\0" * (-self.size % tarfile.RECORDSIZE))
        self._wait()
        if self._durable:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        return ShardFile(path=self.path, sha256=self._hash.hexdigest(), size=self.size, num_samples=self.num_samples)

    def _member(self, name: str, data: bytes) -> int:
        self._write(_header(name, len(data)))
        offset = self.size
        self._write(data)
        self._write(b"\0" * (-len(data) % _BLOCK))
        return offset

    def _write(self, data: bytes) -> None:
        self._put(data)
        self._hash.update(data)
        self.size += len(data)
        if self._durable and self.size - self._flushed >= _FLUSH_BYTES:
            self._wait()
            self._file.flush()
            self._flushed = self.size
            self._flush = Thread(target=_sync, args=(self._file.fileno(),), daemon=True)
            self._flush.start()

    def _put(self, data: bytes) -> None:
        """Write all of the data, waiting a moment where the disk is full; file and hash never disagree.

        Raises:
            OSError: The disk stays full, or fails. The shard is of no use any more.
            ShardError: So it was before.
        """
        if self._is_cut:
            raise ShardError(f"{self.path.name} could not be written to its end", hint="free disk space")
        left = memoryview(data)
        patience = time.monotonic() + _FULL_DISK_SECONDS
        while left:
            try:
                left = left[self._file.write(left) :]
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or time.monotonic() > patience:
                    self._is_cut = True
                    raise
                time.sleep(_FULL_DISK_PAUSE_SECONDS)

    def _wait(self) -> None:
        if self._flush is not None:
            self._flush.join()
            self._flush = None


def _header(name: str, size: int) -> bytes:
    """What `tarfile` makes of a file with this name and size, ten times as fast; only ASCII names come here."""
    if len(name) > _NAME_BYTES or size >= _MOST_BYTES:
        raise ShardError(f"{name}: a name or member too long for a tar", hint="choose a shorter source id")
    header = bytearray(_blank_header())
    header[: len(name)] = name.encode("ascii")
    header[124:135] = b"%011o" % size
    header[148:154] = b"%06o" % (sum(header) & 0o777777)
    header[154:156] = b"\0 "
    return bytes(header)


@cache
def _blank_header() -> bytes:
    """All that the headers share; spaces where the checksum goes, as the checksum wants it."""
    info = tarfile.TarInfo("")
    info.mode = 0o644
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[148:156] = b" " * 8
    return bytes(header)


def _sync(handle: int) -> None:
    with suppress(OSError):  # `close` syncs again and fails where this did
        os.fsync(handle)


def read_blocks(stream: BinaryIO, *, name: str = "shard") -> Iterator[Block]:
    """The samples of a shard that `ShardWriter` made, in order, unparsed.

    Args:
        stream: The tar, readable from its start; need not seek.
        name: What to call it in an error.

    Raises:
        ShardError: The tar is cut or damaged, or its members are not image–JSON pairs.
    """
    while head := _read_member(stream, name):
        member, data = head
        key, _, extension = member.rpartition(".")
        beside = _read_member(stream, name)
        if extension not in IMAGE_EXTENSIONS or beside is None or beside[0] != f"{key}.json":
            raise ShardError(f"{name}: {key} has no JSON beside it", hint=_DAMAGED)
        yield Block(key=key, data=data + beside[1], byte_length=_size_of(data))


def _read_member(stream: BinaryIO, name: str) -> tuple[str, bytes] | None:
    """The next member's name and bytes with header and padding; None at the end of the tar."""
    header = stream.read(_BLOCK)
    if header == b"\0" * _BLOCK:
        return None
    if len(header) < _BLOCK:
        raise ShardError(f"{name}: the tar ends before its end mark", hint=_DAMAGED)
    member = header[:_NAME_BYTES].rstrip(b"\0").decode("latin-1")
    if not member.isascii() or header != _header(member, _size_of(header)):
        raise ShardError(f"{name}: a header that no shard has", hint=_DAMAGED)
    padded = -(-_size_of(header) // _BLOCK) * _BLOCK
    body = stream.read(padded)
    if len(body) < padded:
        raise ShardError(f"{name}: the tar ends in the middle of {member}", hint=_DAMAGED)
    return member, header + body


def json_of(header: bytes, *, key: str, where: str) -> int:
    """The size of a sample's JSON.

    Args:
        header: The tar header behind the image.
        key: Of the sample.
        where: What to call the place in an error.

    Raises:
        ShardError: It is not the header of this sample's JSON.
    """
    size = _size_of(header)
    if header != _header(f"{key}.json", size):
        raise ShardError(f"{where} has no JSON beside it", hint=_DAMAGED)
    return size


def _size_of(header: bytes) -> int:
    """What the header of a member says of its size."""
    digits = header[124:135]
    return int(digits, 8) if digits.isdigit() else 0


def meta_of(data: bytes, *, where: str) -> dict[str, Any]:
    """What the JSON beside an image says.

    Raises:
        ShardError: It is damaged.
    """
    return json_object(data, where=where, error=ShardError, hint=_DAMAGED)


def read_samples(stream: BinaryIO, *, name: str = "shard") -> Iterator[Sample]:
    """The samples of a shard, in order.

    Args:
        stream: The tar, readable from its start; need not seek.
        name: What to call it in an error.

    Raises:
        ShardError: The tar is cut, or its members are not image–JSON pairs.
    """
    image: tuple[str, str, bytes] | None = None
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                file = tar.extractfile(member)
                key, _, extension = member.name.rpartition(".")
                if file is None or (image is None) == (extension == "json"):
                    raise ShardError(f"{name}: unexpected member {member.name}", hint="run `biovfm verify --deep`")
                data = file.read()
                if image is None:
                    image = (key, extension, data)
                    continue
                if image[0] != key:
                    raise ShardError(f"{name}: {image[0]} has no JSON beside it", hint="run `biovfm verify --deep`")
                yield Sample(key=key, extension=image[1], image=image[2], meta=meta_of(data, where=f"{name}: {key}"))
                image = None
    except (tarfile.TarError, EOFError) as error:
        raise ShardError(f"{name}: {error}", hint="the tar is cut or corrupt; run `biovfm verify --deep`") from error
    if image is not None:
        raise ShardError(f"{name}: {image[0]} has no JSON beside it", hint="run `biovfm verify --deep`")
