"""Does pretraining learn? A recipe on real images, then linear probes against the same network untrained.

    python -m infra.bench.learns --recipe tiny --data LOCK --medmnist FOLDER --out runs/learns [--set run.steps=1500]

Prints one JSON object: how long pretraining took, and for each readout (the default is `auto`, see
`eval.encoders.encoder.AUTO_POOLING`) the probe's test AUC of the trained network, those of the same network untrained
(one a seed), and the difference of the means; the validation split's difference stands beside it, for comparing recipes
without looking at the test split. Untrained is the network as the recipe begins with it: MAE's starting point (Xavier,
sine and cosine positions) is another one than timm's. The same command goes on after SIGTERM; minutes are those of all
attempts.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any, Literal

import yaml

from eval.encoders.encoder import POOLINGS, Pooling, load_backbone
from eval.medmnist.data import Task, load_task, task_names
from eval.probes.linear import probe
from eval.probes.results import ProbeResult
from train.run import Recipe, load_recipe, pretrain
from train.run_export import export_start


def main() -> None:
    """Run the experiment and print its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--data", required=True)
    parser.add_argument("--medmnist", help="folder of the MedMNIST archives")
    parser.add_argument("--task", default="breast")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    overrides = {key: yaml.safe_load(value) for key, value in (item.split("=", 1) for item in arguments.settings)}
    recipe = load_recipe(arguments.recipe, overrides)
    result = pretrain(recipe, data=arguments.data, out=arguments.out)
    report: dict[str, Any] = {"recipe": recipe.name, "steps": result.steps, "minutes": minutes(arguments.out)}
    if result.export is None:
        print(json.dumps({**report, "finished": False}))
        return
    task = load_task(task_names(arguments.task)[0], root=arguments.medmnist)
    own = load_backbone(str(result.export)).pooling()
    readouts = {pooling: compare(result.export, recipe, task, pooling, seeds=arguments.seeds) for pooling in POOLINGS}
    print(json.dumps({**report, "task": task.name, "auto": own, "difference": readouts[own]["difference"], **readouts}))


def minutes(run: Path) -> float:
    """Of all steps, waiting included."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    seconds: list[float] = [json.loads(line)["seconds"] for line in lines]
    return round(sum(seconds) / 60, 1)


def compare(export: Path, recipe: Recipe, task: Task, pooling: Pooling, *, seeds: int) -> dict[str, Any]:
    """AUCs of the trained network and of untrained ones by one readout."""
    trained = probe(str(export), [task], pooling=pooling, seeds=range(seeds))
    untrained = []
    for seed in range(seeds):
        start = export.parent / f"start-{seed}"
        if not (start / "config.json").is_file():
            export_start(recipe.model_copy(update={"seed": seed}), start)
        untrained += probe(str(start), [task], pooling=pooling, seeds=[seed])
    return {
        "trained": aucs(trained, "test"),
        "untrained": aucs(untrained, "test"),
        "difference": difference(trained, untrained, "test"),
        "validation_difference": difference(trained, untrained, "val"),
    }


def difference(trained: list[ProbeResult], untrained: list[ProbeResult], split: Literal["test", "val"]) -> float:
    """Of the mean AUCs."""
    return round(statistics.mean(aucs(trained, split)) - statistics.mean(aucs(untrained, split)), 4)


def aucs(results: list[ProbeResult], split: Literal["test", "val"]) -> list[float]:
    """One a seed."""
    values = [item.metrics["auc"].value if split == "test" else item.val_metrics["auc"] for item in results]
    return [round(value, 4) for value in values]


if __name__ == "__main__":
    main()
