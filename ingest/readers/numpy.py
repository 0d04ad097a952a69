"""NPY and NPZ arrays. Nothing pickled is ever loaded."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator

import numpy as np

from ingest.raw.budget import claim
from ingest.raw.items import RawFile, RejectError
from ingest.readers.base import RawImage, ReadOptions, is_mask_name, wanted_arrays
from ingest.readers.stacks import array_images

_BROKEN = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, SyntaxError)


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """The images of an array, or of the named array of an archive, else of all its arrays but masks and labels."""
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
    with loaded:
        wanted = wanted_arrays(options.frames, loaded.files)
        names = wanted or sorted(loaded.files)
        for name in names:
            if not wanted and is_mask_name(name):
                continue
            _check_member(loaded.zip, name, len(data), options)
            array = loaded[name]
            sides = array.shape[-3:-1] if array.ndim > 2 else array.shape
            if wanted or (array.ndim >= 2 and min(sides) > 1 and array.dtype.kind in "uifb"):
                yield from array_images(array, options, prefix=f"{_word(name)}-" if len(names) > 1 else "")


def _check_array(data: bytes, options: ReadOptions) -> None:
    """Raise RejectError where an array's header states more than there is, or more than may be held."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(stream)
    except _BROKEN as error:
        raise RejectError("unreadable", type(error).__name__) from error
    stated = math.prod(shape) * dtype.itemsize
    claim(stated + len(data), options.limits, "an array")
    if not dtype.hasobject and stated > len(data) - stream.tell():
        raise RejectError("undecodable", f"{len(data)} bytes, and the header states {stated} of values")


def _check_member(archive: zipfile.ZipFile, name: str, held: int, options: ReadOptions) -> None:
    info = archive.getinfo(name if name in archive.namelist() else f"{name}.npy")
    limits = options.limits
    packed = info.compress_size * limits.max_ratio
    if info.file_size > limits.max_file_bytes or (info.file_size > 1 << 20 and info.file_size > packed):
        raise RejectError("decompression_bomb", f"{info.file_size} bytes")
    claim(held + info.file_size, limits, "an array")


def _word(name: str) -> str:
    """The name of an array where it is a plain word; names may be anything, so others become a fixed one."""
    return name if name in ("images", "train_images", "val_images", "test_images", "data", "x", "arr_0") else "array"
