"""NPY and NPZ arrays. Nothing pickled is ever loaded."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, Final

import numpy as np

from ingest.raw.budget import claim
from ingest.raw.items import RawFile, RejectError
from ingest.readers.arrays import TAKEN, Array, Verdict, images_of, named_arrays, verdict_of, wanted_arrays
from ingest.readers.base import RawImage, ReadOptions
from ingest.readers.stacks import array_images

_BROKEN: Final = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, SyntaxError)
_BROKEN_MEMBER: Final = (*_BROKEN, zlib.error, RuntimeError, NotImplementedError)
"""What zipfile raises of a member: it is damaged, needs a password, or is packed in a way that it does not know."""


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """The images of an array, or of the named arrays of an archive, else of all its arrays but masks and labels."""
    data = raw.read()
    if data.startswith(np.lib.format.MAGIC_PREFIX):
        _check_array(data, options)
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
    except _BROKEN as error:
        raise RejectError("unreadable", type(error).__name__) from error
    if isinstance(loaded, np.ndarray):
        yield from array_images(loaded, options)
        return

    def images(array: Array) -> Iterator[RawImage]:
        _check_member(loaded.zip, array.name, len(data), options)
        yield from array_images(loaded[array.name], options, prefix=f"{array.frame}-" if array.frame else "")

    with loaded:
        yield from images_of(_arrays(loaded, options), images)


def _arrays(loaded: Any, options: ReadOptions) -> list[Array]:
    """The arrays of an archive that are taken, and those that are rejects."""
    there = sorted(loaded.files)
    wanted = wanted_arrays(options.frames, there)
    verdicts: dict[str, Verdict | None] = dict.fromkeys(wanted, TAKEN) or {
        name: _verdict(loaded.zip, name) for name in there
    }
    told = {name: verdict for name, verdict in verdicts.items() if verdict is not None}
    return named_arrays(there, told, is_one=len(wanted or there) == 1)


def _verdict(archive: zipfile.ZipFile, name: str) -> Verdict | None:
    """What becomes of a member, by its header alone; None where it is no array of images."""
    info = _info(archive, name)
    try:
        with archive.open(info) as stream:
            return verdict_of(name, *_header(stream))
    except RejectError as error:
        return (error.reason, error.detail) if info.filename != name else None  # numpy itself adds the `.npy`
    except _BROKEN_MEMBER as error:
        return "unreadable", type(error).__name__


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that an array's header states.

    Raises:
        RejectError: It is no such header.
    """
    try:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(stream)
    except _BROKEN as error:
        raise RejectError("unreadable", type(error).__name__) from error
    return shape, dtype


def _check_array(data: bytes, options: ReadOptions) -> None:
    """Raise RejectError where an array's header states more than there is, or more than may be held."""
    stream = io.BytesIO(data)
    shape, dtype = _header(stream)
    stated = math.prod(shape) * dtype.itemsize
    claim(stated + len(data), options.limits, "an array")
    if not dtype.hasobject and stated > len(data) - stream.tell():
        raise RejectError("undecodable", f"{len(data)} bytes, and the header states {stated} of values")


def _info(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The member that holds an array of this name."""
    try:
        return archive.getinfo(name)
    except KeyError:
        return archive.getinfo(f"{name}.npy")


def _check_member(archive: zipfile.ZipFile, name: str, held: int, options: ReadOptions) -> None:
    info = _info(archive, name)
    limits = options.limits
    packed = info.compress_size * limits.max_ratio
    if info.file_size > limits.max_file_bytes or (info.file_size > 1 << 20 and info.file_size > packed):
        raise RejectError("decompression_bomb", f"{info.file_size} bytes")
    claim(held + info.file_size, limits, "an array")
