"""Metrics and bootstrap against MedMNIST's evaluator, BioVFM's evaluator (fixtures) and scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.scoring.bootstrap import boot_stats, difference, intervals, order_bounds, paired_difference, resample_counts
from eval.scoring.metrics import METRICS, auc_counts, best_thresholds, evaluate, evaluate_counts

FIXTURES = Path(__file__).parents[1] / "fixtures"
KINDS = ("binary", "multiclass", "ordinal", "multilabel")


@pytest.fixture(scope="module")
def published() -> dict[str, np.ndarray]:
    return dict(np.load(FIXTURES / "medmnist_metrics.npz", allow_pickle=False))


@pytest.fixture(scope="module")
def boot() -> dict[str, np.ndarray]:
    return dict(np.load(FIXTURES / "bootstrap_ci.npz", allow_pickle=False))


@pytest.mark.parametrize("name", [*KINDS, "ties"])
def test_auc_and_acc_are_medmnists(published: dict[str, Any], name: str) -> None:
    got = evaluate(published[f"{name}_y"], published[f"{name}_score"], str(published[f"{name}_task"]))
    assert abs(got["auc"] - published[f"{name}_auc"]) < 1e-9
    assert abs(got["acc"] - published[f"{name}_acc"]) < 1e-9


def test_one_dimensional_scores_and_other_thresholds(published: dict[str, Any]) -> None:
    got = evaluate(published["binary_y"], published["binary_score"][:, -1], "binary-class")
    assert abs(got["auc"] - published["binary_1d_score_auc"]) < 1e-9
    assert abs(got["acc"] - published["binary_1d_score_acc"]) < 1e-9
    many = evaluate(
        published["multilabel_y"], published["multilabel_score"], "multi-label, binary-class", threshold=0.3
    )
    assert abs(many["accuracy"] - published["multilabel_acc_thr0.3"]) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_medmnists_own_evaluator_agrees(published: dict[str, Any], name: str) -> None:
    from medmnist.evaluator import getACC, getAUC

    labels, scores, task = (published[f"{name}_{part}"] for part in ("y", "score", "task"))
    got = evaluate(labels, scores, str(task))
    assert abs(got["auc"] - getAUC(labels, scores, str(task))) < 1e-9
    assert abs(got["acc"] - getACC(labels, scores, str(task))) < 1e-9


@pytest.mark.parametrize("name", KINDS)
def test_every_resample_is_the_authors(boot: dict[str, Any], name: str) -> None:
    labels, scores, kind = boot[f"{name}_y"], boot[f"{name}_score"], str(boot[f"{name}_task"])
    names = [str(metric) for metric in boot[f"{name}_metric_names"]]
    columns = [METRICS.index(metric) for metric in names]
    threshold = boot[f"{name}_threshold"]
    stats = boot_stats(labels, scores, kind, threshold=threshold, num_resamples=int(boot["n_boot"]))[:, columns]
    assert np.abs(stats - boot[f"{name}_boot_stats"]).max() < 1e-9
    points = evaluate(labels, scores, kind, threshold=threshold)
    assert np.allclose([points[metric] for metric in names], boot[f"{name}_point"], rtol=0, atol=1e-9)
    mean, lower, upper = boot[f"{name}_ci_mean_lower_upper"]
    assert np.array_equal(np.round(stats.mean(axis=0), 4), mean)
    bounds = [order_bounds(column) for column in stats.T]
    assert np.array_equal(np.round([low for low, _ in bounds], 4), lower)
    assert np.array_equal(np.round([high for _, high in bounds], 4), upper)


def test_resamples_and_bounds_are_the_authors(boot: dict[str, Any]) -> None:
    counts = resample_counts(boot["resample_indices_first3"].shape[1], 3)
    for row, drawn in zip(counts, boot["resample_indices_first3"], strict=True):
        assert np.array_equal(row, np.bincount(drawn, minlength=len(row)))
    values, expected = boot["ci_input_1000"], boot["ci_output_1000_mean_lower_upper"]
    for column in range(values.shape[1]):
        low, high = order_bounds(values[:, column])
        assert np.allclose([round(low, 4), round(high, 4)], expected[1:, column], atol=1e-12)


@pytest.mark.parametrize("name", ["binary", "multilabel"])
def test_threshold_of_the_best_matthews_correlation(boot: dict[str, Any], name: str) -> None:
    got = best_thresholds(boot[f"{name}_val_y"], boot[f"{name}_val_score"], str(boot[f"{name}_task"]))
    assert np.abs(got - np.atleast_1d(boot[f"{name}_threshold"])).max() < 1e-12


def test_thinned_thresholds_follow_the_authors() -> None:
    from sklearn.metrics import roc_curve

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 6000)
    score = rng.normal(size=6000) + 0.3 * labels
    candidates = np.sort(roc_curve(labels, score)[2][1:])
    assert len(candidates) > 2000
    candidates = candidates[:: int(len(candidates) / 1000)]
    correlations = [
        np.corrcoef(labels, score >= candidate)[0, 1] if (score < candidate).any() else 0.0 for candidate in candidates
    ]
    assert best_thresholds(labels[:, None], score, "binary-class")[0] == candidates[np.argmax(correlations)]


def test_multi_class_metrics_are_sklearns_even_with_classes_missing() -> None:
    from sklearn import metrics as sk

    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 3, 80), rng.random((80, 5)) * [1, 1, 1, 1, 0]
    drawn = rng.integers(0, 12, 80)
    called, true = scores.argmax(axis=1)[drawn], labels[drawn]
    counts = np.bincount(drawn, minlength=80)[None]
    got = dict(
        zip(METRICS, evaluate_counts(labels, scores, "multi-class", counts=counts, threshold=0.5)[0], strict=True)
    )
    assert set(true) | set(called) == {0, 1, 2, 3}
    assert got["f1_macro"] == pytest.approx(sk.f1_score(true, called, average="macro"), abs=1e-12)
    assert got["mcc"] == pytest.approx(sk.matthews_corrcoef(true, called), abs=1e-12)
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(true, called), abs=1e-12)


def test_auc_without_positives_is_unknown() -> None:
    counts = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    auc = auc_counts(np.array([False, False, True]), np.array([0.1, 0.2, 0.3]), counts)
    assert np.isnan(auc[0])
    assert auc[1] == 1.0
    assert order_bounds(auc) == (1.0, 1.0)


def test_wrong_shapes_and_values_are_refused() -> None:
    with pytest.raises(ValueError, match="3 labels but 2 scores"):
        evaluate(np.zeros((3, 1), dtype=int), np.zeros((2, 2)), "binary-class")
    with pytest.raises(ValueError, match="nan"):
        evaluate(np.zeros((2, 1), dtype=int), np.array([[0.0, np.nan], [0.0, 1.0]]), "binary-class")
    with pytest.raises(ValueError, match=r"labels \(2, 3\)"):
        evaluate(np.zeros((2, 3), dtype=int), np.zeros((2, 2)), "multi-label, binary-class")


def test_intervals_hold_their_value_and_paired_differences_find_the_better_model(published: dict[str, Any]) -> None:
    labels, scores = published["multiclass_y"], published["multiclass_score"]
    found = intervals(labels, scores, "multi-class", threshold=0.5, num_resamples=200)
    assert all(interval.lower <= interval.value <= interval.upper for interval in found.values())
    better = scores + 0.5 * (labels == np.arange(scores.shape[1]))
    result = paired_difference(labels, (better, scores), "multi-class", num_resamples=200)
    assert result.lower > 0
    assert result.p_value == 1 / 200
    same = paired_difference(labels, (scores, scores), "multi-class", num_resamples=200)
    assert (same.value, same.lower, same.upper, same.p_value) == (0, 0, 0, 1.0)


def test_a_difference_of_nothing_but_unknowns_is_unknown() -> None:
    result = difference(0.1, np.full(5, np.nan))
    assert np.isnan([result.lower, result.upper, result.p_value]).all()
