"""The native decoder: one call into C for a chunk of images, without the interpreter lock.

JPEGs go to the extension on libjpeg-turbo in `shards/native`; other codecs go to the library decoder, on the
same interface. The extension is optional: `load` says why it is not there.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from shards.decode.base import Blob, Crops, Mode, slot_channels
from shards.decode.boxes import Boxes
from shards.native.build import HERE, LIBRARY, source_digest

__all__ = ["NativeDecoder", "NativeUnavailableError", "addresses_of", "load", "native_boxes"]

_JPEG: Final = b"\xff\xd8"
Instructions = Literal["best", "portable", "avx2"]
_LEVELS: Final = get_args(Instructions)
"""In the order of BV_BEST, BV_PORTABLE and BV_AVX2 of biovfm_decode.h."""


class NativeUnavailableError(Exception):
    """The extension was not built, is older than its sources, or cannot run here."""


class _Group(ctypes.Structure):
    """`bv_group` of biovfm_decode.h."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("num", "size", "random", "bicubic")),
        *(
            (name, ctypes.c_double)
            for name in (
                "scale_low",
                "scale_high",
                "log_ratio_low",
                "log_ratio_high",
                "ratio_low",
                "ratio_high",
                "flip",
            )
        ),
    )


@functools.cache
def load() -> ctypes.CDLL:
    """The extension.

    Raises:
        NativeUnavailableError: With the reason.
    """
    path = HERE / LIBRARY
    if not path.exists():
        raise NativeUnavailableError("it was not built")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeUnavailableError(str(error)) from error
    pointer, i32 = ctypes.c_void_p, ctypes.c_int32
    for name in ("bv_source", "bv_library", "bv_instructions"):
        getattr(library, name).restype = ctypes.c_char_p
    library.bv_open.restype, library.bv_open.argtypes = pointer, [i32, i32]
    library.bv_close.restype, library.bv_close.argtypes = None, [pointer]
    library.bv_instructions.argtypes = [pointer]
    library.bv_decode.restype = None
    library.bv_decode.argtypes = [pointer, i32, pointer, pointer, pointer, i32, pointer, pointer, i32, i32, pointer]
    library.bv_resize.restype, library.bv_resize.argtypes = i32, [i32, pointer, i32, i32, i32, pointer, i32, i32, i32]
    library.bv_area.restype = i32
    library.bv_area.argtypes = [i32, pointer, ctypes.c_ssize_t, i32, i32, pointer, i32, i32]
    library.bv_boxes.restype = None
    library.bv_boxes.argtypes = [i32, pointer, i32, pointer, pointer, pointer, pointer]
    library.bv_luma.restype, library.bv_luma.argtypes = None, [i32, pointer, ctypes.c_int64, i32, pointer]
    if library.bv_source().decode() != source_digest():
        raise NativeUnavailableError("it was built from other sources")
    context = library.bv_open(0, 0)
    if not context:
        raise NativeUnavailableError("the libjpeg found at run time is not the one it was compiled against")
    library.bv_close(context)
    return library


def addresses_of(blobs: Sequence[Blob]) -> tuple[list[NDArray[np.uint8]], NDArray[np.uintp], NDArray[np.uint64]]:
    """Images as C reads them: views that keep their bytes in place, `(B,)` addresses, `(B,)` numbers of bytes."""
    views = [np.frombuffer(blob, np.uint8) for blob in blobs]
    addresses = np.array([view.__array_interface__["data"][0] for view in views], np.uintp)
    return views, addresses, np.array([len(view) for view in views], np.uint64)


def _group_array(crops: Sequence[Crops]) -> ctypes.Array[_Group]:
    """The groups as C reads them."""
    return (_Group * len(crops))(
        *(
            _Group(
                group.num,
                group.size_px,
                group.kind == "random",
                group.interpolation == "bicubic",
                *group.scale,
                *(math.log(side) for side in group.ratio),
                *group.ratio,
                group.flip_probability,
            )
            for group in crops
        )
    )


