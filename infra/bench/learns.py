"""Does pretraining learn? A recipe on real images, then linear probes against the same network untrained.

    python -m infra.bench.learns --recipe tiny --data LOCK --medmnist FOLDER --out runs/learns [--set run.steps=450]

Prints one JSON object: the pretraining time, the probe's test AUC of the trained network, those of the same network at
random initialisation (one a seed), and the difference of the means.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import yaml

from eval.medmnist import Task, load_task, task_names
from eval.probe import probe
from train.pretrain import load_recipe, pretrain


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
    began = time.perf_counter()
    result = pretrain(recipe, data=arguments.data, out=arguments.out)
    minutes = (time.perf_counter() - began) / 60
    task = load_task(task_names(arguments.task)[0], root=arguments.medmnist)
    trained = aucs(str(result.export), task, seeds=arguments.seeds)
    untrained = aucs(f"random:{result.export}", task, seeds=arguments.seeds)
    report: dict[str, Any] = {
        "recipe": recipe.name,
        "steps": result.steps,
        "minutes": round(minutes, 1),
        "task": task.name,
        "trained": trained,
        "untrained": untrained,
        "difference": round(statistics.mean(trained) - statistics.mean(untrained), 4),
    }
    print(json.dumps(report))


def aucs(checkpoint: str, task: Task, *, seeds: int) -> list[float]:
    """Test AUC of the linear probe, one a seed."""
    return [round(item.metrics["auc"].value, 4) for item in probe(checkpoint, [task], seeds=range(seeds))]


if __name__ == "__main__":
    main()
