"""See the package: `python -m infra.bench.billion --ranks 1024 --batch 65536`."""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice

import numpy as np

from infra.bench.billion.synthetic import Link, SyntheticStream, plan_of_size, shard_of
from infra.estimate.constants import Constants
from infra.estimate.figures import Job, decode_core_seconds
from infra.estimate.reading import sharing_amplification
from shards.errors import BiovfmError, ConfigError
from shards.read.block_cache import BLOCK_BYTES
from shards.read.remote import CONNECTIONS, LOOKAHEAD_BYTES
from shards.stream.order import MAX_LANES, EpochOrder, OrderSettings, default_lanes, rank_slots

_BUSY, _SLOW = 0.8, 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is simulated.

    Attributes:
        images: Of the dataset.
        ranks: World size; must divide the batch.
        batch: Global batch.
        batches: As many are streamed, the last ones of an epoch.
        most_lanes: As in a lock (`biovfm subset create --ranks`).
        link: Of a rank, for the first batch.
        cores: Of a rank, for decoding.
        constants: Bytes of a sample and of a shard.
    """

    images: int = 1_000_000_000
    ranks: int = 1024
    batch: int = 65_536
    batches: int = 200
    most_lanes: int = 1024
    link: Link = field(default_factory=partial(Link, latency_seconds=0.05, bytes_per_second=125e6))
    cores: int = 8
    constants: Constants = field(default_factory=Constants)

    def stream(self, rank: int, *, ranks: int = 0, left: int = 0, link: Link | None = None) -> SyntheticStream:
        """A rank's stream over the last `left` batches of the epoch; from its start where that is 0."""
        plan = plan_of_size(self.images, most_lanes=self.most_lanes, constants=self.constants)
        stream = SyntheticStream(
            plan,
            link or Link(),
            global_batch=self.batch,
            rank=rank,
            world_size=ranks or self.ranks,
            num_epochs=1,
            num_threads=2,
        )
        if left:
            stream.load_state_dict({**stream.state_dict(), "batch": max(stream.batches_per_epoch - left, 0)})
        return stream


@dataclass(slots=True, kw_only=True)
class Streamed:
    """What a rank's stream did to the end of the epoch.

    Attributes:
        used: Bytes of the samples of each batch, with what surrounds them.
        read: Bytes that had been read when each batch came.
        held: Bytes in the cache when each batch came.
        process_mb: Of the process when each batch came, at most so far.
    """

    used: list[int] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    process_mb: list[float] = field(default_factory=list)

    @property
    def amplification(self) -> float:
        """Bytes read over bytes used."""
        return self.read[-1] / sum(self.used)


