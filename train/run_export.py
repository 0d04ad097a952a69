"""The backbone of one of a run's checkpoints as a timm folder; run and export lie on disk or on object storage."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from shards.errors import CheckpointError, NotFoundError
from shards.store import Store, join_url, open_store
from train.checkpoint import Checkpoint, Checkpoints
from train.checkpoint.mirror import fetch_record, mirrored_steps
from train.distributed import join_world
from train.export import whole_weights, write_export
from train.methods import build_method
from train.output import write_file
from train.recipe import CheckpointConfig, Recipe
from train.recipe_files import load_recipe
from train.remote_folder import is_remote, upload_folder

__all__ = ["export_anywhere", "export_run", "export_start"]


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def export_anywhere(
    run: str, *, step: int | None = None, out: str | None = None, say: Callable[[str], None] = _to_stderr
) -> str:
    """`export_run` of a run and into a folder that are paths or URLs.

    Args:
        run: The output folder of `pretrain`.
        step: Which checkpoint, as in `export_run`.
        out: Folder to write; `<run>/export` where not given.
        say: Takes one line for the user.

    Returns:
        The folder that was written.

    Raises:
        CheckpointError: There is no such run or checkpoint, or it is damaged.
        StoreError: The store cannot be read or written.
    """
    target = out or (join_url(run, "export") if is_remote(run) else str(Path(run) / "export"))
    with TemporaryDirectory(prefix="biovfm-export-") as name:
        folder = Path(name)
        local = _fetch_run(run, folder / "run", step, say) if is_remote(run) else Path(run)
        if not is_remote(target):
            return str(export_run(local, step=step, out=Path(target), say=say))
        upload_folder(open_store(target), export_run(local, step=step, out=folder / "export", say=say))
    return target


def export_run(
    run: Path, *, step: int | None = None, out: Path | None = None, say: Callable[[str], None] = _to_stderr
) -> Path:
    """Write the backbone of one of a run's checkpoints as a timm folder.

    Args:
        run: The output folder of `pretrain`, on this machine.
        step: Which checkpoint; the newest whole one where not given. 0 is the network as training began, which needs
            none: what a trained one is to be compared with, since each method initialises its own way.
        out: Folder to write; `<run>/export` where not given.
        say: Takes one line for the user: a damaged checkpoint.

    Raises:
        CheckpointError: There is no such run or checkpoint, or it is damaged.
    """
    if not (run / "recipe.yaml").is_file():
        raise CheckpointError(
            f"{run} is no run folder: it has no recipe.yaml", hint="give the --out of biovfm pretrain"
        )
    recipe = load_recipe(run / "recipe.yaml", of_earlier_run=True)
    if step == 0:
        return export_start(recipe, out or run / "export")
    with join_world():
        local = recipe.checkpoint.model_copy(update={"url": None})
        checkpoints = Checkpoints(run / "checkpoints", local, say=say)
        found = _chosen(checkpoints, step, checkpoints.steps(), where=str(checkpoints.folder))
        method = build_method(recipe)
        checkpoints.load(found.step, method)
    return write_export(whole_weights(method), recipe, out or run / "export", step=found.step)


def export_start(recipe: Recipe, out: Path) -> Path:
    """Write the backbone as training by a recipe begins, with the weights that its seed gives, as a timm folder."""
    return write_export(whole_weights(build_method(recipe)), recipe, out, step=0)


def _chosen(checkpoints: Checkpoints, step: int | None, steps: Sequence[int], *, where: str) -> Checkpoint:
    if step is None and (found := checkpoints.latest()) is not None:
        return found
    if step is None or step not in steps:
        there = ", ".join(map(str, steps)) or "none"
        wanted = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        raise CheckpointError(f"{where} has {wanted}", hint=f"there are: {there}")
    return checkpoints.check(step)


def _fetch_run(url: str, folder: Path, step: int | None, say: Callable[[str], None]) -> Path:
    """A local run folder that holds the recipe and the one checkpoint that is wanted, its bytes checked."""
    copies = join_url(url, "checkpoints")
    store = open_store(copies)
    steps = mirrored_steps(store)
    if step == 0:
        write_file(folder / "recipe.yaml", _recipe_text(open_store(url), store, steps))
        return folder
    if not steps:
        raise CheckpointError(f"{url} holds no checkpoint", hint="give the --out of biovfm pretrain")
    checkpoints = Checkpoints(folder / "checkpoints", CheckpointConfig(url=copies), say=say)
    found = _chosen(checkpoints, step, steps, where=copies)
    write_file(folder / "recipe.yaml", yaml.safe_dump(dict(found.recipe), sort_keys=False))
    return folder


def _recipe_text(run: Store, copies: Store, steps: Sequence[int]) -> str:
    """The recipe of a run: of its newest checkpoint, else of the finished run."""
    if steps:
        return yaml.safe_dump(dict(fetch_record(copies, steps[-1]).recipe), sort_keys=False)
    try:
        return run.read("recipe.yaml").decode("utf-8")
    except NotFoundError:
        raise CheckpointError(
            f"{run.url} is no run folder: it has no recipe.yaml", hint="give the --out of biovfm pretrain"
        ) from None
