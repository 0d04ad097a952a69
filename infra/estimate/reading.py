"""What ranks read of object storage: which of them read the same bytes, and by which requests.

A window is shuffled as a whole and dealt to the ranks whose parts of a batch lie in its lane; a request is made by each
of these ranks that needs one of the samples in it. A request of `request_bytes` begins and ends inside samples, so that
1 + request_bytes / (bytes of a sample) of them lie in it, and each rank reads more than it uses even of large images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.estimate.constants import Constants
from infra.estimate.digits import digits
from shards.read.remote import LOOKAHEAD_BYTES, MEMORY_BUDGET_BYTES
from shards.stream.order import MAX_LANES, OrderSettings, default_lanes

__all__ = ["Reading", "lanes_for", "read_by_ranks", "sharing_amplification"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a run reads.

    Attributes:
        amplification: Bytes read over bytes used, at least 1.
        alone: Whether each image is a request of its own.
        shared: Whether ranks read the same bytes, since their lanes are not their own.
        formula: Of the amplification.
    """

    amplification: float
    alone: bool
    shared: bool
    formula: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deal:
    """How windows are dealt to ranks.

    Attributes:
        shares: `(n,)` float64 in (0, 1], what ranks get of a window.
        weights: `(n,)` float64, to how many ranks a window gives such a share, on average over the windows.
    """

    shares: NDArray[np.float64]
    weights: NDArray[np.float64]

    @property
    def num_ranks(self) -> float:
        """Ranks that share a window, on average."""
        return float(self.weights.sum())

    def amplification(self, request_samples: float) -> float:
        """Ranks that make the same request, on average."""
        return float(self.weights @ (1 - (1 - self.shares) ** request_samples))


def read_by_ranks(*, ranks: int, batch: int, most_lanes: int, constants: Constants) -> Reading:
    """How the ranks of a run read, nothing cached.

    Args:
        ranks: World size; divides the batch.
        batch: Global batch.
        most_lanes: As in a lock (`biovfm subset create --ranks`).
        constants: Bytes of samples and requests.
    """
    order = _order(batch, most_lanes)
    windows = max(order.num_lanes // ranks, 1)
    if not _windows_fit(windows, order.window, constants):
        budget = f"{MEMORY_BUDGET_BYTES / 2**30:g} GiB"
        opened = f"{windows} open windows" if windows > 1 else "open window"
        why = f"the {opened} of a rank do not fit into the reader's {budget}, and each image is a request of its own"
        return Reading(amplification=1.0, alone=True, shared=False, formula=f"1, since {why}")
    deal, samples = _deal(ranks, order), _request_samples(constants)
    shared = deal.amplification(samples)
    return Reading(
        amplification=constants.read_amplification * shared,
        alone=False,
        shared=shared > 1 + 1e-9,
        formula=f"{digits(constants.read_amplification, 6)} × {_formula(deal, constants)}",
    )


def sharing_amplification(*, ranks: int, batch: int, constants: Constants, most_lanes: int = MAX_LANES) -> float:
    """How many ranks read the same bytes, at least 1: Σ (1 - (1 - p)^n) over the ranks that share a window.

    Each gets the share p of the window, n samples lie in a request, and the mean over all windows is taken. Where k
    ranks share every window alike, that is k · (1 - (1 - 1/k)^n). `python -m infra.bench.billion` counts it on the real
    order.

    Args:
        ranks: World size; divides the batch.
        batch: Global batch.
        constants: Bytes of a sample and of a request.
        most_lanes: As in a lock (`biovfm subset create --ranks`).
    """
    return _deal(ranks, _order(batch, most_lanes)).amplification(_request_samples(constants))


def lanes_for(*, ranks: int, batch: int) -> int:
    """The least number for `biovfm subset create --ranks` by which each rank has lanes of its own.

    Args:
        ranks: World size; divides the batch.
        batch: Global batch.
    """
    share = batch // ranks
    enough = (ranks * number for number in range(1, share + 1) if share % number == 0 and ranks * number >= MAX_LANES)
    return next(enough, MAX_LANES)


def _order(batch: int, most_lanes: int) -> OrderSettings:
    return OrderSettings(global_batch=batch, num_lanes=default_lanes(batch, most_lanes))


def _windows_fit(windows: int, window_samples: int, c: Constants) -> bool:
    """As `RemoteReader.reserve` decides it: whether half of each window, and a block where it ends, may be held."""
    held = windows * (window_samples * c.image_bytes / 2 + c.request_bytes)
    return held + 2 * LOOKAHEAD_BYTES <= MEMORY_BUDGET_BYTES


def _request_samples(c: Constants) -> float:
    """Samples that lie in a request, those that it cuts included."""
    return 1 + c.request_bytes / (c.image_bytes + c.sample_overhead_bytes)


def _deal(ranks: int, order: OrderSettings) -> _Deal:
    """Cut a batch where lanes and where ranks begin: each part is what one rank gets of one lane."""
    lane, part = order.global_batch // order.num_lanes, order.global_batch // ranks
    period = math.lcm(lane, part)
    cuts = np.union1d(np.arange(0, period + 1, lane), np.arange(0, period + 1, part))
    lengths, numbers = np.unique(np.diff(cuts), return_counts=True)
    found = [_overlaps(length, lane, order.window) for length in lengths.tolist()]
    weights = [number * lane / period * weights for (_, weights), number in zip(found, numbers.tolist(), strict=True)]
    return _Deal(shares=np.concatenate([shares for shares, _ in found]), weights=np.concatenate(weights))


def _overlaps(length: int, lane: int, window: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of windows that lie in one part of a lane, and how often each occurs.

    A lane is its part of one batch after the other, so that the part comes again every `lane` samples. Windows begin at
    all places alike, since those of different lanes are staggered. One that is longer than the lane's part of a batch
    holds all of it.

    Args:
        length: Samples of the part.
        lane: Samples of the lane in a batch.
        window: Samples of a window.
    """
    if window >= lane or length == lane:
        return np.array([length / lane]), np.ones(1)
    least, most = max(length + window - lane, 0), min(length, window)
    overlaps = np.arange(least, most + 1)
    places = np.full(len(overlaps), 2.0)
    places[-1] = abs(length - window) + 1
    places[0] = lane - places[1:].sum()
    return overlaps[overlaps > 0] / window, places[overlaps > 0] / lane


def _formula(deal: _Deal, c: Constants) -> str:
    each = digits(c.image_bytes + c.sample_overhead_bytes, 6)
    samples = f"n = 1 + {digits(c.request_bytes / 2**20, 6)} MiB / {each} bytes samples lie in a request"
    ranks = digits(deal.num_ranks, 6)
    if np.ptp(deal.shares) < 1e-9:
        return f"k · (1 - (1 - 1/k)^n), k = {ranks} ranks share a window, {samples}"
    return f"Σ (1 - (1 - p)^n) over the ranks that share a window, {ranks} on average, p of it each, {samples}"
