"""A stream's position, as it stands in a checkpoint: where it is, and all that decides what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shards.errors import ConfigError
from shards.stream.digests import Digests, compare_resumed
from shards.stream.mixing import Mixture
from shards.stream.order import MAX_LANES, OrderSettings

FORMAT: Final = 2
"""Format 1, of earlier releases, is epoch and batch alone."""
_DECIDING: Final = ("seed", "global_batch", "last", "mixture", "most_lanes")


def position(
    settings: OrderSettings, mixture: Mixture | None, digests: Digests, *, epoch: int, batch: int
) -> dict[str, Any]:
    """The position of a batch; JSON values alone."""
    return {
        "epoch": epoch,
        "batch": batch,
        "format": FORMAT,
        "seed": settings.seed,
        "global_batch": settings.global_batch,
        "last": settings.last,
        "mixture": None if mixture is None else mixture.model_dump(mode="json"),
        "most_lanes": digests.most_lanes,
        "samples": digests.samples,
        "order": digests.order,
    }


def check_position(
    state: Mapping[str, Any], now: Mapping[str, Any], digests: Digests, *, accept_packing: bool = False
) -> str:
    """Refuse a position of another stream.

    Args:
        state: The position.
        now: Any position of this stream.
        digests: Of this stream.
        accept_packing: Whether another packing of the same samples will do.

    Returns:
        A line on what the position does not pin; empty where it pins everything.

    Raises:
        ConfigError: It is no position, of a later release, or of other settings.
        SubsetError: It is of other samples, or of the same in another order.
    """
    if not {"epoch", "batch"} <= set(state):
        raise ConfigError(f"a position has epoch and batch, this has {', '.join(state) or 'nothing'}")
    if "format" not in state:
        return "the position is of an earlier release: it pins neither samples nor order, seed, batch size or mixture"
    if int(state["format"]) > FORMAT:
        raise ConfigError(
            f"the position has format {state['format']}, this release reads up to {FORMAT}",
            hint="install the biovfm release that wrote it",
        )
    for name in _DECIDING:
        was = state.get(name, MAX_LANES if name == "most_lanes" else None)
        if was != now[name]:
            raise ConfigError(
                f"the position is of a stream with {name}={was}, this one has {name}={now[name]}",
                hint="give the lock of that run" if name == "most_lanes" else f"make the stream with {name}={was}",
            )
    return compare_resumed(state, digests, what="the position", accept_packing=accept_packing)
