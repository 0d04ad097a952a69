"""May a run go on from a checkpoint, and which of its settings are others now?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from shards.errors import BiovfmError, CheckpointError, SubsetError
from shards.stream.digests import Digests, compare_resumed
from train.checkpoint.record import Checkpoint
from train.recipe import Recipe
from train.usage import without_unused

__all__ = ["check_resumable", "check_samples", "code_version", "differences", "setting_changes"]

_FIXED = ("model", "method", "seed", "run.global_batch", "run.unit_images", "run.accumulate")
"""Settings that decide what the saved tensors mean and which samples come next."""


def check_resumable(checkpoint: Checkpoint, recipe: Recipe, *, where: Path) -> None:
    """Refuse a checkpoint of another run before any work.

    Raises:
        CheckpointError: Names the first setting that differs.
    """
    before, now = _with_defaults(checkpoint.recipe), recipe.model_dump(mode="json")
    for section in _FIXED:
        for key, old, new in differences(_pick(before, section), _pick(now, section), section):
            raise CheckpointError(
                f"{where} holds a checkpoint of another run: {key} was {old}, the recipe says {new}",
                hint="choose another output folder, or the recipe of that run",
            )


def setting_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line per setting that differs between two resolved recipes: `optim.base_lr was 0.001, now 0.01`."""
    found = differences(_with_defaults(before), now, "")
    return [f"{key} was {old}, now {new}" for key, old, new in found]


def check_samples(
    checkpoint: Checkpoint, digests: Digests, *, data: str, dataset: str | None = None, accept_packing: bool = False
) -> list[str]:
    """Refuse to go on with other samples, or with the same in another order.

    Args:
        checkpoint: Where the run goes on from.
        digests: Of the stream that it is to go on with.
        data: What was given as data, for messages.
        dataset: Where a lock's dataset lies now; where the lock says, without it.
        accept_packing: Whether another packing of the same samples will do.

    Returns:
        Lines for the user: what the checkpoint does not pin, and which release wrote it.

    Raises:
        CheckpointError: With both digests.
    """
    was = checkpoint.stream if checkpoint.stream.get("order") else checkpoint.digest
    what = f"the checkpoint at step {checkpoint.step}"
    try:
        unpinned = compare_resumed(was, digests, what=what, accept_packing=accept_packing)
    except SubsetError as error:
        raise CheckpointError(
            f"{data} is not what this run was trained on: {error.message}{_withdrawn_from(data, dataset)}",
            hint=f"{error.hint}, or choose another output folder",
        ) from error
    written = checkpoint.code_version
    other = f"{what} was written by biovfm {written}, this is {code_version()}" if written != code_version() else ""
    return [line for line in (unpinned, other) if line]


def _withdrawn_from(data: str, place: str | None) -> str:
    """What was withdrawn from a dataset, or from that of a lock, as the end of a message; empty where nothing was."""
    from shards.dataset import Dataset
    from shards.dataset.withdrawals import withdrawals_of
    from shards.subset.lock import Lock, is_lock

    try:
        dataset = Dataset.find(place or (Lock.read(data).dataset if is_lock(data) else data))
    except BiovfmError:
        return ""
    withdrawals = None if dataset is None else withdrawals_of(dataset)
    return "" if withdrawals is None else f"; {withdrawals}"


def code_version() -> str:
    """Version of the installed package."""
    try:
        return metadata.version("biovfm")
    except metadata.PackageNotFoundError:
        return "unknown"


def _with_defaults(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stored recipe with the settings that its release did not have yet, at the values that they stand for."""
    try:
        return without_unused(Recipe.model_validate(dict(recipe))).model_dump(mode="json")
    except ValueError:  # it has settings that this release refuses: those differ, and are named
        return recipe


def _pick(document: Mapping[str, Any], dotted: str) -> Any:
    value: Any = document
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def differences(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    """What differs between two resolved recipes, or parts of them; a setting that one does not know counts as null.

    Args:
        old: One of them.
        new: The other.
        key: Of the part; empty for a whole recipe.

    Yields:
        `(dotted key, old, new)` for each leaf that differs.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*new, *(name for name in old if name not in new)]:
            yield from differences(old.get(name), new.get(name), f"{key}.{name}".removeprefix("."))
    elif old != new:
        yield key, old, new
