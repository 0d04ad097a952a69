"""Locations column by column are the same as locations one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shards.read.locations import Location, Locations

NUMBER = st.integers(0, 2**40)
LOCATION = st.builds(
    Location,
    key=st.text(max_size=5),
    shard=st.sampled_from(["a.tar", "b.tar", "c.tar"]),
    offset=NUMBER,
    length=NUMBER,
    crc32c=st.integers(0, 2**32 - 1),
    dense_end=NUMBER,
)


@given(places=st.lists(LOCATION, max_size=12), start=st.integers(0, 12), stop=st.integers(0, 12))
def test_locations_are_a_sequence_of_locations(places: list[Location], start: int, stop: int) -> None:
    columns = Locations.of(places)
    assert list(columns) == places
    assert list(columns[start:stop]) == places[start:stop]
    assert [int(length) for length in columns.lengths] == [place.length for place in places]
    assert Locations.of(columns) is columns


def test_an_element_is_made_of_plain_numbers() -> None:
    (place,) = Locations.of([Location("k", "a.tar", 512, 7, 9)])
    assert [type(value) for value in place] == [str, str, int, int, int, int]
