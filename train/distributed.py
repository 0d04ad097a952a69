"""One process or many: who I am, on which device, and how a network is spread."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import HashStore, PrefixStore, rendezvous  # type: ignore[attr-defined]  # torch lists none
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from shards.decode.kernels.choice import KernelName
from shards.errors import BiovfmError, ConfigError, SubsetError
from shards.settings import whole_number
from shards.stream.digests import Digests, compare_ranks
from train.backbone import Backbone
from train.checkpoint.compare import differences
from train.compiling import compile_parts
from train.feed.side import own_device
from train.meeting import MEETING, meet, wait_for_first_rank, while_others_wait
from train.methods.base import Method
from train.patience import collective_timeout
from train.recipe import Recipe, RunConfig

__all__ = [
    "World",
    "autocast",
    "check_batch",
    "check_same_data",
    "check_same_recipe",
    "distribute",
    "is_known_to_all",
    "join_world",
    "known_to_all",
    "mean_over_ranks",
    "on_first_rank",
    "without_gradient_sync",
]

_KNOWN_TO_ALL = "every rank stops with this error"

_LEAVE_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers": False  # the former took over from the latter, which warns
}


@dataclass(frozen=True, slots=True)
class World:
    """This process among its peers.

    Attributes:
        rank: From 0.
        size: Processes.
        device: Where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes what only one may write."""
        return self.rank == 0


@contextmanager
def join_world() -> Iterator[World]:
    """Join the group that torchrun started, or stand alone; leave it at the end.

    One GPU a process where there are GPUs, else the CPU. Gloo serves the CPU tensors (checkpoints), NCCL the GPU's.

    Raises:
        ConfigError: RANK, LOCAL_RANK or WORLD_SIZE holds no number.
    """
    size, rank = whole_number("WORLD_SIZE", 1, least=1), whole_number("RANK", 0)
    device = own_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    started = not dist.is_initialized()
    if started:
        _start_group(device, rank=rank, size=size)
    try:
        yield World(rank=rank, size=size, device=device)
    finally:
        if started:
            dist.destroy_process_group()


def _start_group(device: torch.device, *, rank: int, size: int) -> None:
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if size > 1:
        store, _, _ = next(iter(rendezvous("env://", rank, size, timeout=MEETING)))
        fresh = PrefixStore(meet(store, rank=rank, size=size), store)
        dist.init_process_group(backend, store=fresh, rank=rank, world_size=size, timeout=collective_timeout())
    else:  # a group of one, so that checkpoints and sharding take one path
        dist.init_process_group(backend, store=HashStore(), rank=rank, world_size=size)


def check_batch(recipe: Recipe, world_size: int) -> None:
    """Refuse a batch that does not fall into whole units on every rank.

    Raises:
        ConfigError: With the numbers and the nearest batch that would do.
    """
    run = recipe.run
    atom = world_size * run.accumulate * run.unit_images
    if run.global_batch % atom:
        nearest = max(round(run.global_batch / atom), 1) * atom
        raise ConfigError(
            f"run.global_batch {run.global_batch} does not divide into {world_size} ranks x {run.accumulate} "
            f"micro-batches of whole units of {run.unit_images} images",
            hint=f"use run.global_batch={nearest}, or a smaller run.unit_images",
        )


def on_first_rank(world: World, action: Callable[[], object]) -> None:
    """Run something on the first rank, while the others wait for it.

    Raises:
        BiovfmError: It failed there; every rank raises that error.
    """
    outcome: list[BiovfmError | None] = [None]
    if world.is_first:
        with while_others_wait() if world.size > 1 else nullcontext():
            try:
                action()
            except BiovfmError as error:
                outcome = [error]
    else:
        wait_for_first_rank()
    if world.size > 1:
        dist.broadcast_object_list(outcome)
    if outcome[0] is not None:
        raise known_to_all(outcome[0])


def check_same_data(world: World, digests: Digests, *, data: str, code_version: str) -> None:
    """Refuse to begin where ranks see other samples, another order, or run another release.

    Raises:
        SubsetError: On every rank; names two ranks that differ and both digests.
    """
    mine = ({**digests.as_dict(), "code_version": code_version}, data)
    found = [mine] * world.size
    if world.size > 1:
        dist.all_gather_object(found, mine)
    try:
        compare_ranks([facts for facts, _ in found], names=[name for _, name in found])
    except SubsetError as error:
        raise known_to_all(error) from None


def check_same_recipe(world: World, recipe: Recipe) -> None:
    """Refuse to begin where ranks would train by other settings; `run.decode_threads` may differ between hosts.

    Raises:
        ConfigError: On every rank; names two ranks and each setting that differs.
    """
    mine = recipe.model_dump(mode="json")
    del mine["run"]["decode_threads"]
    found = [mine] * world.size
    if world.size > 1:
        dist.all_gather_object(found, mine)
    for rank, theirs in enumerate(found[1:], 1):
        changes = [f"{key} {one} and {other}" for key, one, other in differences(found[0], theirs, "")]
        if changes:
            raise known_to_all(
                ConfigError(
                    f"ranks 0 and {rank} have other recipes: {'; '.join(changes)}",
                    hint="give every rank the same --recipe and --set",
                )
            )


def known_to_all(error: BiovfmError) -> BiovfmError:
    """Mark an error that every rank raises, so that one of them alone has to show it."""
    error.add_note(_KNOWN_TO_ALL)
    return error


def is_known_to_all(error: BiovfmError) -> bool:
    """Whether every rank raises this error."""
    return _KNOWN_TO_ALL in getattr(error, "__notes__", ())


def distribute(
    method: Method, recipe: Recipe, world: World, *, kernels: KernelName, compiles: bool = False
) -> nn.Module:
    """Move a method to the device and wrap its network for this run's parallelism.

    Args:
        method: What is trained.
        recipe: Its recipe.
        world: This process among its peers.
        kernels: What augments, and computes the loss over prototypes, on every rank.
        compiles: Whether blocks, heads and losses are compiled (`train.choice.choose_compile`).

    Returns:
        What to call for the method's network.
    """
    method.to(world.device)
    method.train()
    for module in method.modules():
        if isinstance(module, Backbone):
            module.checkpoint_activations = recipe.run.checkpoint_activations
    method.kernels = kernels
    if compiles:
        compile_parts(method)
        method.compiled.active = True
    if recipe.run.parallel == "fsdp":
        return _shard(method, recipe.run)
    if world.size == 1:
        return method.network
    device_ids = [world.device] if world.device.type == "cuda" else None
    return DistributedDataParallel(
        method.network, device_ids=device_ids, gradient_as_bucket_view=True, **_LEAVE_BUFFERS
    )


def _shard(method: Method, run: RunConfig) -> nn.Module:
    policy = MixedPrecisionPolicy()
    if run.precision == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for module in method.shard_modules():
        # the network keeps its outermost parameters whole for the backward pass; a teacher has none, and must give them
        # back, or its moving average would meet whole tensors
        fully_shard(module, mp_policy=policy, reshard_after_forward=None if module is method.network else True)
    return method.network


def autocast(run: RunConfig, device: torch.device) -> AbstractContextManager[object]:
    """bf16 autocast where the recipe asks for it."""
    return torch.autocast(device.type, torch.bfloat16) if run.precision == "bf16" else nullcontext()


def without_gradient_sync(network: nn.Module, *, skip: bool) -> AbstractContextManager[object]:
    """Leave gradients unreduced in the block to come where `skip` is set: all micro-batches but the last."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(not skip)
    return network.no_sync() if skip and isinstance(network, DistributedDataParallel) else nullcontext()


def mean_over_ranks(values: Tensor) -> Tensor:
    """Mean of a tensor over all ranks; the tensor itself where there is one process."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values
