"""What a listing passes over is counted, with a few examples."""

from __future__ import annotations

from ingest.job.leftovers import NUM_EXAMPLES, Leftovers


def test_kinds_are_counted_and_the_first_examples_kept() -> None:
    left = Leftovers()
    for number in range(NUM_EXAMPLES + 2):
        left.add("masks", f"{number}.png", archive="a.zip")
    left.add("other", "b.txt")
    left.add("other", "c.txt", archive="a.zip")
    assert left.counts == {"masks": NUM_EXAMPLES + 2, "other": 2}
    assert left.examples == {"masks": [f"{number}.png" for number in range(NUM_EXAMPLES)], "other": ["b.txt", "c.txt"]}
    assert left.archives == {"a.zip": {"masks", "other"}}
