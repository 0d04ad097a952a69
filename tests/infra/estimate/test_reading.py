"""What ranks read in common: counted on the real order, decided as the reader decides it, and remedied."""

from __future__ import annotations

import json

import numpy as np
import pytest

from infra.cli import main
from infra.estimate.constants import Constants
from infra.estimate.reading import lanes_for, read_by_ranks, sharing_amplification
from shards.read.locations import Location
from shards.read.remote import MEMORY_BUDGET_BYTES, open_reader
from shards.store import MemoryStore
from shards.stream.order import MAX_LANES, EpochOrder, OrderSettings, default_lanes
from shards.subset.lock import LARGEST_LANES


def counted(*, ranks: int, batch: int, most_lanes: int, constants: Constants) -> float:
    """Ranks that read a request, on average over requests all along an epoch of the real order."""
    settings = OrderSettings(global_batch=batch, num_lanes=default_lanes(batch, most_lanes))
    num_batches = max(12 * settings.window * settings.num_lanes // batch, 8)
    order = EpochOrder(np.array([num_batches * batch]), settings, 0)
    rank_of = np.empty(num_batches * batch, np.int64)
    for index in range(num_batches):
        rank_of[order.batch(index)[1]] = np.arange(batch) // (batch // ranks)
    samples = constants.request_bytes / (constants.image_bytes + constants.sample_overhead_bytes)
    starts = np.linspace(0, len(rank_of) - samples - 2, 4001)
    return float(np.mean([len(set(rank_of[int(start) : int(np.ceil(start + samples))].tolist())) for start in starts]))


@pytest.mark.parametrize(
    ("ranks", "batch", "most_lanes", "image_bytes", "expected"),
    [
        (64, 4096, 64, 30_000, 1.0),  # a lane each
        (256, 4096, 64, 30_000, 4.0),
        (1024, 4096, 64, 2_000_000, 1.5),  # an image of two requests, which others need too
        (128, 1024, 64, 1_200_000, 1.45),
        (48, 4800, 64, 30_000, 1.5),  # 60 lanes: a part of each rank's lanes is another one's too
        (48, 4800, 96, 30_000, 1.0),
        (3, 192, 64, 30_000, 1.03),  # two lanes of 64 are cut
        (128, 65_536, 64, 30_000, 1.47),  # windows shorter than a rank's part of a batch
        (512, 16_384, 64, 30_000, 7.9),
    ],
)
def test_the_formula_says_what_is_counted_on_the_order(
    ranks: int, batch: int, most_lanes: int, image_bytes: float, expected: float
) -> None:
    constants = Constants(image_bytes=image_bytes)
    said = sharing_amplification(ranks=ranks, batch=batch, constants=constants, most_lanes=most_lanes)
    assert said == pytest.approx(expected, rel=0.01)
    found = counted(ranks=ranks, batch=batch, most_lanes=most_lanes, constants=constants)
    assert said == pytest.approx(found, rel=0.05)


def test_nobody_reads_less_than_is_used() -> None:
    for image_bytes in (100, 30_000, 1e6, 1.2e6, 2e6, 1e9):
        for ranks, batch in ((1, 64), (8, 2048), (128, 2048), (1024, 4096), (1024, 65_536), (60, 7200)):
            constants = Constants(image_bytes=image_bytes)
            read = read_by_ranks(ranks=ranks, batch=batch, most_lanes=64, constants=constants)
            assert read.amplification >= 1
            assert sharing_amplification(ranks=ranks, batch=batch, constants=constants) >= 1 - 1e-9


@pytest.mark.parametrize("image_bytes", [1_000, 90_000, 105_000, 110_000, 1_000_000, 6_500_000, 7_500_000])
@pytest.mark.parametrize("ranks", [1, 8, 64, 256])
def test_the_reader_decides_alike_whether_windows_fit(ranks: int, image_bytes: int) -> None:
    order = OrderSettings(global_batch=4096)
    images = [Location(key="", shard="a.tar", offset=0, length=image_bytes, crc32c=0, dense_end=image_bytes)]
    reader = open_reader(MemoryStore("memory://a/"), cache_bytes=MEMORY_BUDGET_BYTES).ahead
    assert reader is not None
    reader.reserve(max(order.num_lanes // ranks, 1), order.window, images)
    fits = reader.held_limit_bytes > reader.lookahead_bytes  # type: ignore[attr-defined]  # of the remote reader
    said = read_by_ranks(ranks=ranks, batch=4096, most_lanes=64, constants=Constants(image_bytes=image_bytes))
    assert said.alone is not fits
    assert "a request of its own" in said.formula or fits


@pytest.mark.parametrize(
    ("ranks", "batch"),
    [(1024, 4096), (1024, 65_536), (48, 4800), (3, 192), (80, 6400), (96, 96), (7, 49), (65_536, 2**20)],
)
def test_a_lock_for_that_many_ranks_gives_each_its_own_lanes(ranks: int, batch: int) -> None:
    most = lanes_for(ranks=ranks, batch=batch)
    assert max(ranks, MAX_LANES) <= most < 2 * max(ranks, MAX_LANES)
    assert default_lanes(batch, most) % ranks == 0
    assert not read_by_ranks(ranks=ranks, batch=batch, most_lanes=most, constants=Constants()).shared


def planned(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[dict[str, float], list[str]]:
    assert main(["plan", "--json", *more]) == 0
    found = json.loads(capsys.readouterr().out)
    return {figure["name"]: figure["value"] for figure in found["figures"]}, found["advice"]


def test_plan_counts_what_large_images_cost(capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = planned(capsys, "--image-bytes", "2000000", "--nodes", "128", "--batch", "4096")
    assert found["read amplification"] == pytest.approx(1.1 * 1.4985, rel=1e-3)
    found, _ = planned(capsys, "--image-bytes", "1.2e6", "--nodes", "16")
    assert found["read amplification"] == pytest.approx(1.1 * 1.4537, rel=1e-3)
    assert found["read in all"] == pytest.approx(2048 * 125_000 * 1_202_304 * 1.1 * 1.4537 / 1e12, rel=1e-3)
    found, advice = planned(capsys, "--image-bytes", "200000", "--gpus", "1")
    assert found["read requests"] == 2048 * 125_000
    assert found["read amplification"] == 1
    assert advice == []


def test_plan_names_the_lock_that_a_thousand_ranks_need(capsys: pytest.CaptureFixture[str]) -> None:
    job = ("--nodes", "128", "--gpus", "8", "--batch", "4096")
    found, advice = planned(capsys, *job)
    assert found["read amplification"] > 15
    assert len(advice) == 1
    assert "`biovfm subset create --ranks 1024`" in advice[0]
    better, advice = planned(capsys, *job, "--ranks", "1024")
    assert better["read amplification"] == pytest.approx(1.1)
    assert better["read requests"] < found["read requests"] / 14
    assert advice == []
    assert main(["plan", *job]) == 0
    assert sum("subset create --ranks 1024" in line for line in capsys.readouterr().out.splitlines()) == 1


def test_plan_advises_nothing_where_lanes_suit_the_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    for more in ((), ("--nodes", "8"), ("--ranks", "8"), ("--gpus", "48", "--batch", "4800", "--ranks", "96")):
        found, advice = planned(capsys, *more)
        assert found["read amplification"] == pytest.approx(1.1)
        assert advice == []
    _, advice = planned(capsys, "--gpus", "48", "--batch", "4800")
    assert "--ranks 96`" in advice[0]


def test_plan_takes_the_ranks_that_a_lock_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--ranks", str(LARGEST_LANES), "--nodes", str(LARGEST_LANES // 8), "--batch", "65536"]) == 0
    assert main(["plan", "--ranks", str(LARGEST_LANES + 1)]) == 2
    assert main(["plan", "--nodes", str(LARGEST_LANES // 8), "--gpus", "16", "--batch", "131072"]) == 2
    assert "as many as a lock has lanes for" in capsys.readouterr().err
