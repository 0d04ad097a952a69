"""Intervals of the AUC of a binary task that cover what they say, where the percentile bootstrap does not.

With few positives, or an AUC close to 1, the percentile bootstrap of BioVFM's evaluator covers less than its 95 %: all
resamples of a perfect separation are perfect. The rule here, for binary tasks:

- `delong`: the normal interval of DeLong's variance on the logit scale (DeLong et al., 1988; Qin and Hotilovac, 2008),
  with Student's t for the few images (Welch and Satterthwaite's degrees of freedom). Taken where each class has at
  least `PLENTY` images and the AUC is at most `NEAR_CEILING`.
- `delong+newcombe`: the hull of that interval and of Newcombe's (2006, method 5), which inverts Hanley and McNeil's
  variance and so has a width at an AUC of 1. Taken otherwise.
- `bootstrap`: other kinds of task, as before.
- `cluster bootstrap`: where several images are of one group (a patient), the hull of the bootstrap over whole groups
  and of what the rules above say of a binary task, which take every image for an independent one.

A difference of two models on the same images squares and adds the distances to the single bounds, less what their
correlation takes away (Zou and Donner, 2008); its p-value is the largest α whose interval holds 0.
`python -m infra.bench.coverage` measures the coverage of all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from eval.medmnist.tasks import BINARY, Kind
from eval.scoring.bootstrap import CONFIDENCE, Difference, Interval
from eval.scoring.metrics import Floats, Labels

Method = Literal["delong", "delong+newcombe", "bootstrap", "cluster bootstrap"]

PLENTY: Final = 200
"""Images of the rarer class from which on DeLong's interval stands alone."""
NEAR_CEILING: Final = 0.95
_BISECTIONS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """An interval and how it was made.

    Attributes:
        lower: Lower bound.
        upper: Upper bound.
        method: See the module's text.
    """

    lower: float
    upper: float
    method: Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Placements:
    """Where each image stands among those of the other class: all that DeLong's variance needs.

    Attributes:
        positives: (M,) share of the negatives that each positive beats, ties at one half.
        negatives: (N,) share of the positives that beat each negative.
    """

    positives: Floats
    negatives: Floats

    @classmethod
    def of(cls, positive: npt.NDArray[np.bool_], score: Floats) -> Placements:
        """Place the images of a split.

        Args:
            positive: (N,) bool.
            score: (N,) float.
        """
        high, low = np.sort(score[positive]), np.sort(score[~positive])
        beaten = np.searchsorted(low, score[positive], "left") + np.searchsorted(low, score[positive], "right")
        under = np.searchsorted(high, score[~positive], "left") + np.searchsorted(high, score[~positive], "right")
        with np.errstate(invalid="ignore"):
            return cls(positives=beaten / (2 * len(low)), negatives=1 - under / (2 * len(high)))

    @property
    def auc(self) -> float:
        """Area under the ROC curve; `nan` with one class."""
        return float(self.positives.mean()) if len(self.positives) and len(self.negatives) else math.nan

    @property
    def variances(self) -> tuple[float, float]:
        """Of the mean, by positives and by negatives; `nan` for a class of one image."""
        parts = (self.positives, self.negatives)
        first, second = (float(p.var(ddof=1)) / len(p) if len(p) > 1 else math.nan for p in parts)
        return first, second


def auc_bounds(labels: Labels, scores: Floats, kind: Kind, *, bootstrap: Interval, grouped: bool = False) -> Bounds:
    """The interval of a task's AUC by the rule of this module.

    Args:
        labels: As in `eval.scoring.metrics.evaluate`.
        scores: As in `eval.scoring.metrics.evaluate`.
        kind: One of MedMNIST's four kinds.
        bootstrap: The authors' interval, for the kinds that have no other; over groups where `grouped`.
        grouped: Whether several images are of one group.
    """
    placed = _placed(labels, scores, kind)
    if placed is None or math.isnan(placed.auc):
        method: Method = "cluster bootstrap" if grouped else "bootstrap"
        return Bounds(lower=bootstrap.lower, upper=bootstrap.upper, method=method)
    single = bounds_of(placed)
    if not grouped or math.isnan(bootstrap.lower):
        return single
    lower, upper = min(single.lower, bootstrap.lower), max(single.upper, bootstrap.upper)
    return Bounds(lower=lower, upper=upper, method="cluster bootstrap")


def bounds_of(placed: Placements, *, confidence: float = CONFIDENCE) -> Bounds:
    """The interval of one AUC.

    Args:
        placed: Images of both classes.
        confidence: That the true AUC lies within.
    """
    auc, sizes = placed.auc, (len(placed.positives), len(placed.negatives))
    delong = _logit_interval(auc, placed.variances, sizes, confidence)
    if delong and min(sizes) >= PLENTY and auc <= NEAR_CEILING:
        return Bounds(lower=delong[0], upper=delong[1], method="delong")
    newcombe = newcombe_interval(auc, *sizes, confidence=confidence)
    hull = [newcombe, delong] if delong else [newcombe]
    return Bounds(lower=min(low for low, _ in hull), upper=max(high for _, high in hull), method="delong+newcombe")


