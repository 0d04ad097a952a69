"""How long does the probe stage take, and what does the paper's protocol cost beside it?

    python -m infra.bench.probe tasks                    the twelve tasks from cached features of ViT-S's width
    python -m infra.bench.probe paper --data FOLDER CHECKPOINT    one real task by both protocols

The features of `tasks` are SYNTHETIC (no image is behind them): the real counts, class numbers and label kinds, 384
columns whose spectrum falls like a trained ViT's (k⁻¹), classes as shifts. They are written to disk first and read
back memory-mapped, as cached features are. Timed: penalty path, validation, test, thresholds, 1000 resamples.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from eval.encoders.encoder import Backbone, PixelEncoder, load_backbone
from eval.medmnist.data import SPLITS, Split, Task, load_task
from eval.medmnist.tasks import MULTI_LABEL, TASKS, TaskInfo
from eval.probes.features import FeatureSet
from eval.probes.linear import fit_linear, probe, score
from eval.probes.paper import probe_paper

DIMENSION = 384


def main() -> None:
    """Run one of the two measurements and print a JSON line for each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    tasks = commands.add_parser("tasks")
    tasks.add_argument("names", nargs="*", help="all twelve without names")
    tasks.add_argument("--device", default="cpu")
    paper = commands.add_parser("paper")
    paper.add_argument("checkpoint")
    paper.add_argument("--data", required=True)
    paper.add_argument("--task", default="breastmnist")
    paper.add_argument("--image-size", type=int)
    paper.add_argument("--epochs", type=int, default=100)
    paper.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.what == "tasks":
        time_tasks(arguments.names or list(TASKS), arguments.device)
    else:
        compare_protocols(arguments)


def time_tasks(names: list[str], device: str) -> None:
    """The probe stage of each task from features on disk."""
    total = 0.0
    backbone = Backbone(spec="synthetic features", model=PixelEncoder(), digest="synthetic", image_size_px=28)
    for name in names:
        with TemporaryDirectory() as folder:
            task, features = synthetic(TASKS[name], Path(folder))
            started = time.perf_counter()
            prediction = fit_linear(features.train, task.train.labels, features, task, device=device)
            result = score(
                prediction, task, backbone, protocol="linear", seed=0, options={}, scores=Path(folder) / "scores"
            )
            seconds = time.perf_counter() - started
        total += seconds
        report(
            task=f"{name} (synthetic features)",
            train=len(task.train),
            seconds=round(seconds, 1),
            fit_seconds=round(prediction.seconds, 1),
            passes=prediction.settings["passes"],
            C=prediction.settings["C"],
            auc=round(result.metrics["auc"].value, 4),
            peak_rss_gb=peak_rss_gb(),
        )
    report(task="all of them", minutes=round(total / 60, 2), peak_rss_gb=peak_rss_gb())


def synthetic(info: TaskInfo, folder: Path) -> tuple[Task, FeatureSet]:
    """A task of the real counts with made-up features, written to `folder` and mapped from there."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(DIMENSION, DIMENSION)))[0]
    scales = np.arange(1, DIMENSION + 1) ** -0.5
    shifts = rng.normal(size=(info.num_classes, DIMENSION)) * scales * 0.07
    splits, arrays = {}, {}
    for name, rows in zip(SPLITS, (info.num_train, info.num_val, info.num_test), strict=True):
        if info.kind == MULTI_LABEL:
            labels = (rng.random((rows, info.num_classes)) < np.linspace(0.002, 0.18, info.num_classes)).astype(
                np.int64
            )
            means = labels @ shifts
        else:
            labels = rng.integers(0, info.num_classes, (rows, 1))
            means = shifts[labels[:, 0]]
        path = folder / f"{name}.npy"
        out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, DIMENSION))
        for start in range(0, rows, 16384):
            part = slice(start, start + 16384)
            noise = rng.normal(size=means[part].shape) * scales
            out[part] = np.tanh((noise + means[part]) @ rotation)
        del out
        arrays[name] = np.load(path, mmap_mode="r")
        splits[name] = Split(images=np.zeros((rows, 1, 1), dtype=np.uint8), labels=labels)
    task = Task(
        name=info.name,
        kind=info.kind,
        size_px=28,
        class_names=info.class_names,
        origin="synthetic",
        digest="synthetic",
        **splits,
    )
    return task, FeatureSet(key="synthetic", **arrays)


def compare_protocols(arguments: argparse.Namespace) -> None:
    """One real task: our probe with nothing cached against the paper's protocol."""
    task = load_task(arguments.task, root=arguments.data)
    backbone = load_backbone(arguments.checkpoint, device=arguments.device)
    size, device = arguments.image_size, arguments.device
    with TemporaryDirectory() as folder:
        cache = Path(folder)
        started = time.perf_counter()
        ours = probe(backbone, [task], cache=cache, image_size_px=size, device=device)[0]
        our_seconds = time.perf_counter() - started
        started = time.perf_counter()
        theirs = probe_paper(
            backbone, [task], cache=cache, image_size_px=size, device=device, num_epochs=arguments.epochs
        )[0]
        their_seconds = time.perf_counter() - started
    for name, result, seconds in (("linear", ours, our_seconds), ("paper", theirs, their_seconds)):
        auc = result.metrics["auc"]
        report(
            task=task.name,
            checkpoint=arguments.checkpoint,
            protocol=name,
            seconds=round(seconds, 1),
            auc=round(auc.value, 4),
            interval=[round(auc.lower, 4), round(auc.upper, 4)],
            settings=result.settings,
        )
    report(
        times_faster=round(their_seconds / our_seconds, 1),
        auc_gained=round(ours.metrics["auc"].value - theirs.metrics["auc"].value, 4),
    )


def report(**facts: object) -> None:
    """One JSON line."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def peak_rss_gb() -> float:
    """Highest resident memory of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


if __name__ == "__main__":
    main()
