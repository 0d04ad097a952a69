"""The checkpoints of one run: save without waiting, find the newest whole one, load, prune."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import async_save

from shards.errors import BiovfmError, CheckpointError
from shards.settings import whole_number
from shards.store import open_store
from train.checkpoint import mirror
from train.checkpoint.record import META, Checkpoint, read_record, record_text
from train.checkpoint.tensors import INDEX, DamageError, TensorReader, TensorWriter, check_chunks, file_sums
from train.patience import collective_timeout
from train.recipe import CheckpointConfig

__all__ = ["Checkpoints"]

_T = TypeVar("_T")
_NAME = re.compile(r"step-(\d+)")
_NO_STEP = -1


class Checkpoints:
    """The checkpoints of one run.

    A checkpoint is written under a temporary name and appears by one rename. There is no random state to save: all
    draws follow from the recipe's seed and the step.

    Args:
        folder: Local folder; all ranks see it, or each node has its own and `config.url` is set.
        config: What to keep, and where a copy goes.
        rank: Of this process.
        say: Takes one line for the user.
        beside: Called with the step on the first rank just before a checkpoint is complete: what must be there too.
    """

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        *,
        rank: int = 0,
        say: Callable[[str], None] = lambda _: None,
        beside: Callable[[int], None] | None = None,
    ) -> None:
        self.folder = folder
        self._config = config
        self._rank = rank
        self._say = say
        self._beside = beside
        self._pending: Future[Any] | None = None
        self._damaged: set[int] = set()
        self._mirror = open_store(config.url) if config.url else None
        # its own group: the writer's thread must not mix its collectives with the training's
        self._group: Any = _own_group() if dist.is_initialized() else None
        self._place_in_node = whole_number("LOCAL_RANK", 0), whole_number("LOCAL_WORLD_SIZE", 1, least=1)

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint, here or in the mirror; every rank gets the same one.

        All bytes are compared with their checksums. A damaged checkpoint is named and the one before is tried.

        Raises:
            CheckpointError: There are checkpoints, but none is whole.
        """
        below, reasons = _beyond_all(), []
        while (step := self._highest(below)) != _NO_STEP:
            reason = self._damage(step)
            if not reason:
                return read_record(self._path(step))
            self._damaged.add(step)
            reasons.append(f"{self._path(step)} is damaged: {reason}")
            self._say(f"{reasons[-1]}; trying the checkpoint before it")
            below = step
        if reasons:
            raise CheckpointError(
                f"{reasons[0]}; there is no whole checkpoint before it",
                hint=f"remove {self.folder} to start from the beginning, or bring back a copy",
            )
        return None

    def steps(self) -> list[int]:
        """Steps of the complete local checkpoints, ascending."""
        return [step for step in self._local() if (self._path(step) / META).is_file() and step not in self._damaged]

    def check(self, step: int) -> Checkpoint:
        """The description of one local checkpoint, all bytes compared with their checksums.

        Raises:
            CheckpointError: It is damaged.
        """
        reason = self._damage(step)
        if reason:
            raise CheckpointError(
                f"{self._path(step)} is damaged: {reason}", hint="choose another step, or bring back a copy"
            )
        return read_record(self._path(step))

    def save(self, checkpoint: Checkpoint, method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Start writing; training may go on as soon as this returns. Waits for the write before, if it still runs.

        Raises:
            CheckpointError: The write before failed, or this one cannot begin.
        """
        self.wait()
        path = self._path(checkpoint.step)
        temporary = path.with_name(f".writing-{path.name}")
        try:
            if self._place_in_node[0] == 0:  # on every node: they may share no folder
                shutil.rmtree(temporary, ignore_errors=True)
            self._barrier()
            temporary.mkdir(parents=True, exist_ok=True)
            self._barrier()
            written = async_save(
                tensors(method, optimizer),
                storage_writer=TensorWriter(temporary),
                process_group=self._group,
                no_dist=self._group is None,
            )
        except (Exception, CheckpointException) as error:
            raise self._write_error(error, temporary) from error
        assert isinstance(written, Future)
        self._pending = _after(written, lambda: self._publish(checkpoint, temporary, path))

    @property
    def failed(self) -> bool:
        """Whether the write in progress has ended badly; `wait` says how."""
        return self._pending is not None and self._pending.done() and self._pending.exception() is not None

    def wait(self) -> None:
        """Until the write in progress is done.

        Raises:
            CheckpointError: It failed; the checkpoints before it are as they were.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except (Exception, CheckpointException) as error:
            leftovers = sorted(self.folder.glob(".writing-*")) if self._rank == 0 else []
            wrong = self._write_error(error, leftovers[0] if leftovers else self.folder)
            for leftover in leftovers:
                shutil.rmtree(leftover, ignore_errors=True)
            raise wrong from error

    def load(self, step: int, method: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Fill model and optimiser (or the model alone) in place, whatever the number of ranks then and now.

        Raises:
            CheckpointError: Tensors are missing or of another shape.
        """
        path = self._path(step)
        try:
            load_tensors(
                tensors(method, optimizer),
                storage_reader=TensorReader(path),
                process_group=self._group,
                no_dist=self._group is None,
            )
        except (Exception, CheckpointException) as error:
            raise CheckpointError(
                f"{path} cannot be loaded: {_reason(error)}", hint="remove it to go on from the one before"
            ) from error

    def _publish(self, checkpoint: Checkpoint, temporary: Path, path: Path) -> None:
        """In the writer's thread, when the tensors of all ranks are written."""
        sums = self._on_all(lambda: self._sum_and_upload(temporary, path.name))
        files = {name: entry for of_rank in sums for name, entry in of_rank.items()}
        self._on_all(lambda: self._complete(replace(checkpoint, files=files), temporary, path))
        if self._place_in_node[0] == 0:  # where nodes share no folder, what is complete lies on the first one
            self._remove_unfinished()

    def _sum_and_upload(self, temporary: Path, name: str) -> dict[str, dict[str, Any]]:
        names = [file.name for file in temporary.glob(f"__{self._rank}_*")] + ([INDEX] if self._rank == 0 else [])
        if self._mirror is not None:
            mirror.upload(self._mirror, temporary, name, [temporary / file for file in names])
        return file_sums(temporary, names)

    def _complete(self, checkpoint: Checkpoint, temporary: Path, path: Path) -> None:
        if self._rank != 0:
            return
        if self._beside is not None:
            self._beside(checkpoint.step)
        with (temporary / META).open("w", encoding="utf-8") as stream:
            stream.write(record_text(checkpoint))
            stream.flush()
            os.fsync(stream.fileno())
        if self._mirror is not None:
            mirror.upload(self._mirror, temporary, path.name, [temporary / META])
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
        self._damaged.discard(checkpoint.step)
        self._prune(newest=checkpoint.step)

    def _damage(self, step: int) -> str:
        """What is wrong with a checkpoint, after its copy in the mirror has been tried too; the same on all ranks."""
        reason = self._shared(lambda: self._check_files(step))
        if reason and self._mirror is not None:
            self._on_all(lambda: self._fetch(step))
            reason = self._shared(lambda: self._check_files(step))
        return reason

    def _check_files(self, step: int) -> None:
        """Compare this process's share of a checkpoint's bytes with their checksums."""
        path = self._path(step)
        record = read_record(path)
        first, stride = self._place_in_node
        if record.step != step:
            raise DamageError(f"{META} is of step {record.step}")
        if not record.files:
            files = sorted(file.name for file in path.glob("*.distcp"))
            check_chunks(path, files=files[first::stride] if stride > 1 else None)
            return
        for name in sorted(record.files)[first::stride]:
            stated = record.files[name]
            if not (path / name).is_file():
                raise DamageError(f"{name} is missing")
            if (size := (path / name).stat().st_size) != stated["bytes"]:
                raise DamageError(f"{name} has {size:,} bytes of {stated['bytes']:,}")
            if file_sums(path, [name])[name] != stated:
                raise DamageError(f"{name} has another checksum")

    def _fetch(self, step: int) -> None:
        if self._place_in_node[0] == 0 and self._mirror is not None:
            mirror.fetch(self._mirror, self.folder, step)

    def _shared(self, action: Callable[[], None]) -> str:
        """Run a check on all ranks; the first rank's reason why it found damage, or nothing."""

        def attempt() -> str:
            try:
                action()
            except DamageError as damage:
                return str(damage)
            except OSError as error:  # of the machine, not of the bytes
                raise CheckpointError(
                    f"cannot read {error.filename or self.folder}: {error.strerror}",
                    hint="make it readable, or move that checkpoint away to go on from the one before",
                ) from error
            return ""

        return next(filter(None, self._on_all(attempt)), "")

    def _on_all(self, action: Callable[[], _T]) -> list[_T]:
        """What an action gives on each rank; where it fails on one, all ranks raise that error."""
        error: str | None = None
        result: _T | None = None
        cause: Exception | None = None
        try:
            result = action()
        except Exception as failure:
            if self._group is None:
                raise
            cause, error = failure, _reason(failure)
        if self._group is None:
            return [result]  # type: ignore[list-item]  # the action's own result
        outcomes: list[Any] = [None] * dist.get_world_size(self._group)
        dist.all_gather_object(outcomes, (error, result), group=self._group)
        for rank, (reason, _) in enumerate(outcomes):
            if reason is not None:
                raise CheckpointError(f"rank {rank}: {reason}") from cause
        return [value for _, value in outcomes]

    def _highest(self, below: int) -> int:
        """The highest step under a limit that any rank sees, here or in the mirror; -1 for none."""
        seen = [*self._local()]
        if self._mirror is not None and self._place_in_node[0] == 0:
            seen += mirror.mirrored_steps(self._mirror)
        return max(self._on_all(lambda: max((step for step in seen if step < below), default=_NO_STEP)))

    def _local(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match.group(1)) for match in found if match)

    def _write_error(self, error: BaseException, where: Path) -> CheckpointError:
        free = _free_bytes(self.folder)
        reason = _reason(error)
        if _is_full(error) or (free is not None and free < 1 << 20):
            reason = "the disk is full"
        kept = self.steps()
        good = f"the last good one is {self._path(kept[-1]).name}" if kept else "none was written before"
        return CheckpointError(
            f"cannot write the checkpoint {where}: {reason}; {good}",
            hint="free space or lower checkpoint.keep_last, then run the same command again",
        )

    def _barrier(self) -> None:
        if self._group is not None:
            dist.barrier(self._group)

    def _remove_unfinished(self) -> None:
        """Remove what writes that ended before their time left on this node; none is under way."""
        for leftover in self.folder.glob(".writing-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _prune(self, *, newest: int) -> None:
        steps, every = self.steps(), self._config.keep_every
        old = [step for step in steps[: -self._config.keep_last] if not every or step % every]
        for step in [*old, *(step for step in self._damaged if step < newest)]:
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


def _own_group() -> Any:
    return dist.new_group(backend="gloo", timeout=collective_timeout())


def _beyond_all() -> int:
    return 1 << 62


def _reason(error: BaseException) -> str:
    """The reason for a failure in one line; torch wraps the errors of the ranks."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    if isinstance(error, BiovfmError):
        return error.message
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].removeprefix("RuntimeError: ")


def _is_full(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(seen, CheckpointException) and seen.failures:
            seen = next(iter(seen.failures.values()))[0]
        else:
            seen = seen.__cause__ or seen.__context__
    return False


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


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