def paired_auc(
    labels: Labels, scores: tuple[Floats, Floats], kind: Kind, *, confidence: float = CONFIDENCE
) -> Difference | None:
    """The first model's AUC minus the second's on the same images; None where the task is not binary.

    Args:
        labels: As in `eval.scoring.metrics.evaluate`.
        scores: Of the two models, on the same images in the same order.
        kind: One of MedMNIST's four kinds.
        confidence: That the true difference lies within.
    """
    first, second = (_placed(labels, score, kind) for score in scores)
    if first is None or second is None or math.isnan(first.auc):
        return None
    value, shared = first.auc - second.auc, _correlation(first, second)

    def interval(level: float) -> tuple[float, float]:
        bounds = bounds_of(first, confidence=level), bounds_of(second, confidence=level)
        return _square_and_add((first.auc, second.auc), bounds, shared)

    lower, upper = interval(confidence)
    return Difference(value=value, lower=lower, upper=upper, p_value=largest_alpha(interval) if value else 1.0)


def newcombe_interval(
    auc: float, num_positive: int, num_negative: int, *, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The AUCs whose own standard error explains the one that was seen (Newcombe, 2006, method 5).

    Args:
        auc: Seen.
        num_positive: Images.
        num_negative: Images.
        confidence: That the true AUC lies within.
    """
    from scipy.stats import norm

    z = float(norm.ppf(0.5 + confidence / 2))
    pairs, spare = num_positive * num_negative, (num_positive + num_negative) / 2 - 1

    def error(true: float) -> float:
        return math.sqrt(true * (1 - true) * (1 + spare * (1 - true) / (2 - true) + spare * true / (1 + true)) / pairs)

    def edge(outside: float) -> float:
        """Between `outside`, which does not explain `auc`, and `auc` itself."""
        inside = auc
        for _ in range(_BISECTIONS):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if abs(auc - middle) <= z * error(middle) else (inside, middle)
        return (inside + outside) / 2

    return (edge(0.0) if auc > 0 else 0.0), (edge(1.0) if auc < 1 else 1.0)


def _logit_interval(
    auc: float, variances: tuple[float, float], sizes: tuple[int, int], confidence: float
) -> tuple[float, float] | None:
    from scipy.stats import t as student

    total = sum(variances)
    if not 0 < auc < 1 or not total > 0:
        return None
    freedom = total**2 / sum(v**2 / (size - 1) for v, size in zip(variances, sizes, strict=True))
    width = float(student.ppf(0.5 + confidence / 2, freedom)) * math.sqrt(total) / (auc * (1 - auc))
    centre = math.log(auc / (1 - auc))
    return _expit(centre - width), _expit(centre + width)


def _expit(value: float) -> float:
    return 0.5 * (1 + math.tanh(value / 2))


def _placed(labels: Labels, scores: Floats, kind: Kind) -> Placements | None:
    if kind != BINARY:
        return None
    return Placements.of(
        np.asarray(labels).reshape(-1) == 1, np.asarray(scores, np.float64).reshape(len(scores), -1)[:, -1]
    )


def _correlation(first: Placements, second: Placements) -> float:
    """Of two AUCs on the same images, by DeLong's covariance; 0 where one of them does not vary."""
    covariance = 0.0
    for mine, other in ((first.positives, second.positives), (first.negatives, second.negatives)):
        if len(mine) > 1:
            covariance += float(np.cov(mine, other)[0, 1]) / len(mine)
    spread = math.sqrt(max(sum(first.variances), 0) * max(sum(second.variances), 0))
    return max(-1.0, min(1.0, covariance / spread)) if spread > 0 else 0.0


def _square_and_add(aucs: tuple[float, float], bounds: tuple[Bounds, Bounds], shared: float) -> tuple[float, float]:
    value = aucs[0] - aucs[1]

    def reach(first: float, second: float) -> float:
        return math.sqrt(max(first**2 + second**2 - 2 * shared * first * second, 0.0))

    down = reach(aucs[0] - bounds[0].lower, bounds[1].upper - aucs[1])
    up = reach(bounds[0].upper - aucs[0], aucs[1] - bounds[1].lower)
    return value - down, value + up


def largest_alpha(interval: Callable[[float], tuple[float, float]]) -> float:
    """The p-value of a difference of 0: the largest α whose interval holds it.

    Args:
        interval: Confidence → bounds.
    """
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        alpha = (low + high) / 2
        lower, upper = interval(1 - alpha)
        low, high = (alpha, high) if lower <= 0 <= upper else (low, alpha)
    return (low + high) / 2