def stream_to_the_end(stream: SyntheticStream, around: int) -> Streamed:
    """Take all batches that are left.

    Args:
        stream: The stream.
        around: Bytes that surround each image in its shard.
    """
    done = Streamed()
    with stream:
        for batch in stream:
            done.used.append(sum(len(blob) + around for blob in batch.blobs))
            done.read.append(stream.stats().bytes_read)
            done.held.append(stream.held_bytes)
            done.process_mb.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    return done


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstBatch:
    """Seconds to the first batch of a rank.

    Attributes:
        order_seconds: To make the order of an epoch.
        seconds: From making the stream to its first batch.
        least_seconds: The same by the formula, where the first batch has the link to itself.
        most_seconds: Where a block on every connection is read beside it.
    """

    order_seconds: float
    seconds: float
    least_seconds: float
    most_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is known of a rank; see the package."""

    rank: int
    bytes_used: int
    bytes_read: int
    amplification: float
    predicted: float
    held_bytes: int
    process_mb: float
    process_grown_mb: float
    order_seconds: float
    first_batch_seconds: float
    first_batch_least_seconds: float
    first_batch_most_seconds: float
    decode_seconds: float
    restart_read_again: float
    halved_bytes: float
    slow_down: float


def simulate(setup: Setup, *, sampled: int = 4) -> Iterator[Row]:
    """Stream some ranks, evenly spread; a row for each."""
    for rank in sorted({int(place) for place in np.linspace(0, setup.ranks - 1, sampled)}):
        yield look_at(setup, rank)


def look_at(setup: Setup, rank: int) -> Row:
    """Stream one rank, then with a restart, with half the ranks, and its first batch in real time."""
    around = int(setup.constants.sample_overhead_bytes)
    whole = stream_to_the_end(setup.stream(rank, left=setup.batches), around)
    half = len(whole.used) // 2
    again = stream_to_the_end(setup.stream(rank, left=len(whole.used) - half), around)
    each = whole.read[-1] / len(whole.used)
    first = first_batch(setup, rank)
    return Row(
        rank=rank,
        bytes_used=sum(whole.used),
        bytes_read=whole.read[-1],
        amplification=whole.amplification,
        predicted=sharing_amplification(
            ranks=setup.ranks, batch=setup.batch, constants=setup.constants, most_lanes=setup.most_lanes
        ),
        held_bytes=max(whole.held),
        process_mb=whole.process_mb[-1],
        process_grown_mb=whole.process_mb[-1] - whole.process_mb[half],
        order_seconds=first.order_seconds,
        first_batch_seconds=first.seconds,
        first_batch_least_seconds=first.least_seconds,
        first_batch_most_seconds=first.most_seconds,
        decode_seconds=decode_seconds(setup),
        restart_read_again=(whole.read[half - 1] + again.read[-1] - whole.read[-1]) / each,
        halved_bytes=_halved(setup, rank, around) / each,
        slow_down=slow_down(needed(setup.stream(rank, left=setup.batches), around)),
    )


def _halved(setup: Setup, rank: int, around: int) -> float:
    """Bytes per batch that a rank reads when half the ranks go on; 0 where so many do not divide the batch."""
    half = setup.ranks // 2
    if not half or setup.batch % half:
        return 0.0
    done = stream_to_the_end(setup.stream(min(rank // 2, half - 1), ranks=half, left=setup.batches // 2), around)
    return done.read[-1] / len(done.used)


def first_batch(setup: Setup, rank: int) -> FirstBatch:
    """Stream the first batch of an epoch in real time."""
    plan = setup.stream(rank).plan
    began = time.perf_counter()
    lanes = default_lanes(setup.batch, setup.most_lanes)
    EpochOrder(plan.counts, OrderSettings(global_batch=setup.batch, num_lanes=lanes), 0)
    order = time.perf_counter() - began
    began = time.perf_counter()
    with setup.stream(rank, link=setup.link) as stream:
        (batch,) = islice(stream, 1)
        seconds = time.perf_counter() - began
    num_bytes = sum(map(len, batch.blobs))
    num_shards = len({shard_of(key) for key in batch.keys})
    rate = setup.link.bytes_per_second or math.inf
    least = 2 * order + -(-num_shards // CONNECTIONS) * setup.link.latency_seconds + num_bytes / rate
    return FirstBatch(
        order_seconds=order,
        seconds=seconds,
        least_seconds=least,
        most_seconds=least + CONNECTIONS * BLOCK_BYTES / rate,
    )


def decode_seconds(setup: Setup) -> float:
    """To decode a rank's part of a batch and cut its crops, as `biovfm plan` has it."""
    job = Job(images=setup.images, method="mae", size="base", nodes=1, gpus=1, batch=setup.batch, steps=1)
    return setup.batch / setup.ranks * decode_core_seconds(job, setup.constants) / setup.cores


def needed(stream: SyntheticStream, around: int) -> list[int]:
    """Bytes that each batch makes a rank read that reads nothing ahead."""
    stream.read_nothing_ahead()
    return np.diff(stream_to_the_end(stream, around).read, prepend=0).tolist()


