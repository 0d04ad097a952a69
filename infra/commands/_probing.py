"""What `biovfm probe` and `biovfm knn` share: their options, and the way from checkpoints to a table of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Parameter

from infra.console import progress, stderr
from infra.reports.probe import short, show
from shards.errors import ConfigError, TaskNotFoundError

if TYPE_CHECKING:
    from eval.medmnist.data import Task
    from eval.probes.features import Report
    from eval.probes.linear import ProbeResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOptions:
    """Options of both commands.

    Attributes:
        tasks: `all`, or names separated by commas.
        data: Folder, .npz or URL of the archives; the medmnist cache, else a download, without it.
        size: Edge of the archive's images in pixels.
        image_size: Edge that the network sees; the one that it was trained on without it.
        pooling: Mean of the patch tokens, the CLS token, or both. `auto` goes by the method that the checkpoint
            records: both for DINOv2, which trains both; patches for MAE, whose CLS token no loss sees, and otherwise.
        skip_missing: Name tasks whose images are missing and go on without them.
        resamples: Bootstrap resamples.
        batch_size: Images a forward pass.
        device: auto, cpu or cuda.
        cache: Folder of cached features; ~/.cache/biovfm/features without it.
        out: JSON lines to append results to.
        page: HTML page to write.
        json_: One JSON object on standard output instead of tables.
    """

    tasks: str = "all"
    data: str | None = None
    size: Literal[28, 64, 128, 224] = 28
    image_size: int | None = None
    pooling: Literal["auto", "patch_mean", "cls", "cls_patch_mean"] = "auto"
    skip_missing: bool = False
    resamples: int = 1000
    batch_size: int = 256
    device: str = "auto"
    cache: Path | None = None
    out: Path | None = None
    page: Path | None = None
    json_: Annotated[bool, Parameter(name="--json")] = False

    def extraction(self) -> dict[str, Any]:
        """The options that `eval.probes.linear` takes by the same meaning."""
        return {
            "pooling": self.pooling,
            "image_size_px": self.image_size,
            "cache": self.cache,
            "batch_size": self.batch_size,
            "device": pick_device(self.device),
            "num_resamples": self.resamples,
        }


Options = Annotated[ProbeOptions, Parameter(name="*")]
"""As a parameter of a command: each attribute is an option of its own."""
DEFAULTS: Final = ProbeOptions()

Classify = Callable[[str, "Task", "Report"], "list[ProbeResult]"]


def probe_all(checkpoints: Sequence[str], options: ProbeOptions, classify: Classify, *, command: str) -> None:
    """Classify every task with every checkpoint, keep the results as they come, show them.

    Args:
        checkpoints: What the user typed.
        options: What the user chose.
        classify: Results of one checkpoint on one task.
        command: `probe` or `knn`, for the hint.

    Raises:
        ConfigError: No checkpoint was given.
    """
    if not checkpoints:
        raise ConfigError("no checkpoint given", hint=f"biovfm {command} runs/demo --tasks breast")
    found, missing = find_tasks(options.tasks, data=options.data, size=options.size, skip_missing=options.skip_missing)
    results = run_all(checkpoints, found, classify, out=options.out, quiet=options.json_)
    show(results, missing=missing, page=options.page, out=options.out, json_=options.json_)


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
            stderr().print(f"skipped: {error.message}")
    if not found:
        raise ConfigError(f"none of the tasks could be found: {', '.join(missing)}", hint="pass --data FOLDER")
    return found, missing


def run_all(
    checkpoints: Sequence[str],
    load: Mapping[str, Callable[[], Task]],
    classify: Classify,
    *,
    out: Path | None,
    quiet: bool,
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
