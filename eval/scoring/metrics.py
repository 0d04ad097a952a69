"""Metrics of a classification task from its scores, by MedMNIST's definitions, for a sample or a thousand resamples.

Everything is computed from *counts*: how often each image occurs in a resample. One pass over the whole test split
(all counts 1) gives the point value, and a (B, N) matrix of counts gives B bootstrap values with the same code.

- `auc`: area under the ROC curve; one against the rest, averaged over classes or labels (as MedMNIST 3.0.2 does).
- `acc`: MedMNIST's accuracy: arg max, or score > 0.5 in binary and multi-label tasks (mean over the labels).
- `accuracy`, `balanced_accuracy`, `f1_micro`, `f1_macro`, `recall_micro`, `recall_macro`, `mcc`: at the threshold
  that was chosen on the validation split in binary and multi-label tasks, at arg max otherwise (BioVFM's evaluator).

Cost: O(B · N · K) time and O(`_CHUNK` · N) memory for B resamples of N images with K classes.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from eval.medmnist.tasks import BINARY, MULTI_LABEL, Kind

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer[Any]]

METRICS: Final = (
    "auc",
    "acc",
    "accuracy",
    "balanced_accuracy",
    "f1_micro",
    "f1_macro",
    "recall_micro",
    "recall_macro",
    "mcc",
)
DEFAULT_THRESHOLD: Final = 0.5
_MAX_THRESHOLDS: Final = 1000
_CHUNK: Final = 64


def evaluate(
    labels: Labels, scores: Floats, kind: Kind, *, threshold: Floats | float = DEFAULT_THRESHOLD
) -> dict[str, float]:
    """All metrics of one set of predictions.

    Args:
        labels: (N, 1) or (N,) class numbers, or (N, L) zeros and ones in multi-label tasks.
        scores: (N, K) one score a class or label; binary tasks use the last column, or (N,) as it is.
        kind: One of MedMNIST's four kinds.
        threshold: One value, or one a label; scores strictly above it are positive. Unused at arg max.

    Returns:
        Metric → value; `METRICS` lists the names.

    Raises:
        ValueError: Shapes do not agree, or a score is not finite.
    """
    counts = np.ones((1, len(scores)), dtype=np.float64)
    values = evaluate_counts(labels, scores, kind, counts=counts, threshold=threshold)[0]
    return dict(zip(METRICS, map(float, values), strict=True))


def evaluate_counts(
    labels: Labels, scores: Floats, kind: Kind, *, counts: npt.NDArray[Any], threshold: Floats | float
) -> Floats:
    """All metrics of several resamples at once.

    Args:
        labels: As in `evaluate`.
        scores: As in `evaluate`.
        kind: One of MedMNIST's four kinds.
        counts: (B, N) how often image n occurs in resample b.
        threshold: As in `evaluate`.

    Returns:
        (B, len(METRICS)) float64; `nan` where a resample lacks a class that the metric needs.
    """
    targets, columns = _targets(labels, scores, kind)
    parts = []
    for start in range(0, len(counts), _CHUNK):
        chunk = counts[start : start + _CHUNK].astype(np.float64)
        parts.append(_evaluate_chunk(targets, columns, kind, chunk, threshold))
    return np.concatenate(parts)


def _evaluate_chunk(
    targets: npt.NDArray[np.bool_], columns: Floats, kind: Kind, counts: Floats, threshold: Floats | float
) -> Floats:
    auc = np.stack([auc_counts(targets[:, k], columns[:, k], counts) for k in range(columns.shape[1])]).mean(axis=0)
    if kind in (BINARY, MULTI_LABEL):
        acc = _rates(*_label_cells(targets, columns > DEFAULT_THRESHOLD, counts))["accuracy"]
        decided = columns > np.reshape(np.asarray(threshold, dtype=np.float64), (1, -1))
        rates = _rates(*_label_cells(targets, decided, counts))
    else:
        rates = _class_rates(_confusion(targets, columns, counts))
        acc = rates["accuracy"]
    rates |= {"auc": auc, "acc": acc}
    return np.stack([rates[name] for name in METRICS], axis=1)


def _targets(labels: Labels, scores: Floats, kind: Kind) -> tuple[npt.NDArray[np.bool_], Floats]:
    """One column of booleans and one of scores for each one-against-the-rest question."""
    labels = np.asarray(labels).reshape(len(labels), -1)
    scores = np.asarray(scores, dtype=np.float64).reshape(len(scores), -1)
    if len(labels) != len(scores):
        raise ValueError(f"{len(labels)} labels but {len(scores)} scores")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold nan or infinity")
    if kind == MULTI_LABEL:
        if labels.shape != scores.shape:
            raise ValueError(f"labels {labels.shape} but scores {scores.shape}")
        return labels.astype(bool), scores
    if labels.shape[1] != 1:
        raise ValueError(f"a {kind} task has one label an image, not {labels.shape[1]}")
    if kind == BINARY:
        return labels == 1, scores[:, -1:]
    return labels == np.arange(scores.shape[1]), scores


def auc_counts(positive: npt.NDArray[np.bool_], score: Floats, counts: Floats) -> Floats:
    """Area under the ROC curve of B resamples by the Mann-Whitney count, ties at one half.

    Args:
        positive: (N,) bool.
        score: (N,) float.
        counts: (B, N) how often image n occurs in resample b.

    Returns:
        (B,) float64; `nan` where a resample lacks positives or negatives.
    """
    order = np.argsort(score, kind="stable")
    sorted_score, sorted_positive = score[order], positive[order]
    starts = np.flatnonzero(np.r_[True, sorted_score[1:] != sorted_score[:-1]])
    ordered = counts[:, order]
    positives = np.where(sorted_positive, ordered, 0.0)
    negatives = ordered - positives
    if len(starts) < len(score):
        positives = np.add.reduceat(positives, starts, axis=1)
        negatives = np.add.reduceat(negatives, starts, axis=1)
    num_positive, num_negative = positives.sum(axis=1), negatives.sum(axis=1)
    below = np.cumsum(negatives, axis=1)
    below -= 0.5 * negatives
    area: Floats = np.einsum("bn,bn->b", positives, below)
    pairs = num_positive * num_negative
    auc: Floats = np.divide(area, pairs, out=np.full_like(area, np.nan), where=pairs > 0)
    return auc


def _label_cells(
    targets: npt.NDArray[np.bool_], decided: npt.NDArray[np.bool_], counts: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """True positives, false positives, false negatives, true negatives: each (B, L)."""
    hits = counts @ (targets & decided).astype(np.float64)
    positives = counts @ targets.astype(np.float64)
    called = counts @ decided.astype(np.float64)
    total = counts.sum(axis=1, keepdims=True)
    return hits, called - hits, positives - hits, total - positives - called + hits


def _rates(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> dict[str, Floats]:
    """Metrics of L yes-or-no questions, (B,) each: means over the questions, or pooled ones for `micro`."""
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    total_tp, total_fp, total_fn = tp.sum(axis=1), fp.sum(axis=1), fn.sum(axis=1)
    return {
        "accuracy": ((tp + tn) / (tp + fp + fn + tn)).mean(axis=1),
        "balanced_accuracy": _mean_of_present(
            np.stack([recall, specificity]), np.stack([tp + fn > 0, tn + fp > 0])
        ).mean(axis=1),
        "f1_micro": _ratio(2 * total_tp, 2 * total_tp + total_fp + total_fn),
        "f1_macro": _ratio(2 * tp, 2 * tp + fp + fn).mean(axis=1),
        "recall_micro": _ratio(total_tp, total_tp + total_fn),
        "recall_macro": recall.mean(axis=1),
        "mcc": _ratio(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))).mean(axis=1),
    }


def _confusion(targets: npt.NDArray[np.bool_], columns: Floats, counts: Floats) -> Floats:
    """Confusion matrices (B, K, K), rows true, columns the arg max."""
    num_classes = columns.shape[1]
    cell = targets.argmax(axis=1) * num_classes + columns.argmax(axis=1)
    cells = np.zeros((len(cell), num_classes**2))
    cells[np.arange(len(cell)), cell] = 1.0
    return (counts @ cells).reshape(len(counts), num_classes, num_classes)


def _class_rates(confusion: Floats) -> dict[str, Floats]:
    """Metrics of a multi-class confusion matrix; classes that neither occur nor are called stay out of the means."""
    hits = np.einsum("bkk->bk", confusion)
    true, called, total = confusion.sum(axis=2), confusion.sum(axis=1), confusion.sum(axis=(1, 2))
    correct = hits.sum(axis=1)
    recall, seen, known = _ratio(hits, true), true > 0, (true > 0) | (called > 0)
    accuracy = correct / total
    covariance = correct * total - (true * called).sum(axis=1)
    spread = np.sqrt((total**2 - (called**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1)))
    return {
        "accuracy": accuracy,
        "balanced_accuracy": _mean_of_present(recall.T, seen.T),
        "f1_micro": accuracy,
        "f1_macro": _mean_of_present(_ratio(2 * hits, true + called).T, known.T),
        "recall_micro": accuracy,
        "recall_macro": _mean_of_present(recall.T, known.T),
        "mcc": _ratio(covariance, spread),
    }


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient, 0 where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _mean_of_present(values: Floats, present: npt.NDArray[np.bool_]) -> Floats:
    """Mean over the first axis of the values that are present."""
    mean: Floats = _ratio((values * present).sum(axis=0), present.sum(axis=0).astype(np.float64))
    return mean


def best_thresholds(labels: Labels, scores: Floats, kind: Kind) -> Floats:
    """Thresholds with the highest Matthews correlation, one a label; for the validation split.

    Candidates are the corners of the ROC curve, thinned where there are more than a thousand, and the lowest of equal
    ones wins, as in BioVFM's evaluator. Multi-class and ordinal tasks decide by arg max and get 0.5.

    Args:
        labels: As in `evaluate`.
        scores: As in `evaluate`.
        kind: One of MedMNIST's four kinds.

    Returns:
        (L,) float64; (1,) but for multi-label tasks.
    """
    if kind not in (BINARY, MULTI_LABEL):
        return np.array([DEFAULT_THRESHOLD])
    targets, columns = _targets(labels, scores, kind)
    return np.array([_best_threshold(targets[:, k], columns[:, k]) for k in range(columns.shape[1])])


def _best_threshold(positive: npt.NDArray[np.bool_], score: Floats) -> float:
    from sklearn.metrics import roc_curve

    if positive.all() or not positive.any():
        return DEFAULT_THRESHOLD
    candidates = np.sort(roc_curve(positive, score)[2][1:])
    if len(candidates) > _MAX_THRESHOLDS:
        candidates = candidates[:: int(len(candidates) / _MAX_THRESHOLDS)]
    order = np.argsort(score)
    first_called = np.searchsorted(score[order], candidates, side="left")
    positives_from = np.r_[np.cumsum(positive[order][::-1])[::-1], 0].astype(np.float64)
    tp = positives_from[first_called]
    fp = len(score) - first_called - tp
    fn, tn = positive.sum() - tp, first_called - (positive.sum() - tp)
    mcc = _ratio(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
    return float(candidates[np.argmax(mcc)])
