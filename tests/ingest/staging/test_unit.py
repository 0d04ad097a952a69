"""A unit of work goes to other processes."""

from __future__ import annotations

import pickle

from ingest.raw.compact import Compact
from ingest.raw.items import RawItem
from ingest.staging.unit import Unit


def test_a_unit_is_sent_with_its_items() -> None:
    items = [RawItem(path=f"{n}.png", size=n) for n in range(3)]
    sent = pickle.loads(pickle.dumps(Unit(index=2, items=Compact(items))))
    assert sent.index == 2
    assert list(sent.items) == items
