"""Bootstrap intervals over the images of a test split, vectorised, and paired differences between two models.

Resample i draws N of N images with `RandomState(i).randint`, and the bounds are order statistics, as in BioVFM's
evaluator: the same seeds serve every model, so that the difference of two models is paired image by image.

Images of one group (a patient) are no independent draws. Where groups are known, a resample draws G of G groups, each
with all its images (the cluster bootstrap; Field and Welsh, 2007).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from eval.medmnist.tasks import Kind
from eval.scoring.metrics import METRICS, Floats, Labels, evaluate, evaluate_counts

NUM_RESAMPLES: Final = 1000
CONFIDENCE: Final = 0.95
_CHUNK: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A metric with its bootstrap interval.

    Attributes:
        value: On the test split as it is.
        mean: Over the resamples.
        lower: Lower bound.
        upper: Upper bound.
    """

    value: float
    mean: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much better one model is than another on the same images.

    Attributes:
        value: First minus second on the test split as it is.
        lower: Lower bound over the resamples.
        upper: Upper bound.
        p_value: Two-sided: twice the smaller share of resamples on either side of zero, at least 1/B.
    """

    value: float
    lower: float
    upper: float
    p_value: float


Groups = npt.NDArray[np.int64]
"""(N,) the group of each image, any numbers."""


def resample_counts(
    num_images: int, num_resamples: int, *, start: int = 0, groups: Groups | None = None
) -> npt.NDArray[np.uint16]:
    """How often each image occurs in resamples `start` … `start + num_resamples` - 1.

    Args:
        num_images: N.
        num_resamples: B.
        start: The first one's number.
        groups: What is drawn as a whole; single images where None.

    Returns:
        (B, N) uint16.
    """
    member = np.arange(num_images) if groups is None else np.unique(groups, return_inverse=True)[1]
    num = num_images if groups is None else int(member.max(initial=-1)) + 1
    counts = np.empty((num_resamples, num_images), dtype=np.uint16)
    for row in range(num_resamples):
        drawn = np.random.RandomState(start + row).randint(0, num, num)
        counts[row] = np.bincount(drawn, minlength=num)[member]
    return counts


def boot_stats(
    labels: Labels,
    scores: Floats,
    kind: Kind,
    *,
    threshold: Floats | float,
    num_resamples: int = NUM_RESAMPLES,
    groups: Groups | None = None,
) -> Floats:
    """All metrics of every resample, of images or, where they are given, of groups.

    Returns:
        (B, len(METRICS)) float64.
    """
    num_images = len(scores)

    def stats(counts: npt.NDArray[Any]) -> Floats:
        return evaluate_counts(labels, scores, kind, counts=counts, threshold=threshold)

    return _over_resamples(stats, num_images, num_resamples, groups)


def _over_resamples(
    stats: Callable[[npt.NDArray[Any]], Floats], num_images: int, num_resamples: int, groups: Groups | None
) -> Floats:
    starts = range(0, num_resamples, _CHUNK)
    sizes = [min(_CHUNK, num_resamples - start) for start in starts]
    with threadpool_limits(1, user_api="blas"):
        return np.concatenate(
            [
                stats(resample_counts(num_images, size, start=start, groups=groups))
                for start, size in zip(starts, sizes, strict=True)
            ]
        )


def order_bounds(values: Floats, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Lower and upper bound of resampled values: order statistics ⌊α/2·B⌋ - 1 and ⌊(1 - α/2)·B⌋ - 1.

    Args:
        values: (B,) float; `nan` (a resample without a class) is left out.
        confidence: 1 - α.
    """
    ordered = np.sort(values[np.isfinite(values)])
    if not len(ordered):
        return float("nan"), float("nan")
    alpha = 1 - confidence
    low, high = (int(share * len(ordered)) - 1 for share in (alpha / 2, 1 - alpha / 2))
    return float(ordered[max(low, 0)]), float(ordered[max(high, 0)])


def intervals(
    labels: Labels,
    scores: Floats,
    kind: Kind,
    *,
    threshold: Floats | float,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
    groups: Groups | None = None,
) -> dict[str, Interval]:
    """Every metric with its interval.

    Args:
        labels: As in `eval.scoring.metrics.evaluate`.
        scores: As in `eval.scoring.metrics.evaluate`.
        kind: One of MedMNIST's four kinds.
        threshold: Chosen on the validation split.
        num_resamples: B.
        confidence: Share of the resamples between the bounds.
        groups: What is resampled as a whole; single images where None.
    """
    points = evaluate(labels, scores, kind, threshold=threshold)
    stats = boot_stats(labels, scores, kind, threshold=threshold, num_resamples=num_resamples, groups=groups)
    result = {}
    for column, name in enumerate(METRICS):
        lower, upper = order_bounds(stats[:, column], confidence=confidence)
        finite = stats[np.isfinite(stats[:, column]), column]
        mean = float(finite.mean()) if len(finite) else float("nan")
        result[name] = Interval(value=points[name], mean=mean, lower=lower, upper=upper)
    return result


def paired_difference(
    labels: Labels,
    scores: tuple[Floats, Floats],
    kind: Kind,
    *,
    metric: str = "auc",
    thresholds: tuple[Floats | float, Floats | float] = (0.5, 0.5),
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Difference:
    """The first model's metric minus the second's, resampled on the same images.

    Args:
        labels: As in `eval.scoring.metrics.evaluate`.
        scores: Of the two models, on the same images in the same order.
        kind: One of MedMNIST's four kinds.
        metric: One of `METRICS`.
        thresholds: Of the two models.
        num_resamples: B.
        confidence: Share of the resamples between the bounds.
    """
    column = METRICS.index(metric)
    both = [
        boot_stats(labels, score, kind, threshold=threshold, num_resamples=num_resamples)[:, column]
        for score, threshold in zip(scores, thresholds, strict=True)
    ]
    first, second = (
        evaluate(labels, score, kind, threshold=threshold)[metric]
        for score, threshold in zip(scores, thresholds, strict=True)
    )
    return difference(first - second, both[0] - both[1], confidence=confidence)


def difference(value: float, resampled: Floats, *, confidence: float = CONFIDENCE) -> Difference:
    """Summarise resampled differences.

    Args:
        value: The difference on the data as they are.
        resampled: (B,) float; `nan` is left out.
        confidence: Share of the resamples between the bounds.
    """
    finite = resampled[np.isfinite(resampled)]
    lower, upper = order_bounds(finite, confidence=confidence)
    if not len(finite):
        return Difference(value=value, lower=lower, upper=upper, p_value=float("nan"))
    share = 2 * min(float((finite <= 0).mean()), float((finite >= 0).mean()))
    return Difference(value=value, lower=lower, upper=upper, p_value=min(1.0, max(share, 1 / len(finite))))