def native_boxes(
    seeds: NDArray[np.uint64], group: int, crops: Crops, widths: NDArray[np.int64], heights: NDArray[np.int64]
) -> Boxes:
    """`shards.decode.boxes.crop_boxes`, equal in every bit, in a tenth of its time.

    Raises:
        NativeUnavailableError: The extension cannot be used.
    """
    boxes = np.empty((len(seeds), crops.num, 5), np.float64)
    arrays = (
        np.ascontiguousarray(seeds, np.uint64),
        np.ascontiguousarray(widths, np.int64),
        np.ascontiguousarray(heights, np.int64),
    )
    key, wide, high = (array.ctypes.data for array in arrays)
    load().bv_boxes(len(seeds), key, group, _group_array([crops]), wide, high, boxes.ctypes.data)
    return Boxes(box=boxes[..., :4], flip=boxes[..., 4] != 0)


class NativeDecoder:
    """The decoder on libjpeg-turbo; see `shards.decode.base.Decoder`.

    Args:
        mode: See `shards.decode.base.Mode`.
        instructions: `best` is what the processor has; `avx2` and `portable` leave later ones alone. The pixels are the
            same in every bit.
        read_all: Decode every row and column, not only those that the crops look at; the pixels are the same too.

    Raises:
        NativeUnavailableError: The extension cannot be used.
    """

    name = "native"

    def __init__(self, *, mode: Mode = "fast", instructions: Instructions = "best", read_all: bool = False) -> None:
        self.mode: Mode = mode
        self._instructions: Instructions = instructions
        self._read_all = read_all
        self._contexts: list[int] = []
        self._library = load()

    def decode(
        self,
        blobs: Sequence[Blob],
        seeds: NDArray[np.uint64],
        crops: Sequence[Crops],
        out: Sequence[NDArray[np.uint8]],
    ) -> NDArray[np.int32]:
        """Decode every blob once and write all its crops; see `shards.decode.base.Decoder.decode`."""
        channels = slot_channels(len(blobs), crops, out)
        seeds = np.ascontiguousarray(seeds, np.uint64)
        if seeds.shape != (len(blobs),):
            raise ValueError(f"{seeds.shape} seeds for {len(blobs)} images")
        status = np.empty(len(blobs), np.int32)
        views, addresses, sizes = addresses_of(blobs)
        slots = np.array([array.__array_interface__["data"][0] for array in out], np.uintp)
        context = self._take()
        self._library.bv_decode(
            context,
            len(views),
            addresses.ctypes.data,
            sizes.ctypes.data,
            seeds.ctypes.data,
            len(crops),
            _group_array(crops),
            slots.ctypes.data,
            channels,
            self.mode == "exact",
            status.ctypes.data,
        )
        self._contexts.append(context)
        self._decode_others(blobs, seeds, crops, out, status)
        return status

    def _decode_others(
        self,
        blobs: Sequence[Blob],
        seeds: NDArray[np.uint64],
        crops: Sequence[Crops],
        out: Sequence[NDArray[np.uint8]],
        status: NDArray[np.int32],
    ) -> None:
        rows = [row for row in np.flatnonzero(status).tolist() if bytes(blobs[row][:2]) != _JPEG]
        if not rows:
            return
        from shards.decode.library import LibraryDecoder  # OpenCV costs time and memory that JPEGs do not need

        others = LibraryDecoder(mode=self.mode)
        for row in rows:
            slots = [array[row : row + 1] for array in out]
            status[row] = others.decode([blobs[row]], seeds[row : row + 1], crops, slots)[0]

    def _take(self) -> int:
        """A context that no other thread uses; there are as many as there were calls at the same time."""
        try:
            return self._contexts.pop()
        except IndexError:
            context: int | None = self._library.bv_open(_LEVELS.index(self._instructions), self._read_all)
            if context is None:
                raise MemoryError from None
            return context

    def __reduce__(self) -> tuple[object, ...]:
        remade = functools.partial(
            NativeDecoder, mode=self.mode, instructions=self._instructions, read_all=self._read_all
        )
        return remade, ()

    def __del__(self) -> None:
        for context in getattr(self, "_contexts", []):
            self._library.bv_close(context)

    @property
    def description(self) -> str:
        """Library and instruction set, such as `libjpeg-turbo 2.1.5, AVX2`."""
        context = self._take()
        self._contexts.append(context)
        return f"{self._library.bv_library().decode()}, {self._library.bv_instructions(context).decode()}"
