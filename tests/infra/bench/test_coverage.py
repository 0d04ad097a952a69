"""Small coverage simulations: the intervals that the reports show hold the truth, those they replaced did not."""

from __future__ import annotations

import pytest

from infra.bench.coverage import (
    FEW_POSITIVES,
    NEAR_CEILING,
    PAIRS,
    Row,
    Situation,
    auc_coverage,
    main,
    paired_coverage,
    seed_coverage,
    slope_coverage,
)

REPEATS = 300
ERROR = 2 * (0.95 * 0.05 / REPEATS) ** 0.5
"""Two standard errors of a coverage of 0.95."""


def covered(rows: object) -> dict[str, Row]:
    return {row.method: row for row in rows}  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("situation", [NEAR_CEILING[1], FEW_POSITIVES[0], FEW_POSITIVES[1]])
def test_aucs_near_the_ceiling_and_of_few_positives(situation: Situation) -> None:
    rows = covered(auc_coverage(situation, repeats=REPEATS, resamples=200))
    assert rows["rule"].covered >= 0.93
    assert rows["bootstrap"].covered < rows["rule"].covered


@pytest.mark.slow
@pytest.mark.parametrize("situation", [PAIRS[0], PAIRS[2]])
def test_differences_near_the_ceiling_and_of_few_positives(situation: Situation) -> None:
    assert covered(paired_coverage(situation, repeats=REPEATS, resamples=100))["rule"].covered >= 0.93


def test_slopes_of_four_sizes_with_three_seeds() -> None:
    rows = covered(slope_coverage(repeats=REPEATS))
    assert rows["means per size"].covered >= 0.95 - ERROR
    assert rows["every run a point"].covered < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("same_seeds", [True, False])
def test_means_over_seeds(*, same_seeds: bool) -> None:
    rows = covered(seed_coverage(repeats=REPEATS, num_seeds=3, same_seeds=same_seeds))
    assert rows["images and seeds"].covered >= 0.95 - ERROR
    assert rows["images alone"].covered < rows["images and seeds"].covered


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["slopes", "--repeats", "20"])
    assert "means per size" in capsys.readouterr().out
