"""What tells whether a raw file has changed."""

from __future__ import annotations

from ingest.job.unit_writer import stamp_of
from ingest.raw.items import RawItem


def test_the_stamp_is_the_checksum_that_the_archive_states() -> None:
    assert stamp_of(RawItem(path="a.zip", member="b.png", check=0xAB)) == "000000ab"
    assert stamp_of(RawItem(path="b.png")) == ""
