"""Images of one group are no independent draws."""

from __future__ import annotations

import numpy as np
import pytest

from eval.scoring.bootstrap import intervals, resample_counts
from eval.scoring.delong import auc_bounds


def test_groups_are_drawn_as_a_whole() -> None:
    groups = np.array([7, 7, 7, 2, 2, 9])
    counts = resample_counts(6, 50, groups=groups)
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 1] == counts[:, 2]).all()
    assert (counts[:, 3] == counts[:, 4]).all()
    assert (counts[:, [0, 3, 5]].sum(axis=1) == 3).all()
    assert np.array_equal(resample_counts(6, 5, groups=np.arange(6)), resample_counts(6, 5))


@pytest.mark.slow
def test_copies_of_an_image_make_no_narrower_interval() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, (60, 1)), rng.random((60, 2))
    scores[:, 1] += 0.3 * labels[:, 0]
    single = intervals(labels, scores, "binary-class", threshold=0.5)["auc"]
    many = {"labels": np.repeat(labels, 10, axis=0), "scores": np.repeat(scores, 10, axis=0)}
    together = intervals(**many, kind="binary-class", threshold=0.5, groups=np.repeat(np.arange(60), 10))["auc"]
    apart = intervals(**many, kind="binary-class", threshold=0.5)["auc"]
    assert (together.lower, together.upper) == pytest.approx((single.lower, single.upper))
    assert apart.upper - apart.lower < 0.5 * (single.upper - single.lower)
    assert auc_bounds(**many, kind="binary-class", bootstrap=together, grouped=True).method == "cluster bootstrap"