def slow_down(needed: Sequence[int]) -> float:
    """Seconds of the steps with a slow link over those with the link that they were planned for.

    Args:
        needed: Bytes that each batch makes the rank read.
    """
    step = 1.0
    planned = sum(needed) / len(needed) / step / _BUSY
    return steps_seconds(needed, planned * _SLOW, step) / steps_seconds(needed, planned, step)


def steps_seconds(needed: Sequence[int], rate: float, step: float, *, ahead: float = LOOKAHEAD_BYTES) -> float:
    """When the last step ends.

    A batch is read when all bytes before it are, and when no more than `ahead` bytes lie between it and the step that
    runs; a step begins when the one before it has ended and its batch has been read.

    Args:
        needed: Bytes that each batch makes the rank read.
        rate: Of the link, bytes per second.
        step: Seconds of a step that waits for nothing.
        ahead: Bytes that a stream reads ahead.
    """
    ends = np.cumsum(needed)
    begins: list[float] = []
    read = ended = 0.0
    for index, size in enumerate(needed):
        place = int(np.searchsorted(ends, ends[index] - ahead, side="right"))  # the first step that leaves room
        room = begins[min(place, index - 1)] if place and index else 0.0
        read = max(read, room) + size / rate
        begins.append(max(ended, read))
        ended = begins[-1] + step
    return ended


def main(argv: Sequence[str] | None = None) -> int:
    """Print a JSON line for each rank, and one for all of them."""
    usual = Setup()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("images", "ranks", "batch", "batches"):
        parser.add_argument(f"--{name}", type=int, default=getattr(usual, name))
    parser.add_argument("--lanes", type=int, help="most lanes of the lock (`subset create --ranks`)")
    parser.add_argument("--sampled", type=int, default=4, help="ranks to look at")
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--gbit", type=float, default=1.0, help="bandwidth of a rank; 0 for no limit")
    parser.add_argument("--cores", type=int, default=usual.cores, help="of a rank")
    chosen = parser.parse_args(argv)
    try:
        _report(_setup_of(chosen), sampled=chosen.sampled)
    except BiovfmError as error:
        sys.stderr.write(f"billion: {error}\n")
        return error.exit_code
    return 0


def _setup_of(chosen: argparse.Namespace) -> Setup:
    """What the command line asks for.

    Raises:
        ConfigError: A number means nothing, or the ranks do not divide the batch.
    """
    least = {"images": 1, "ranks": 1, "batch": 1, "batches": 1, "lanes": 1, "sampled": 1, "cores": 1}
    for name, smallest in {**least, "latency_ms": 0, "gbit": 0}.items():
        value = getattr(chosen, name)
        if value is not None and not smallest <= value < math.inf:
            raise ConfigError(f"--{name.replace('_', '-')} {value} means nothing", hint=f"give at least {smallest}")
    rank_slots(chosen.batch, rank=0, world_size=chosen.ranks)
    return Setup(
        images=chosen.images,
        ranks=chosen.ranks,
        batch=chosen.batch,
        batches=chosen.batches,
        most_lanes=chosen.lanes or max(chosen.ranks, MAX_LANES),
        cores=chosen.cores,
        link=Link(latency_seconds=chosen.latency_ms / 1e3, bytes_per_second=chosen.gbit * 1e9 / 8),
    )


def _report(setup: Setup, *, sampled: int) -> None:
    rows = []
    for row in simulate(setup, sampled=sampled):
        rows.append(row)
        sys.stdout.write(json.dumps(asdict(row)) + "\n")
        sys.stdout.flush()
    sys.stdout.write(json.dumps({"balance": balance(rows)}) + "\n")


def balance(rows: Sequence[Row]) -> float:
    """The most bytes that a rank read over the mean."""
    read = [row.bytes_read for row in rows]
    return max(read) * len(read) / sum(read)


if __name__ == "__main__":
    sys.exit(main())
