"""Where images are decoded: one answer for all ranks, with its reason."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from shards.decode.engines import engine_names
from train.recipe import Recipe

__all__ = ["DecodeFacts", "choose_decode", "decide", "settle_decode"]

FEW_CORES = 8
"""Cores per process below which the host decodes too slowly for a GPU: the native decoder needs 6 for MAE's ViT-B."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeFacts:
    """What decides about one rank.

    Attributes:
        device: Type of the device that trains, `cuda` or `cpu`.
        engine: The library that would decode there; empty where none is installed.
        cores: Cores of this machine per process on it.
    """

    device: str
    engine: str
    cores: int


def decide(facts: Sequence[DecodeFacts]) -> tuple[str, str]:
    """`host` or `device` for all ranks, and why."""
    for rank, one in enumerate(facts):
        if one.device != "cuda":
            return "host", "training is on the CPU" if len(facts) == 1 else f"rank {rank} trains on the CPU"
    for rank, one in enumerate(facts):
        if not one.engine:
            return "host", f"rank {rank} has no library for it (pip install 'biovfm[gpu]')"
    fewest = min(one.cores for one in facts)
    if fewest >= FEW_CORES:
        return "host", f"{fewest} cores per GPU decode fast enough"
    return "device", f"{facts[0].engine}, since {fewest} cores per GPU are fewer than {FEW_CORES}"


def choose_decode(recipe: Recipe, before: Mapping[str, Any] | None, *, device: torch.device) -> tuple[Recipe, str]:
    """Replace `run.decode: auto` by one answer for all ranks; every rank has to call this.

    Args:
        recipe: The recipe.
        before: Recipe of the checkpoint that the run goes on from, whose answer stays.
        device: Where this rank trains.

    Returns:
        The recipe with `host` or `device`, and a line for the user; empty where the recipe says it.
    """
    if recipe.run.decode != "auto":
        return recipe, ""
    if before is not None:
        chosen, reason = str(before.get("run", {}).get("decode", "host")), "as in the part before"
    else:
        mine = DecodeFacts(device=device.type, engine=next(iter(engine_names()), ""), cores=_cores())
        facts: list[DecodeFacts] = [mine] * (dist.get_world_size() if dist.is_initialized() else 1)
        if len(facts) > 1:
            dist.all_gather_object(facts, mine)
        chosen, reason = decide(facts)
    return settle_decode(recipe, chosen), f"images are decoded on the {chosen}: {reason} (run.decode=auto)"


def settle_decode(recipe: Recipe, chosen: str) -> Recipe:
    """The recipe with this answer."""
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"decode": chosen})})


def _cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return usable // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
