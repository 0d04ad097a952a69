"""DeLong's variance, Newcombe's interval and the rule that chooses, on numbers that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eval.medmnist.tasks import BINARY, MULTI_CLASS
from eval.scoring.bootstrap import Interval
from eval.scoring.delong import Bounds, Placements, auc_bounds, bounds_of, newcombe_interval, paired_auc
from eval.scoring.metrics import evaluate

NOTHING = Interval(value=0.5, mean=0.5, lower=0.4, upper=0.6)


def scores(seed: int, positives: int, negatives: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.r_[np.ones(positives, int), np.zeros(negatives, int)]
    return labels, rng.normal(size=len(labels)).round(1) + shift * labels


def test_the_variance_by_its_definition() -> None:
    labels, score = scores(0, 12, 17, 1.0)
    placed = Placements.of(labels == 1, score)
    wins = (score[:12, None] > score[None, 12:]) + 0.5 * (score[:12, None] == score[None, 12:])
    assert placed.auc == pytest.approx(wins.mean())
    assert placed.auc == pytest.approx(evaluate(labels, score, BINARY)["auc"])
    expected = wins.mean(axis=1).var(ddof=1) / 12, wins.mean(axis=0).var(ddof=1) / 17
    assert placed.variances == pytest.approx(expected)


@pytest.mark.slow
def test_newcombes_interval_solves_its_equation_and_has_a_width_at_the_ceiling() -> None:
    lower, upper = newcombe_interval(0.9, 20, 30)
    for edge in (lower, upper):
        spare = (20 + 30) / 2 - 1
        variance = edge * (1 - edge) * (1 + spare * (1 - edge) / (2 - edge) + spare * edge / (1 + edge)) / 600
        assert abs(0.9 - edge) / math.sqrt(variance) == pytest.approx(1.959964, rel=1e-5)
    lower, upper = newcombe_interval(1.0, 10, 50)
    assert upper == 1
    assert 0.7 < lower < 0.95
    assert newcombe_interval(0.0, 10, 50)[0] == 0


def test_the_rule() -> None:
    plenty = scores(1, 300, 400, 1.0)
    few = scores(1, 30, 400, 1.0)
    near = scores(1, 300, 400, 4.0)
    methods = [auc_bounds(labels, score, BINARY, bootstrap=NOTHING).method for labels, score in (plenty, few, near)]
    assert methods == ["delong", "delong+newcombe", "delong+newcombe"]
    labels, score = plenty
    other = auc_bounds(labels, np.c_[-score, score], MULTI_CLASS, bootstrap=NOTHING)
    assert other == Bounds(lower=0.4, upper=0.6, method="bootstrap")
    alone = auc_bounds(np.ones(5, int), np.arange(5.0), BINARY, bootstrap=NOTHING)
    assert alone.method == "bootstrap"


@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (1, 20), (20, 1), (2, 2)])
def test_tiny_classes_have_bounds_within_zero_and_one(positives: int, negatives: int) -> None:
    for shift in (0.0, 9.0, -9.0):
        labels, score = scores(0, positives, negatives, shift)
        placed = Placements.of(labels == 1, score)
        bounds = bounds_of(placed)
        assert 0 <= bounds.lower <= placed.auc <= bounds.upper <= 1
        assert bounds.upper - bounds.lower > 0.1


def test_a_difference_is_antisymmetric_and_zero_for_the_same_scores() -> None:
    labels, first = scores(2, 40, 60, 1.5)
    _, second = scores(3, 40, 60, 1.0)
    forth, back = paired_auc(labels, (first, second), BINARY), paired_auc(labels, (second, first), BINARY)
    assert forth is not None
    assert back is not None
    assert (forth.value, forth.lower, forth.upper) == pytest.approx((-back.value, -back.upper, -back.lower))
    assert forth.p_value == pytest.approx(back.p_value)
    same = paired_auc(labels, (first, first), BINARY)
    assert same is not None
    assert (same.value, same.p_value) == (0, 1)
    assert paired_auc(labels, (first, second), MULTI_CLASS) is None


def test_the_p_value_and_the_interval_agree() -> None:
    for seed in range(12):
        labels, first = scores(seed, 30, 60, 1.6)
        _, second = scores(seed + 100, 30, 60, 0.8)
        found = paired_auc(labels, (first, second), BINARY)
        assert found is not None
        assert (found.p_value < 0.05) == (found.lower > 0 or found.upper < 0)


def test_models_that_go_together_differ_more_surely() -> None:
    labels, first = scores(4, 60, 90, 1.5)
    rng = np.random.default_rng(0)
    close = first + 0.1 * rng.normal(size=len(first)) - 0.2 * labels
    _, apart = scores(5, 60, 90, 1.3)
    together, independent = (paired_auc(labels, (first, other), BINARY) for other in (close, apart))
    assert together is not None
    assert independent is not None
    assert together.upper - together.lower < 0.5 * (independent.upper - independent.lower)
