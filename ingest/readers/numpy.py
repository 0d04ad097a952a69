"""NPY and NPZ arrays. Nothing pickled is ever loaded."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import numpy as np

from ingest.raw.items import RawFile, RejectError
from ingest.readers.base import RawImage, ReadOptions, wanted_arrays
from ingest.readers.stacks import array_images

_BROKEN = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, SyntaxError)


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """The images of an array, or of the named (else every image-like) array of an archive."""
    data = raw.read()
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
            _check_member(loaded.zip, name, options)
            array = loaded[name]
            if wanted or (array.ndim >= 2 and min(array.shape[-3:-1] or (0,)) > 1 and array.dtype.kind in "uifb"):
                yield from array_images(array, options, prefix=f"{_word(name)}-" if len(names) > 1 else "")


def _check_member(archive: zipfile.ZipFile, name: str, options: ReadOptions) -> None:
    info = archive.getinfo(name if name in archive.namelist() else f"{name}.npy")
    limits = options.limits
    packed = info.compress_size * limits.max_ratio
    if info.file_size > limits.max_file_bytes or (info.file_size > 1 << 20 and info.file_size > packed):
        raise RejectError("decompression_bomb", f"{info.file_size} bytes")


def _word(name: str) -> str:
    """The name of an array where it is a plain word; names may be anything, so others become a fixed one."""
    return name if name in ("images", "train_images", "val_images", "test_images", "data", "x", "arr_0") else "array"
