"""Members of an archive come out of their compact form as they went in, in either order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.raw.items import RawItem
from ingest.raw.runs import Runs

HOLDER = RawItem(path="a.tar", member="b.zip", kind="tar", offset=512, size=99)
BASE = RawItem(path="a.tar", part=2, parts=(("a.tar.001", 3),), holder=HOLDER)
ITEMS = st.builds(
    lambda **fields: replace(BASE, **fields),
    member=st.text("ab/", min_size=1, max_size=3),
    kind=st.sampled_from(["zip", "reject"]),
    size=st.sampled_from([0, 7, (1 << 64) - 1, 1 << 70, -1]),
    offset=st.integers(0, 1 << 40),
    check=st.integers(0, (1 << 32) - 1),
    detail=st.sampled_from(["", "encrypted"]),
    pieces=st.sampled_from([(), ((0, 5),)]),
)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(ITEMS, max_size=8, unique_by=lambda item: item.member))
def test_items_come_back_in_the_order_asked_for(items: list[RawItem]) -> None:
    runs = Runs(BASE)
    for item in items:
        runs.add(item, [item])
    assert list(runs.items(by_name=False)) == items
    assert list(runs.items(by_name=True)) == sorted(items, key=lambda item: item.member)


def test_an_archive_inside_gives_what_it_holds_or_nothing() -> None:
    runs = Runs(BASE)
    full, empty = replace(BASE, member="z.zip", kind="zip"), replace(BASE, member="y.zip", kind="zip")
    inside = [replace(BASE, member="1.png"), replace(BASE, member="2.png")]
    runs.add(full, inside)
    runs.add(empty, [])
    assert list(runs.items(by_name=True)) == inside


def test_what_a_later_member_replaces_is_ignored() -> None:
    runs = Runs(BASE)
    items = [replace(BASE, member="a.png", kind="zip", offset=n) for n in range(3)]
    for item in items:
        runs.add(item, [item])
    first, second, last = runs.items(by_name=True)
    assert last == items[2]
    assert {first.kind, second.kind} == {"ignored"}
    assert "replaced" in first.detail
