"""Philox4x32-10, a counter-based random generator: numbers are a pure function of (key, counter), without a state.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); the known-answer vectors of
its Random123 library pin this implementation. A block of four words costs ten rounds of two 32 x 32 → 64 bit
products, so any element of any stream is computed in O(1): order, crops and flips need no replay after a restart.

Integers only, no platform library is asked: the same bits on every machine.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["bounded", "fold", "permutation", "philox", "uniform", "words"]

_MULTIPLIER: Final = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL: Final = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW: Final = np.uint64(0xFFFFFFFF)
_32: Final = np.uint64(32)
_ROUNDS: Final = 10
_STEPS: Final = np.array([[int(step) * index % 2**32 for index in range(_ROUNDS)] for step in _WEYL], dtype=np.uint64)
_FOLD: Final = 0x464F4C44
_PERMUTE: Final = 0x5045524D


def philox(key: ArrayLike, counter: tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]) -> NDArray[np.uint32]:
    """The block of four words at `counter`.

    Args:
        key: `(...)` uint64; the low half is the first key word.
        counter: Four arrays of 32-bit words, broadcast with `key`.

    Returns:
        `(..., 4)` uint32.
    """
    keys = np.asarray(key, dtype=np.uint64)
    k0 = ((keys & _LOW) + _STEPS[0].reshape(-1, *[1] * keys.ndim)) & _LOW
    k1 = ((keys >> _32) + _STEPS[1].reshape(-1, *[1] * keys.ndim)) & _LOW
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(word, dtype=np.uint64) for word in counter))
    for index in range(_ROUNDS):
        p0, p1 = _MULTIPLIER[0] * c0, _MULTIPLIER[1] * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0[index], p1 & _LOW, (p0 >> _32) ^ c3 ^ k1[index], p0 & _LOW
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3), axis=-1).astype(np.uint32)


def fold(key: ArrayLike, *numbers: ArrayLike) -> NDArray[np.uint64]:
    """A new key from a key and integers, one after the other: `fold(seed, epoch, lane)`.

    Args:
        key: `(...)` uint64.
        numbers: Integers in [0, 2^64), broadcast with `key`.

    Returns:
        `(...)` uint64; for a fixed key each number gives its own, well mixed key.
    """
    keys = np.asarray(key, dtype=np.uint64)
    for number in numbers:
        value = np.asarray(number, dtype=np.uint64)
        block = philox(keys, (value & _LOW, value >> _32, 0, _FOLD))
        keys = block[..., 0] | (block[..., 1].astype(np.uint64) << _32)
    return keys


def words(key: ArrayLike, num: int, *, stream: int = 0) -> NDArray[np.uint64]:
    """The first `num` random 64-bit words of a stream.

    Args:
        key: `(...)` uint64, one key or many.
        num: How many.
        stream: Which of the key's 2^32 streams.

    Returns:
        `(..., num)` uint64.
    """
    keys = np.asarray(key, dtype=np.uint64)
    block = philox(keys[..., None], (np.arange((num + 1) // 2), 0, stream, _PERMUTE)).astype(np.uint64)
    pairs = block.reshape(*keys.shape, -1, 2)[..., :num, :]
    both: NDArray[np.uint64] = (pairs[..., 0] << _32) | pairs[..., 1]
    return both


def uniform(key: int | np.uint64, num: int, *, stream: int = 0) -> NDArray[np.float64]:
    """The first `num` uniform numbers of a stream, in [0, 1) with 53 bits.

    Returns:
        `(num,)` float64.
    """
    return (words(key, num, stream=stream) >> np.uint64(11)).astype(np.float64) * np.float64(2.0**-53)


def bounded(word: NDArray[np.uint32], limit: ArrayLike) -> NDArray[np.int64]:
    """Random words scaled to integers in [0, limit).

    Args:
        word: `(...)` uint32 random words.
        limit: Exclusive upper ends, at most 2^31; broadcast with `word`.

    Returns:
        `(...)` int64; the bias of a value is below `limit` / 2^32.
    """
    return ((word.astype(np.uint64) * np.asarray(limit, dtype=np.uint64)) >> _32).astype(np.int64)


def permutation(num: int, key: int | np.uint64, *, stream: int = 0) -> NDArray[np.int64]:
    """A random permutation of `range(num)`: the argsort of 64-bit words, in O(num log num).

    Args:
        num: How many elements.
        key: 64-bit key.
        stream: Which of the key's 2^32 streams.

    Returns:
        `(num,)` int64.
    """
    return np.argsort(words(key, num, stream=stream), kind="stable").astype(np.int64)
