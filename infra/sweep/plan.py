"""From a grid to a list of runs, each with its lock and its resolved recipe on disk.

    <out>/plan.json               the runs, in order
    <out>/locks/<mix>.lock.yaml   one for each mix and fraction
    <out>/recipes/<run>.yaml      the whole recipe of a run
    <out>/runs/<run>/             the run; finished when `result.json` is there
    <out>/results.csv             what `biovfm scaling` reads

Planning again keeps the locks that are there, so a dataset that grew since does not change a sweep half-way.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra.sweep.grid import Grid, Modality
from shards.errors import ConfigError
from shards.files import read_json_object, write_text
from shards.settings import parse

if TYPE_CHECKING:
    from shards.subset.lock import Lock
    from train.recipe import Recipe

PLAN: Final = "plan.json"
RESULT: Final = "result.json"
RESULTS: Final = "results.csv"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One run, pinned.

    Attributes:
        id: Readable parts and a digest of everything that decides the result.
        recipe: Name or file as the grid has it.
        algorithm: `mae` or `dinov2`.
        model: Size of the network.
        fraction: Share of the samples.
        modality: Tags joined by `+`, or `all`.
        seed: Of the run.
        lock: Lock file, below the sweep's folder.
        lock_digest: Of the samples.
        num_images: Samples of the lock.
        recipe_file: Resolved recipe, below the sweep's folder.
        steps: Of the run.
        params_total: Trained weights (encoder and decoder or heads).
        params_encoder: Weights of the encoder.
    """

    id: str
    recipe: str
    algorithm: str
    model: str
    fraction: float
    modality: str
    seed: int
    lock: str
    lock_digest: str
    num_images: int
    recipe_file: str
    steps: int
    params_total: int
    params_encoder: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All runs of a sweep.

    Attributes:
        out: The sweep's folder.
        grid: What was asked for.
        runs: In the order in which they run.
        dataset: Where the dataset lies now, where the grid and the locks name another place.
    """

    out: Path
    grid: Grid
    runs: tuple[PlannedRun, ...]
    dataset: str | None = None

    def folder(self, run: PlannedRun) -> Path:
        """Where a run lies."""
        return self.out / "runs" / run.id

    def is_finished(self, run: PlannedRun) -> bool:
        """Whether a run's result is there."""
        return (self.folder(run) / RESULT).is_file()

    def pending(self) -> list[PlannedRun]:
        """Runs without a result."""
        return [run for run in self.runs if not self.is_finished(run)]


def make_plan(grid: Grid, out: Path, *, dataset: str | None = None) -> Plan:
    """Pin locks and recipes and write `plan.json`.

    Args:
        grid: What is asked for.
        out: The sweep's folder.
        dataset: Where the grid's dataset lies now; where the grid says, without it.

    Raises:
        ConfigError: A recipe or a setting is wrong.
        SubsetError: A mix selects nothing.
    """
    runs = []
    for mix, fraction in itertools.product(grid.modalities, grid.fractions):
        path, lock = _pin_lock(grid, out, mix, fraction, dataset=dataset or grid.dataset)
        for recipe, model, seed in itertools.product(grid.recipes, grid.models, grid.seeds):
            resolved = _resolve(grid, recipe, model, seed)
            runs.append(_plan_run(grid, out, resolved, lock, path, recipe=recipe, mix=mix, fraction=fraction))
    plan = Plan(out=out, grid=grid, runs=tuple({run.id: run for run in runs}.values()), dataset=dataset)
    document = {"format": _FORMAT, "grid": grid.model_dump(mode="json"), "runs": [asdict(run) for run in plan.runs]}
    write_text(out / PLAN, json.dumps(document, indent=2) + "\n")
    return plan


def read_plan(out: Path, *, dataset: str | None = None) -> Plan:
    """The plan of a sweep's folder.

    Args:
        out: The folder.
        dataset: Where the dataset of its locks lies now; where they say, without it.

    Raises:
        ConfigError: There is none.
    """
    path = out / PLAN
    if not path.is_file():
        raise ConfigError(f"there is no {path}", hint="plan it first: biovfm sweep GRID.yaml --out OUT --plan")
    hint = "remove it, and plan the sweep again"
    document = read_json_object(path, error=ConfigError, hint=hint)
    try:
        runs = tuple(PlannedRun(**run) for run in document["runs"])
        return Plan(out=out, grid=parse(Grid, document["grid"], where=str(path)), runs=runs, dataset=dataset)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged: {type(error).__name__} {error}", hint=hint) from error


