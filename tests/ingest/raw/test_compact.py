"""Long sequences in little memory, and the walk that fills them."""

from __future__ import annotations

import pytest

from ingest.raw.compact import Compact
from ingest.raw.items import RawItem


@pytest.mark.parametrize("num", [0, 1, 1023, 1024, 1025, 5000])
def test_holds_what_it_was_given(num: int) -> None:
    items = [RawItem(path=f"a/{number}.png", size=number) for number in range(num)]
    held = Compact(iter(items))
    assert (len(held), list(held), held[:3]) == (num, items, items[:3])
    picks = sorted({0, 1, 1023, 1024, num - 1, -1, -num} & set(range(-num, num)))
    assert [held[at] for at in picks] == [items[at] for at in picks]
    with pytest.raises(IndexError):
        held[num]


def test_takes_a_tenth_of_the_memory() -> None:
    num = 9000
    held = Compact(RawItem(path=f"patient{at % 97:03d}/scan/{at:07d}.dcm", size=at) for at in range(num))
    assert sum(len(block) for block in held._blocks) < 40 * num
