"""What `biovfm probe` and `biovfm knn` share: their options, and the way from checkpoints to a table of results."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from eval.probes.options import ProbeChoice
from infra.console import progress, stderr
from infra.reports.probe import short, show
from shards.errors import ConfigError, TaskNotFoundError

if TYPE_CHECKING:
    from eval.medmnist.data import Task
    from eval.probes.features import Extraction, Report
    from eval.probes.results import ProbeResult


_CHOICE: Final = ProbeChoice()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOptions:
    """Options of both commands.

    Attributes:
        choice: Which tasks are probed, and how.
        batch_size: Images per forward pass.
        device: auto, cpu or cuda.
        cache: Folder of cached features; ~/.cache/biovfm/features without it.
        out: JSON lines to append results to; a URL is a folder on object storage with an object per result.
        page: HTML page to write.
        published: Show published figures of frozen backbones beside the results.
        json_: One JSON object on standard output instead of tables.
    """

    choice: Annotated[ProbeChoice, Parameter(name="*")] = _CHOICE
    batch_size: int = 256
    device: str = "auto"
    cache: Path | None = None
    out: str | None = None
    page: Path | None = None
    published: bool = False
    json_: Annotated[bool, Parameter(name="--json")] = False

    def extraction(self) -> Extraction:
        """The options that `eval.probes.features.extract` takes."""
        return {
            "pooling": self.choice.pooling,
            "image_size_px": self.choice.image_size,
            "cache": self.cache,
            "batch_size": self.batch_size,
            "device": pick_device(self.device),
        }

    def check(self) -> None:
        """Refuse what would fail only after hours of work.

        Raises:
            ConfigError: A number is not positive, or a file cannot be written.
            StoreError: The folder of results cannot be written.
        """
        numbers = {"--resamples": self.choice.resamples, "--batch-size": self.batch_size}
        for name, value in numbers.items():
            if value < 1:
                raise ConfigError(f"{name} {value} is not positive", hint=f"pass {name} 1 or more")
        if self.device not in ("auto", "cpu") and not self.device.startswith("cuda"):
            raise ConfigError(f"there is no device {self.device!r}", hint="pass --device auto, cpu or cuda")
        if self.out is not None and "://" in self.out:
            _check_store(self.out)
        else:
            check_writable(Path(self.out) if self.out else None, option="--out")
        check_writable(self.page, option="--page")


Options = Annotated[ProbeOptions, Parameter(name="*")]
"""As a parameter of a command: each attribute is an option of its own."""
DEFAULTS: Final = ProbeOptions()

Classify = Callable[[str, "Task", "Report"], "list[ProbeResult]"]
Loaders = Mapping[str, Callable[[], "Task"]]


def check_writable(path: Path | None, *, option: str) -> None:
    """See whether a file can be written, before the work for it begins.

    Args:
        path: The file; nothing is checked without one.
        option: To name in the error.

    Raises:
        ConfigError: It cannot be written.
    """
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint=f"pass another {option}") from error


def _check_store(url: str) -> None:
    """See whether a folder on object storage can be written."""
    from shards.store import open_store
    from shards.store.base import HIDDEN

    store, name = open_store(url), f"{HIDDEN}{secrets.token_hex(6)}"
    store.put_if_absent(name, b"")
    store.delete([name])


def probe_all(
    checkpoints: Sequence[str], options: ProbeOptions, classify: Classify, *, command: str, size_px: int | None = None
) -> None:
    """Classify every MedMNIST task with every checkpoint, keep the results as they come, show them.

    Args:
        checkpoints: What the user typed.
        options: What the user chose.
        classify: Results of one checkpoint on one task.
        command: `probe` or `knn`, for the hint.
        size_px: Edge of the archive's images where the user chose none.

    Raises:
        ConfigError: No checkpoint was given.
    """
    check_checkpoints(checkpoints, command=command)
    options.check()
    choice = options.choice
    size = choice.size_px(size_px) if size_px else choice.size_px()
    found, missing = find_tasks(choice.tasks, data=choice.data, size=size, skip_missing=choice.skip_missing)
    show_all(checkpoints, found, classify, options, missing=missing)


def check_checkpoints(checkpoints: Sequence[str], *, command: str) -> None:
    """Refuse a command without a checkpoint.

    Raises:
        ConfigError: There is none.
    """
    if not checkpoints:
        raise ConfigError("no checkpoint given", hint=f"biovfm {command} runs/demo --tasks breast")


def show_all(
    checkpoints: Sequence[str],
    load: Loaders,
    classify: Classify,
    options: ProbeOptions,
    *,
    missing: Sequence[str] = (),
) -> None:
    """Classify tasks and show the results: on standard output, as a file and as a page."""
    results = run_all(checkpoints, load, classify, out=options.out, quiet=options.json_)
    for note in dict.fromkeys(note for result in results for note in result.notes):
        stderr().print(f"note: {note}", markup=False, soft_wrap=True)
    show(
        results,
        missing=missing,
        page=options.page,
        out=options.out,
        json_=options.json_,
        published=options.published,
    )


def pick_device(device: str) -> str:
    """`auto` is the GPU where there is one."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def find_tasks(
    tasks: str, *, data: str | None, size: int, skip_missing: bool
) -> tuple[dict[str, Callable[[], Task]], list[str]]:
    """How to load each task that was asked for and is there, and the names of those that are missing.

    Raises:
        TaskNotFoundError: A task is missing and `skip_missing` is not set.
        ConfigError: All of them are missing.
    """
    from eval.medmnist.data import find_archive, load_task, task_names

    found: dict[str, Callable[[], Task]] = {}
    missing: list[str] = []
    for name in task_names(tasks):
        try:
            find_archive(name, size=size, root=data)
            found[name] = partial(load_task, name, size=size, root=data)
        except TaskNotFoundError as error:
            if not skip_missing:
                raise
            missing.append(name)
            stderr().print(f"skipped: {error.message}", markup=False, soft_wrap=True)
    if not found:
        raise ConfigError(f"none of the tasks could be found: {', '.join(missing)}", hint="pass --data FOLDER")
    return found, missing


def run_all(
    checkpoints: Sequence[str], load: Loaders, classify: Classify, *, out: str | None, quiet: bool
) -> list[ProbeResult]:
    """Every checkpoint on every task, one task in memory at a time; results are kept as they come."""
    from eval.probes.results import append_results

    results: list[ProbeResult] = []
    with progress(disable=quiet) as bar:
        for checkpoint in checkpoints:
            for name, load_task in load.items():
                line = bar.add_task(f"{name} · {short(checkpoint)}", total=None, note="features")

                def report(done: int, total: int, line: Any = line) -> None:
                    bar.update(line, completed=done, total=total)

                new = classify(checkpoint, load_task(), report)
                bar.update(line, note=f"AUC {new[0].metrics['auc'].value:.3f}")
                results += new
                if out:
                    append_results(out, new)
    return results
