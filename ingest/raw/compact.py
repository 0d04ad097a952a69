"""Long sequences in little memory: a source may have millions of raw files, and a job holds its whole listing."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Final, TypeVar, overload

T_co = TypeVar("T_co", covariant=True)

_BLOCK: Final = 1024
_FASTEST: Final = 1


class Compact(Sequence[T_co]):
    """A sequence kept as compressed blocks of this process's own objects; some 10 to 40 bytes per raw file, not 400.

    Going through it unpacks one block after the other; picking single items far apart unpacks a block each.

    Args:
        items: What it holds, gone through once and never all in memory.
    """

    def __init__(self, items: Iterable[T_co] = ()) -> None:
        self._length = 0
        self._blocks: list[bytes] = []
        rest = iter(items)
        while block := list(islice(rest, _BLOCK)):
            self._length += len(block)
            self._blocks.append(zlib.compress(pickle.dumps(block, pickle.HIGHEST_PROTOCOL), _FASTEST))

    def __len__(self) -> int:
        """How many items it holds."""
        return self._length

    def __iter__(self) -> Iterator[T_co]:
        """All items, a block in memory at a time."""
        return chain.from_iterable(map(self._unpack, range(len(self._blocks))))

    @overload
    def __getitem__(self, at: int) -> T_co: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[T_co]: ...
    def __getitem__(self, at: int | slice) -> T_co | Sequence[T_co]:
        """One item, or a list of some."""
        if isinstance(at, slice):
            return [self[position] for position in range(*at.indices(self._length))]
        position = range(self._length)[at]
        return self._unpack(position // _BLOCK)[position % _BLOCK]

    def _unpack(self, block: int) -> list[T_co]:
        found: list[T_co] = pickle.loads(zlib.decompress(self._blocks[block]))  # noqa: S301  # what __init__ packed
        return found
