"""How many processors a process may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.stream import cores


@pytest.mark.parametrize(
    ("quota", "wanted"),
    [(None, 8), ("max 100000", 8), ("250000 100000", 3), ("50000 100000", 1), ("9000000 100000", 8), ("what", 8)],
)
def test_affinity_and_quota_both_count(
    quota: str | None, wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert cores.usable_cores() == wanted
