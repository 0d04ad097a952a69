"""Checkpoints through `torch.distributed.checkpoint`: asynchronous, atomic, readable by any number of ranks.

    <folder>/step-00001000/
        __0_0.distcp ...    tensors, one file or more a rank
        .metadata           which tensor lies where
        meta.json           step, stream position, digest, recipe, code version

A checkpoint is written under a temporary name and appears by one rename; a folder without `meta.json` is none. There is
no random state to save: all draws follow from the recipe's seed and the step. DCP's `.metadata` is a pickle, so read
only checkpoints that you trust; what is given away is the export, which holds none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import async_save

from shards.errors import CheckpointError
from shards.store import open_store
from train import mirror
from train.recipe import CheckpointConfig, Recipe

__all__ = ["Checkpoint", "Checkpoints", "check_digest", "check_resumable", "code_version"]

FORMAT = 1
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What `meta.json` says.

    Attributes:
        step: Steps done.
        stream: Position of the next batch.
        digest: Of the samples streamed.
        recipe: Resolved.
        code_version: Of the package that wrote it.
        world_size: Ranks that wrote it.
        format: Version of this layout.
    """

    step: int
    stream: Mapping[str, Any]
    digest: str
    recipe: Mapping[str, Any]
    code_version: str
    world_size: int
    format: int = FORMAT


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Local folder; all ranks see it, or each node has its own and `config.url` is set.
        config: What to keep, and where a copy goes.
        rank: Of this process.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, *, rank: int = 0) -> None:
        self.folder = folder
        self._config = config
        self._rank = rank
        self._pending: Future[Any] | None = None
        self._mirror = open_store(config.url) if config.url else None
        # its own group: the writer's thread must not mix its collectives with the training's
        self._group: Any = dist.new_group(backend="gloo") if dist.is_initialized() else None

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint; with a mirror, one that another machine wrote is fetched first."""
        if self._mirror is not None:
            if int(os.environ.get("LOCAL_RANK", "0")) == 0:
                mirror.fetch_newest(self._mirror, self.folder)
            self._barrier()
        steps = self.steps()
        return self.read(steps[-1]) if steps else None

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, ascending."""
        if not self.folder.is_dir():
            return []
        found = [(_NAME.fullmatch(path.name), path) for path in self.folder.iterdir()]
        return sorted(int(match.group(1)) for match, path in found if match and (path / "meta.json").is_file())

    def read(self, step: int) -> Checkpoint:
        """The description of one checkpoint.

        Raises:
            CheckpointError: It was written by a later version of this layout.
        """
        path = self._path(step) / "meta.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("format") != FORMAT:
            raise CheckpointError(f"{path}: format {document.get('format')}, this version reads {FORMAT}")
        return Checkpoint(**document)

    def save(self, checkpoint: Checkpoint, method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Start writing; training may go on as soon as this returns. Waits for the write before, if it still runs."""
        self.wait()
        path = self._path(checkpoint.step)
        temporary = path.with_name(f".writing-{path.name}")
        if self._rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        self._barrier()
        temporary.mkdir(parents=True, exist_ok=True)
        self._barrier()
        written = async_save(
            tensors(method, optimizer),
            storage_writer=FileSystemWriter(temporary),
            process_group=self._group,
            no_dist=self._group is None,
        )
        assert isinstance(written, Future)
        self._pending = _after(written, lambda: self._publish(checkpoint, temporary, path))

    def wait(self) -> None:
        """Until the write in progress is done.

        Raises:
            CheckpointError: It failed.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except Exception as error:
            raise CheckpointError(f"writing a checkpoint to {self.folder} failed: {error}") from error

    def load(self, step: int, method: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Fill model and optimiser (or the model alone) in place, whatever the number of ranks then and now.

        Raises:
            CheckpointError: Tensors are missing or of another shape.
        """
        path = self._path(step)
        try:
            load_tensors(
                tensors(method, optimizer),
                storage_reader=FileSystemReader(path),
                process_group=self._group,
                no_dist=self._group is None,
            )
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise CheckpointError(
                f"{path} cannot be read: {reason[-1]}", hint="remove it to go on from the one before"
            ) from error

    def _publish(self, checkpoint: Checkpoint, temporary: Path, path: Path) -> None:
        """In the writer's thread, when the tensors of all ranks are written."""
        if self._mirror is not None:
            own = list(temporary.glob(f"__{self._rank}_*"))
            shared = [temporary / ".metadata"] if self._rank == 0 else []
            mirror.upload(self._mirror, temporary, path.name, own + shared)
            self._barrier()
        if self._rank != 0:
            return
        text = json.dumps(asdict(checkpoint), indent=2)
        (temporary / mirror.META).write_text(text + "\n", encoding="utf-8")
        if self._mirror is not None:
            mirror.upload(self._mirror, temporary, path.name, [temporary / mirror.META])
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
        self._prune()

    def _barrier(self) -> None:
        if self._group is not None:
            dist.barrier(self._group)

    def _prune(self) -> None:
        for leftover in self.folder.glob(".writing-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        steps = self.steps()
        every = self._config.keep_every
        for step in steps[: -self._config.keep_last]:
            if not every or step % every:
                shutil.rmtree(self._path(step), ignore_errors=True)
                if self._mirror is not None:
                    mirror.remove(self._mirror, step)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"


def tensors(method: nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
    """All state that is saved, as tensors that loading fills in place; the optimiser's under its parameters' names."""
    if optimizer is None:
        return {"method": method.state_dict()}
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    state = {names[id(parameter)]: dict(values) for parameter, values in optimizer.state.items()}
    return {"method": method.state_dict(), "optimizer": state}


def check_resumable(checkpoint: Checkpoint, recipe: Recipe, *, where: Path) -> None:
    """Refuse a checkpoint of another run before any work.

    Raises:
        CheckpointError: Names the first setting that differs.
    """
    now = recipe.model_dump(mode="json")
    for section in ("model", "method", "seed", "run.global_batch", "run.unit_images", "run.accumulate"):
        was, is_ = _pick(checkpoint.recipe, section), _pick(now, section)
        if difference := _first_difference(was, is_, section):
            key, old, new = difference
            raise CheckpointError(
                f"{where} holds a checkpoint of another run: {key} was {old}, the recipe says {new}",
                hint="choose another output folder, or the recipe of that run",
            )


def check_digest(checkpoint: Checkpoint, digest: str, *, data: str) -> None:
    """Refuse to go on with other samples.

    Raises:
        CheckpointError: With both digests.
    """
    if checkpoint.digest != digest:
        raise CheckpointError(
            f"{data} is not what this run was trained on: digest {digest[:16]}, the checkpoint at step "
            f"{checkpoint.step} has {checkpoint.digest[:16]}",
            hint="give the lock or dataset version of that run, or choose another output folder",
        )


def code_version() -> str:
    """Version of the installed package."""
    try:
        return metadata.version("biovfm")
    except metadata.PackageNotFoundError:
        return "unknown"


def _pick(document: Mapping[str, Any], dotted: str) -> Any:
    for key in dotted.split("."):
        document = document[key]
    return document


def _first_difference(old: Any, new: Any, key: str) -> tuple[str, Any, Any] | None:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*new, *(name for name in old if name not in new)]:
            if found := _first_difference(old.get(name), new.get(name), f"{key}.{name}"):
                return found
        return None
    return None if old == new else (key, old, new)


def _after(future: Future[Any], action: Any) -> Future[Any]:
    """A future that is done when `action` has run after `future`."""
    done: Future[Any] = Future()

    def run(finished: Future[Any]) -> None:
        try:
            finished.result()
            action()
        except BaseException as error:  # noqa: BLE001 - handed on to whoever waits
            done.set_exception(error)
        else:
            done.set_result(None)

    future.add_done_callback(run)
    return done
