"""Do intervals hold the truth as often as they say, and does a law without a slope look like one?

    python -m infra.bench.coverage auc       AUCs near 1 and of few positives: DeLong's rule and the bootstrap
    python -m infra.bench.coverage paired    differences of two models on the same images
    python -m infra.bench.coverage slopes    scaling laws of four sizes with three seeds each
    python -m infra.bench.coverage seeds     differences of two models with a few seeds each

Scores are binormal: negatives N(0, 1), positives N(μ, σ²), so that the true AUC is Φ(μ / √(1 + σ²)). Everything is
drawn from a seed, and a row says how many repetitions are behind it: with 2000 the standard error of a coverage of
0.95 is 0.005.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.medmnist.tasks import BINARY
from eval.probes.comparison import difference_with_seeds
from eval.scaling.laws import fit_power_law
from eval.scoring.bootstrap import NUM_RESAMPLES, difference, order_bounds, resample_counts
from eval.scoring.delong import Placements, bounds_of, paired_auc
from eval.scoring.metrics import Floats, auc_counts

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A test split whose truth is known.

    Attributes:
        auc: True area under the ROC curve.
        num_positive: Images.
        num_negative: Images.
        spread: Standard deviation of the positives' scores; that of the negatives is 1.
        other_auc: Of the second model, where two are compared.
        shared: Correlation of the two models' scores within a class.
    """

    auc: float
    num_positive: int
    num_negative: int
    spread: float = 1.0
    other_auc: float = 0.5
    shared: float = 0.0

    @property
    def positive(self) -> Any:
        """(N,) bool."""
        return np.arange(self.num_positive + self.num_negative) < self.num_positive

    def scores(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Scores of two models on one draw of images."""
        noise = rng.normal(size=(2, len(self.positive)))
        noise[1] = self.shared * noise[0] + math.sqrt(1 - self.shared**2) * noise[1]
        first, second = (self._scores(row, auc) for row, auc in zip(noise, (self.auc, self.other_auc), strict=True))
        return first, second

    def _scores(self, noise: Floats, auc: float) -> Floats:
        from scipy.stats import norm

        shift = float(norm.ppf(auc)) * math.sqrt(1 + self.spread**2)
        scores: Floats = np.where(self.positive, shift + self.spread * noise, noise)
        return scores


NEAR_CEILING = (
    Situation(auc=0.98, num_positive=114, num_negative=42),
    Situation(auc=0.99, num_positive=114, num_negative=42),
    Situation(auc=0.99, num_positive=42, num_negative=114, spread=2.0),
)
FEW_POSITIVES = (
    Situation(auc=0.85, num_positive=10, num_negative=150),
    Situation(auc=0.95, num_positive=10, num_negative=150, spread=2.0),
    Situation(auc=0.90, num_positive=20, num_negative=200),
)
PLENTY = (Situation(auc=0.85, num_positive=300, num_negative=300),)
PAIRS = (
    Situation(auc=0.99, other_auc=0.97, shared=0.7, num_positive=114, num_negative=42),
    Situation(auc=0.98, other_auc=0.98, shared=0.7, num_positive=114, num_negative=42),
    Situation(auc=0.90, other_auc=0.80, shared=0.5, num_positive=10, num_negative=150),
    Situation(auc=0.95, other_auc=0.95, shared=0.7, num_positive=10, num_negative=150, spread=2.0),
    Situation(auc=0.85, other_auc=0.80, shared=0.7, num_positive=300, num_negative=300),
)


def auc_coverage(situation: Situation, *, repeats: int, resamples: int = NUM_RESAMPLES, seed: int = 0) -> Iterator[Row]:
    """How often the intervals of one AUC hold it: the rule of `eval.scoring.delong`, and the bootstrap."""
    counts = resample_counts(len(situation.positive), resamples).astype(np.float64)

    def draw(rng: np.random.Generator) -> dict[str, Interval]:
        score, _ = situation.scores(rng)
        rule = bounds_of(Placements.of(situation.positive, score))
        return {
            "rule": (rule.lower, rule.upper),
            "bootstrap": order_bounds(auc_counts(situation.positive, score, counts)),
        }

    yield from coverage(draw, situation.auc, repeats=repeats, seed=seed)


def paired_coverage(
    situation: Situation, *, repeats: int, resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Iterator[Row]:
    """How often the intervals of a difference of two AUCs hold it."""
    counts = resample_counts(len(situation.positive), resamples).astype(np.float64)
    labels = situation.positive.astype(np.int64)

    def draw(rng: np.random.Generator) -> dict[str, Interval]:
        pair = situation.scores(rng)
        rule = paired_auc(labels, pair, BINARY)
        assert rule is not None
        drawn = [auc_counts(situation.positive, score, counts) for score in pair]
        resampled = difference(rule.value, drawn[0] - drawn[1])
        return {"rule": (rule.lower, rule.upper), "bootstrap": (resampled.lower, resampled.upper)}

    yield from coverage(draw, situation.auc - situation.other_auc, repeats=repeats, seed=seed)


def slope_coverage(*, repeats: int, slope: float = 0.0, num_seeds: int = 3, seed: int = 0) -> Iterator[Row]:
    """How often a slope's interval holds it: as fitted, and with every run taken for a point of its own.

    Four sizes, as in the paper; each has a deviation of its own that all of its seeds share (0.01 in the logarithm of
    the AUC), and each seed one of half that.
    """
    sizes = np.repeat([31.2, 47.4, 111.66, 329.24], num_seeds)

    def draw(rng: np.random.Generator) -> dict[str, Interval]:
        own = np.repeat(rng.normal(0, 0.01, 4), num_seeds)
        auc = 80 * sizes**slope * np.exp(own + rng.normal(0, 0.005, len(sizes)))
        law = fit_power_law(sizes, auc)
        apart = fit_power_law(sizes * (1 + 1e-12 * np.arange(len(sizes))), auc)
        return {"means per size": (law.lower, law.upper), "every run a point": (apart.lower, apart.upper)}

    yield from coverage(draw, slope, repeats=repeats, seed=seed)


def seed_coverage(
    *, repeats: int, num_seeds: int = 5, seed_deviation: float = 0.01, same_seeds: bool = True, seed: int = 0
) -> Iterator[Row]:
    """How often the interval of two means over seeds holds the difference of the models.

    The error of the test images (0.01) is common to all seeds; a seed adds its own. Beside it: what the images alone
    would say.
    """
    rng_images = np.random.default_rng(seed + 1)

    def draw(rng: np.random.Generator) -> dict[str, Interval]:
        common = rng.normal(0, 0.01)
        mine = {number: 0.85 + common + rng.normal(0, seed_deviation) for number in range(num_seeds)}
        others = range(num_seeds) if same_seeds else range(num_seeds, 2 * num_seeds)
        theirs = {number: 0.85 + rng.normal(0, seed_deviation) for number in others}
        value = float(np.mean(list(mine.values())) - np.mean(list(theirs.values())))
        images = value + rng_images.normal(0, 0.01, 400)
        both, alone = difference_with_seeds(value, images, mine, theirs), difference(value, images)
        return {"images and seeds": (both.lower, both.upper), "images alone": (alone.lower, alone.upper)}

    yield from coverage(draw, 0.0, repeats=repeats, seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one method did in one situation.

    Attributes:
        method: Name.
        covered: Share of the repetitions whose interval held the truth.
        width: Mean width.
        repeats: Repetitions.
    """

    method: str
    covered: float
    width: float
    repeats: int


def coverage(
    draw: Callable[[np.random.Generator], dict[str, Interval]], truth: float, *, repeats: int, seed: int
) -> Iterator[Row]:
    """Repeat an experiment and count.

    Args:
        draw: One experiment: method → interval.
        truth: What the intervals are to hold.
        repeats: Experiments.
        seed: Of the generator.
    """
    rng = np.random.default_rng(seed)
    found = [draw(rng) for _ in range(repeats)]
    for method in found[0]:
        intervals = np.array([one[method] for one in found])
        held = (intervals[:, 0] <= truth) & (truth <= intervals[:, 1])
        width = float(np.mean(intervals[:, 1] - intervals[:, 0]))
        yield Row(method=method, covered=float(held.mean()), width=width, repeats=repeats)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table of one of the simulations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["auc", "paired", "slopes", "seeds"])
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(argv)
    fixed: dict[str, Any] = {"repeats": chosen.repeats, "seed": chosen.seed}
    experiments: dict[str, Callable[[], Iterator[tuple[str, Iterator[Row]]]]] = {
        "auc": lambda: ((str_of(s), auc_coverage(s, **fixed)) for s in (*NEAR_CEILING, *FEW_POSITIVES, *PLENTY)),
        "paired": lambda: ((f"{str_of(s)} vs {s.other_auc}", paired_coverage(s, **fixed)) for s in PAIRS),
        "slopes": lambda: ((f"slope {slope:g}", slope_coverage(slope=slope, **fixed)) for slope in (0.0, 0.02)),
        "seeds": lambda: (
            (f"{n} seeds, {'the same' if same else 'others'}", seed_coverage(num_seeds=n, same_seeds=same, **fixed))
            for n in (2, 3, 5)
            for same in (True, False)
        ),
    }
    sys.stdout.write(f"{'situation':44}{'method':20}{'coverage':>10}{'width':>10}   of {chosen.repeats}\n")
    for name, rows in experiments[chosen.what]():
        for row in rows:
            sys.stdout.write(f"{name:43} {row.method:19} {row.covered:10.3f}{row.width:10.4f}\n")
            sys.stdout.flush()


def str_of(situation: Situation) -> str:
    """A situation in a few words."""
    counts = f"{situation.num_positive} positives, {situation.num_negative} negatives"
    return f"AUC {situation.auc}, {counts}" + (f", σ {situation.spread:g}" if situation.spread != 1 else "")


if __name__ == "__main__":
    main()
