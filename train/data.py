"""What the loop asks of a stream of batches, and how a recipe opens one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shards.decode.base import Crops
from shards.settings import whole_number
from shards.stream.cores import usable_cores
from shards.stream.digests import Digests
from train.recipe import Recipe

if TYPE_CHECKING:
    import torch

__all__ = ["ImageBatch", "ImageStream", "decode_threads", "open_stream", "own_cores", "stream_crops"]


class ImageBatch(Protocol):
    """One rank's part of a global batch."""

    @property
    def views(self) -> Sequence[NDArray[np.uint8]]:
        """One `(B, num, S, S, C)` uint8 a group of crops."""
        ...

    @property
    def keys(self) -> Sequence[str]:
        """The `B` sample keys, in order."""
        ...

    @property
    def epoch(self) -> int:
        """Which pass over the data."""
        ...

    @property
    def index(self) -> int:
        """Which batch of the epoch."""
        ...


class ImageStream(Protocol):
    """Batches for ever, epoch after epoch, in an order that depends on the seed alone."""

    @property
    def digest(self) -> str:
        """What the samples are: the lock's digest, or the dataset and its version."""
        ...

    @property
    def digests(self) -> Digests:
        """Which samples, in which order; equal on all ranks, and on resume."""
        ...

    @property
    def num_samples(self) -> int:
        """Samples an epoch."""
        ...

    def __iter__(self) -> Iterator[ImageBatch]:
        """From the current position on."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Position of the next batch to be taken."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go to a position."""
        ...

    def close(self) -> None:
        """Stop all threads."""
        ...


def stream_crops(recipe: Recipe) -> tuple[Crops, ...]:
    """The crops that the decoder has to cut for a recipe."""
    return tuple(
        Crops(
            num=crop.num,
            size_px=crop.size_px,
            kind="random",
            scale=crop.scale,
            ratio=crop.ratio,
            flip_probability=crop.flip_probability,
            interpolation=crop.interpolation,
        )
        for crop in recipe.crops()
    )


def open_stream(
    recipe: Recipe,
    data: str,
    *,
    rank: int,
    world_size: int,
    dataset: str | None = None,
    accept_packing: bool = False,
    cache: Path | None = None,
    cache_bytes: int | None = None,
) -> ImageStream:
    """The stream of a dataset URL or lock file for one rank.

    Args:
        recipe: What to cut from each image, batch size and seed.
        data: A dataset, or a lock file.
        rank: This rank.
        world_size: Ranks.
        dataset: Where the lock's dataset lies now; where the lock says, without it.
        accept_packing: Whether the locked samples will do in another order.
        cache: Folder for blocks of shards on object storage; this host's ranks share it. In memory where None.
        cache_bytes: Of it, for all ranks of this host.
    """
    from shards.stream.stream import Stream
    from train.feed.side import own_device

    return Stream(
        data,
        dataset=dataset,
        accept_packing=accept_packing,
        cache=cache,
        cache_bytes=None if cache_bytes is None else max(cache_bytes // ranks_here(), 1),
        crops=stream_crops(recipe),
        global_batch=recipe.run.global_batch,
        seed=recipe.seed,
        rank=rank,
        world_size=world_size,
        channels=recipe.model.in_chans,
        num_threads=recipe.run.decode_threads or decode_threads(own_device()),
        decoder="device" if recipe.run.decode == "device" else "auto",
    )


def decode_threads(device: torch.device) -> int:
    """Threads that decode for one rank, where the recipe leaves it open: its share of this host's cores.

    Beside a GPU one core is left to the thread that gives the GPU its work. 1 at least.
    """
    share = own_cores()
    return max(share - 1 if device.type == "cuda" else share, 1)


def own_cores() -> int:
    """This rank's share of the host's cores; 0 where there are more ranks than cores."""
    return usable_cores() // ranks_here()


def ranks_here() -> int:
    """The ranks of this host."""
    return whole_number("LOCAL_WORLD_SIZE", 1, least=1)
