"""What a job drops."""

from __future__ import annotations

from ingest.staging.resolution import WITHHELD, Resolution


def test_withheld_rows_are_dropped_but_no_rejects() -> None:
    found = Resolution(version=1, drops={4: {0: ("duplicate", "x"), 2: WITHHELD}})
    assert set(found.dropped(4)) == {0, 2}
    assert found.rejected(4) == {0: ("duplicate", "x")}
    assert found.dropped(5) == found.rejected(5) == {}