def _pin_lock(grid: Grid, out: Path, mix: Modality, fraction: float, *, dataset: str) -> tuple[Path, Lock]:
    from shards.dataset.dataset import Dataset
    from shards.dataset.pins import record_pin
    from shards.subset.lock import Lock, Selection, create

    selection = Selection(
        modality=() if mix == "all" else tuple(mix),
        fraction=None if fraction == 1 else fraction,
        seed=grid.subset_seed,
    )
    asked = json.dumps([grid.dataset, grid.index_version, selection.model_dump(mode="json")])
    path = out / "locks" / f"{_mix_slug(mix)}-{fraction:g}-{_digest(asked)}.lock.yaml"
    if path.is_file():
        return path, Lock.read(path)
    opened = Dataset.open(dataset)
    lock = create(opened, selection, version=grid.index_version or _pinned_version(out))
    lock.write(path)
    record_pin(opened, lock.index_version, digest=lock.digest)
    return path, lock


def _pinned_version(out: Path) -> int | None:
    """The index version of the locks that are there already, so that all runs see one version."""
    from shards.subset.lock import Lock

    versions = {Lock.read(path).index_version for path in (out / "locks").glob("*.lock.yaml")}
    return max(versions, default=None)


def _resolve(grid: Grid, recipe: str, model: str | None, seed: int) -> Recipe:
    from train.recipe_files import load_recipe

    return load_recipe(recipe, {**grid.set, **({"model.size": model} if model else {}), "seed": seed})


def _plan_run(
    grid: Grid, out: Path, resolved: Recipe, lock: Lock, lock_path: Path, *, recipe: str, mix: Modality, fraction: float
) -> PlannedRun:
    text = resolved.to_yaml()
    probed = json.dumps({**asdict(grid.probe), "size": grid.probe.size_px()}, separators=(",", ":"))
    digest = _digest("\n".join([text, lock.digest, probed]))
    parts = [resolved.name, resolved.model.size, _mix_slug(mix), f"{fraction:g}", f"s{resolved.seed}", digest]
    name = "-".join(parts)
    recipe_path = out / "recipes" / f"{name}.yaml"
    if not recipe_path.is_file():
        write_text(recipe_path, text)
    total, encoder = count_weights(resolved)
    return PlannedRun(
        id=name,
        recipe=recipe,
        algorithm=resolved.method.name,
        model=resolved.model.size,
        fraction=fraction,
        modality="all" if mix == "all" else "+".join(mix),
        seed=resolved.seed,
        lock=str(lock_path.relative_to(out)),
        lock_digest=lock.digest,
        num_images=lock.num_samples,
        recipe_file=str(recipe_path.relative_to(out)),
        steps=resolved.in_steps(lock.num_samples).run.steps,
        params_total=total,
        params_encoder=encoder,
    )


def count_weights(recipe: Recipe) -> tuple[int, int]:
    """Trained weights of the whole network and of the encoder, without making them."""
    import torch

    from train.methods import build_method

    with torch.device("meta"):
        method = build_method(recipe)
    total = sum(weight.numel() for weight in method.network.parameters() if weight.requires_grad)
    return total, sum(weight.numel() for weight in method.export_backbone().parameters())


def _mix_slug(mix: Modality) -> str:
    return "all" if mix == "all" else "_".join(tag.lower() for tag in mix)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def rows_of(plan: Plan) -> Iterator[dict[str, Any]]:
    """One row for each finished run and task, as `biovfm scaling` reads them.

    Raises:
        ConfigError: The result of a run is damaged.
    """
    hint = "remove it, and run the sweep again"
    for run in plan.runs:
        if not plan.is_finished(run):
            continue
        path = plan.folder(run) / RESULT
        document = read_json_object(path, error=ConfigError, hint=hint)
        try:
            yield from list(_rows_of_run(run, document))
        except (KeyError, TypeError) as error:
            raise ConfigError(f"{path} is damaged: {type(error).__name__} {error}", hint=hint) from error


def _rows_of_run(run: PlannedRun, document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for result in document["results"]:
        auc, acc = result["metrics"]["auc"], result["metrics"]["acc"]
        if auc is None:  # a test split without one of the classes has none
            continue
        bounds = result.get("auc_bounds") or auc
        yield {
            "run": run.id,
            "task": result["task"],
            "algorithm": run.algorithm,
            "recipe": run.recipe,
            "model": run.model,
            "params_total_m": run.params_total / 1e6,
            "params_encoder_m": run.params_encoder / 1e6,
            "num_images": run.num_images,
            "data_fraction": run.fraction,
            "modality": run.modality,
            "seed": run.seed,
            "auc": auc["value"],
            "auc_lower": bounds["lower"],
            "auc_upper": bounds["upper"],
            "acc": acc["value"],
            "steps": run.steps,
            "pretrain_seconds": document["pretrain_seconds"],
            "lock_digest": run.lock_digest,
            "weights": result["provenance"]["weights"],
        }
