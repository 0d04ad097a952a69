"""Where images are decoded, by which kernels, and whether is compiled: one answer for all ranks, with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from shards.decode.engines import engine_names
from shards.decode.kernels.choice import KernelName, Kernels, kernels_for
from shards.errors import ConfigError
from train.compiling import Missing, find_missing, wants_compile
from train.data import own_cores
from train.distributed import World, known_to_all
from train.recipe import Recipe

__all__ = [
    "DecodeFacts",
    "KernelFacts",
    "choose_compile",
    "choose_decode",
    "choose_kernels",
    "common_compile",
    "common_kernels",
    "decide",
    "settle_decode",
]

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
        mine = DecodeFacts(device=device.type, engine=next(iter(engine_names()), ""), cores=own_cores())
        facts: list[DecodeFacts] = [mine] * (dist.get_world_size() if dist.is_initialized() else 1)
        if len(facts) > 1:
            dist.all_gather_object(facts, mine)
        chosen, reason = decide(facts)
    return settle_decode(recipe, chosen), f"images are decoded on the {chosen}: {reason} (run.decode=auto)"


def settle_decode(recipe: Recipe, chosen: str) -> Recipe:
    """The recipe with this answer."""
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"decode": chosen})})


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFacts:
    """What decides about the kernels of one rank.

    Attributes:
        kernels: What it would take alone; the error where it may take nothing.
        capability: Compute capability of its GPU, such as `9.0`; empty on the CPU.
    """

    kernels: Kernels | ConfigError
    capability: str = ""


def common_kernels(facts: Sequence[KernelFacts]) -> Kernels:
    """What all ranks take: Triton where each has the same release of it, else torch.

    Raises:
        ConfigError: A rank's setting is wrong, or asks for Triton, which another rank does not have.
    """
    found: list[Kernels] = []
    for one in facts:
        if isinstance(one.kernels, ConfigError):
            raise one.kernels
        found.append(one.kernels)
    without = next((rank for rank, one in enumerate(found) if one.name == "torch"), None)
    if without is not None:
        return _without_triton(found, without)
    other = next((rank for rank, one in enumerate(found) if one.reason != found[0].reason), None)
    if other is not None and not any(one.is_demanded for one in found):
        return Kernels(name="torch", reason=f"{found[0].reason} on rank 0, {found[other].reason} on rank {other}")
    cards = sorted({one.capability for one in facts})
    kinds = f", on GPUs of compute capability {' and '.join(cards)}" if len(cards) > 1 else ""
    return Kernels(name="triton", reason=found[0].reason + kinds)


def _without_triton(found: Sequence[Kernels], without: int) -> Kernels:
    """Torch for all, since a rank has nothing else."""
    for rank, one in enumerate(found):
        if one.is_demanded:
            raise ConfigError(
                f"{one.reason} is asked for on rank {rank}, but rank {without} has torch: {found[without].reason}",
                hint="set BIOVFM_KERNELS to auto on all ranks",
            )
    alike = all(one == found[0] for one in found)
    return Kernels(name="torch", reason=found[0].reason if alike else f"on rank {without}, {found[without].reason}")


def choose_kernels(world: World) -> tuple[KernelName, str]:
    """What augments on every rank; every rank has to call this.

    Returns:
        The kernels, and a line for the user; empty where all ranks train on the CPU.

    Raises:
        ConfigError: On every rank; see `common_kernels`.
    """
    mine = _kernel_facts(world.device)
    facts = [mine] * world.size
    if world.size > 1:
        dist.all_gather_object(facts, mine)
    try:
        chosen = common_kernels(facts)
    except ConfigError as error:
        raise known_to_all(error) from None
    return chosen.name, chosen.line if any(one.capability for one in facts) else ""


def choose_compile(recipe: Recipe, world: World) -> tuple[bool, str]:
    """Whether this rank compiles; every rank has to call this.

    Returns:
        The answer, and a line for the user; empty where the recipe says it.

    Raises:
        ConfigError: On every rank; see `common_compile`.
    """
    wanted = wants_compile(recipe.run, world.device)
    mine = find_missing(world.device) if wanted else None
    missing = [mine] * world.size
    if world.size > 1:
        dist.all_gather_object(missing, mine)
    try:
        line = common_compile(missing, is_demanded=recipe.run.compile is True)
    except ConfigError as error:
        raise known_to_all(error) from None
    return wanted and not line, line


def common_compile(missing: Sequence[Missing | None], *, is_demanded: bool) -> str:
    """Why no rank compiles, and what would help, in one line; empty where nothing is missing.

    Args:
        missing: What each rank misses.
        is_demanded: Whether the recipe says `true`, not `auto`.

    Raises:
        ConfigError: A rank misses something, and compiling is demanded.
    """
    rank, first = next(((rank, one) for rank, one in enumerate(missing) if one is not None), (0, None))
    if first is None:
        return ""
    where = "" if all(one == first for one in missing) else f"on rank {rank}, "
    if is_demanded:
        raise ConfigError(
            f"run.compile=true: {where}{first.reason}", hint=f"{first.remedy}, or set run.compile to auto or false"
        )
    return f"nothing is compiled: {where}{first.reason} (run.compile=auto) — {first.remedy}"


def _kernel_facts(device: torch.device) -> KernelFacts:
    capability = ".".join(map(str, torch.cuda.get_device_capability(device))) if device.type == "cuda" else ""
    try:
        return KernelFacts(kernels=kernels_for(device), capability=capability)
    except ConfigError as error:
        return KernelFacts(kernels=error, capability=capability)
