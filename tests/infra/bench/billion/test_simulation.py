"""The simulation streams by the real code; what it says is what the formulas of `biovfm plan` say."""

from __future__ import annotations

import json

import pytest

from infra.bench.billion.__main__ import (
    Setup,
    balance,
    first_batch,
    main,
    needed,
    simulate,
    slow_down,
    steps_seconds,
    stream_to_the_end,
)
from infra.bench.billion.synthetic import Link, ZeroStore
from infra.estimate.constants import Constants
from infra.estimate.reading import read_by_ranks, sharing_amplification
from shards.read.remote import LOOKAHEAD_BYTES

pytestmark = pytest.mark.slow
AROUND = int(Constants().sample_overhead_bytes)


@pytest.mark.parametrize(
    ("ranks", "batch", "image_bytes"),
    [(64, 4096, 3e4), (256, 4096, 3e4), (512, 8192, 3e4), (48, 4800, 3e4), (128, 2048, 1.2e6), (256, 1024, 1.2e6)],
)
def test_what_ranks_read_in_common_is_what_the_reader_reads(ranks: int, batch: int, image_bytes: float) -> None:
    constants = Constants(image_bytes=image_bytes)
    images = int(6e11 / image_bytes)
    setup = Setup(images=images, ranks=ranks, batch=batch, batches=60, most_lanes=64, constants=constants)
    done = stream_to_the_end(setup.stream(1, left=setup.batches), AROUND)
    predicted = sharing_amplification(ranks=ranks, batch=batch, constants=setup.constants)
    assert done.amplification == pytest.approx(predicted, rel=0.15)
    assert len(done.used) == 60


def test_where_windows_do_not_fit_each_image_is_a_request() -> None:
    constants = Constants(image_bytes=2e5)
    setup = Setup(images=100_000, ranks=1, batch=64, batches=20, most_lanes=64, constants=constants)
    stream = setup.stream(0, left=setup.batches)
    done = stream_to_the_end(stream, AROUND)
    assert read_by_ranks(ranks=1, batch=64, most_lanes=64, constants=constants).alone
    assert isinstance(stream.dataset.store, ZeroStore)
    assert stream.dataset.store.requests == pytest.approx(20 * 64, rel=0.02)
    assert done.amplification == pytest.approx(1, abs=0.02)


def test_with_a_lane_each_a_thousand_ranks_read_their_own_alone_in_little_memory() -> None:
    rows = list(simulate(Setup(images=50_000_000, batches=200), sampled=3))
    assert max(row.amplification for row in rows) < 1.1
    assert balance(rows) < 1.02
    assert max(row.held_bytes for row in rows) < 100e6
    assert all(1.9 < row.halved_bytes < 2.1 for row in rows)
    assert all(row.restart_read_again < 80 for row in rows)
    assert all(2 < row.slow_down < 3.3 for row in rows)  # at most 3.2: a quarter of a link that is used at 80 %


@pytest.mark.parametrize(("images", "ranks"), [(5_000_000, 1024), (50_000_000, 512)])
def test_memory_depends_neither_on_the_images_nor_on_the_ranks(images: int, ranks: int) -> None:
    setup = Setup(images=images, ranks=ranks, batches=100)
    assert max(stream_to_the_end(setup.stream(3, left=100), AROUND).held) < LOOKAHEAD_BYTES + 20e6


@pytest.mark.parametrize(("latency", "rate"), [(1.5, 50e6), (0.1, 4e6)])
def test_the_first_batch_takes_what_the_formula_says(latency: float, rate: float) -> None:
    found = first_batch(Setup(images=5_000_000, link=Link(latency_seconds=latency, bytes_per_second=rate)), 5)
    assert found.least_seconds < found.seconds < found.most_seconds + 2  # a machine may be busy


def test_a_rank_that_reads_nothing_ahead_reads_the_same() -> None:
    setup = Setup(images=5_000_000, batches=60)
    ahead = stream_to_the_end(setup.stream(7, left=60), AROUND)
    assert sum(needed(setup.stream(7, left=60), AROUND)) == ahead.read[-1]


def test_a_link_that_is_fast_enough_is_waited_for_once() -> None:
    assert steps_seconds([100] * 50, 1000.0, 1.0, ahead=1e6) == pytest.approx(50 + 0.1)
    assert steps_seconds([100] * 50, 50.0, 1.0, ahead=1e6) == pytest.approx(100 + 1)
    assert steps_seconds([100] * 2, 50.0, 1.0, ahead=0.0) == pytest.approx(5 + 0.0, abs=1.01)
    assert slow_down([100] * 1000) == pytest.approx(3.2, rel=0.01)


def test_the_command_prints_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    main(
        ["--images", "5000000", "--ranks", "16", "--batch", "256", "--batches", "20", "--sampled", "2", "--gbit", "10"]
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("rank") for line in lines] == [0, 15, None]
    assert lines[-1]["balance"] >= 1
