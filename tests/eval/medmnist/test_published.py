"""The table of published probes: whole, sourced, and marked as another protocol."""

from __future__ import annotations

import pytest

from eval.medmnist.published import MARK, published_columns, published_probes, published_rows
from eval.medmnist.tasks import TASKS


def test_every_row_has_all_tasks_and_a_source() -> None:
    rows = published_probes()
    assert len(rows) == 9
    for row in rows:
        assert set(row.auc) == set(TASKS)
        assert all(0.5 < auc <= 1 for auc in row.auc.values())
        assert row.source
        assert "px" in row.protocol


def test_the_mean_over_the_twelve_tasks_is_the_published_one() -> None:
    means = {row[0]: row[-3] for row in published_rows(list(TASKS))}
    assert means["DINO ViT-B/16 (ImageNet)"] == "0.950"
    dino = published_probes()[0]
    assert 100 * sum(dino.auc.values()) / 12 == pytest.approx(94.99, abs=0.005)


def test_rows_of_some_tasks() -> None:
    rows = published_rows(["breastmnist", "my own task"])
    assert {len(row) for row in rows} == {len(published_columns(["breastmnist", "my own task"]))}
    assert rows[0][1] == "0.934"
    assert all(row[-2].startswith(MARK) for row in rows)
    assert published_rows(["my own task"]) == []
