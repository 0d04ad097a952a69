"""The values against what the commands know: sources of the catalogue, recipes, tasks, options."""

from __future__ import annotations

import difflib

from infra.deploy.values import Source, Values
from shards.errors import ConfigError

__all__ = ["check"]


def check(values: Values, *, where: str) -> None:
    """Refuse values with which a rendered command would end at its start.

    Args:
        values: The values.
        where: Their file, for the error.

    Raises:
        ConfigError: One line that names the key.
    """
    for number, source in enumerate(values.ingest.sources):
        _check_source(source, values.storage.dataset, f"{where}: ingest.sources.{number}")
    _check_recipe(values, where)
    _check_tasks(values.probe.tasks, where)


def _check_source(source: Source, dataset: str, where: str) -> None:
    from ingest.source.spec import catalogue_ids

    _check_options(["ingest", source.source, source.raw, dataset, *source.options], where)
    is_own = any(option.partition("=")[0] == "--modality" for option in source.options)
    if not is_own and source.source not in catalogue_ids():
        near = difflib.get_close_matches(source.source, catalogue_ids(), n=1)
        hint = f"did you mean {near[0]}?" if near else "`biovfm sources` lists them"
        raise ConfigError(
            f"{where}.source: {source.source} is not in the catalogue, and has no --modality among its options",
            hint=hint,
        )


def _check_options(words: list[str], where: str) -> None:
    from cyclopts import CycloptsError

    from infra.cli import build

    try:
        build(words[0]).parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"{where}.options: {said}", hint=f"see `biovfm {words[0]} --help`") from error


def _check_recipe(values: Values, where: str) -> None:
    from pathlib import Path

    from infra.commands._assignments import read_assignments
    from train.recipe_files import load_recipe

    wanted = values.pretrain
    _check_options(["pretrain", wanted.data, *wanted.options, "--out", wanted.out], f"{where}: pretrain")
    if Path(wanted.recipe).suffix in {".yaml", ".yml"} and not Path(wanted.recipe).is_file():
        return  # it lies where it is submitted
    set_ = [option.removeprefix("--set=") for option in wanted.options if option.startswith("--set=")]
    try:
        run = load_recipe(wanted.recipe, read_assignments("--set", set_, example="run.steps=1000")).run
    except ConfigError as error:
        raise ConfigError(f"{where}: pretrain.recipe: {error.message}", hint=error.hint) from error
    atom = wanted.nodes * wanted.gpus * run.accumulate * run.unit_images
    if run.global_batch % atom:
        raise ConfigError(
            f"{where}: pretrain: a batch of {run.global_batch} images does not divide into {wanted.nodes} nodes of "
            f"{wanted.gpus} GPUs and whole units of {run.unit_images} images",
            hint="choose other nodes or gpus, or options such as --set=run.unit_images=32",
        )


def _check_tasks(tasks: str, where: str) -> None:
    from eval.medmnist.data import task_names

    try:
        task_names(tasks)
    except ConfigError as error:
        raise ConfigError(f"{where}: probe.tasks: {error.message}", hint=error.hint) from error
