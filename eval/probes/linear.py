"""Linear probe and k-NN of frozen features: one result per task, with everything a reader needs to reproduce it.

The linear probe standardises the features, fits L2-penalised logistic regression on the training split for ten
penalties, and keeps the one with the smallest log-loss on the validation split (never the test split; no refit on
train + val, so that numbers compare with MedMNIST's own tables). The objective is convex: a seed changes nothing but
random weights and few-shot draws, so one seed is run unless one of these is asked for.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from eval.encoders.encoder import Backbone, load_backbone
from eval.medmnist.data import Split, Task
from eval.probes.caveats import caveats, check_classes
from eval.probes.features import Extraction, Features, FeatureSet, Report, extract, feature_cache
from eval.probes.logistic import CS, LogisticPath, log_loss
from eval.probes.results import ProbeResult
from eval.scoring.bootstrap import NUM_RESAMPLES, intervals
from eval.scoring.delong import auc_bounds
from eval.scoring.metrics import Floats, Labels, best_thresholds, evaluate


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a classifier says of the validation and test splits.

    Attributes:
        val: (N, K) float64 probabilities.
        test: (N, K) float64 probabilities.
        settings: What was chosen on the validation split (penalty, k, epoch …).
        seconds: To fit and predict.
    """

    val: Floats
    test: Floats
    settings: dict[str, Any]
    seconds: float


def probe(
    backbone: Backbone | str,
    tasks: Sequence[Task],
    *,
    seeds: Sequence[int] = (0,),
    shots: int | None = None,
    inverse_penalties: Sequence[float] = CS,
    num_resamples: int = NUM_RESAMPLES,
    report: Report | None = None,
    **extraction: Unpack[Extraction],
) -> list[ProbeResult]:
    """Linear probes of a frozen backbone.

    Args:
        backbone: Loaded, or what `eval.encoders.encoder.load_backbone` takes.
        tasks: From `eval.medmnist.data.load_task`.
        seeds: One result each; only random weights and `shots` depend on it.
        shots: Fit on that many training images per class; None takes all.
        inverse_penalties: scikit-learn's C; the best on the validation split is kept.
        num_resamples: Of the bootstrap intervals.
        report: Called with (images done, images in all) while features are computed.
        extraction: As of `eval.probes.features.extract`.

    Returns:
        One result for each task and seed, tasks outermost.
    """

    def predict(features: FeatureSet, task: Task, seed: int) -> Prediction:
        train, labels = few_shot(features.train, task.train, shots, seed)
        device = extraction.get("device", "cpu")
        return fit_linear(train, labels, features, task, inverse_penalties=inverse_penalties, device=device)

    options = {"shots": shots}
    return run(
        predict,
        backbone,
        tasks,
        protocol="linear",
        options=options,
        seeds=seeds,
        num_resamples=num_resamples,
        report=report,
        **extraction,
    )


def run(
    predict: Callable[[FeatureSet, Task, int], Prediction],
    backbone: Backbone | str,
    tasks: Sequence[Task],
    *,
    protocol: str,
    options: dict[str, Any],
    seeds: Sequence[int] = (0,),
    num_resamples: int = NUM_RESAMPLES,
    report: Report | None = None,
    **extraction: Unpack[Extraction],
) -> list[ProbeResult]:
    """Extract features and let `predict` classify them, for each task and seed."""
    results = []
    cache, image_size_px = extraction.get("cache"), extraction.get("image_size_px")
    for task in tasks:
        check_classes(task)
        for seed, loaded in _seeded(backbone, seeds, extraction.get("device", "cpu"), task):
            features = extract(loaded, task, report=report, **extraction)
            prediction = predict(features, task, seed)
            found = {
                "features": features.key,
                "pooling": loaded.pooling(extraction.get("pooling", "auto")),
                "dimension": int(features.train.shape[1]),
                "network_image_size_px": image_size_px or loaded.image_size_px,
            }
            results.append(
                score(
                    prediction,
                    task,
                    loaded,
                    protocol=protocol,
                    seed=seed,
                    options=options | found,
                    scores=(cache or feature_cache()) / "scores",
                    num_resamples=num_resamples,
                )
            )
    return results


def _seeded(backbone: Backbone | str, seeds: Sequence[int], device: str, task: Task) -> Iterator[tuple[int, Backbone]]:
    """Each seed with its network; only random weights are loaded more than once."""
    loaded = backbone if isinstance(backbone, Backbone) else None
    for seed in seeds:
        if loaded is None or (isinstance(backbone, str) and backbone.startswith("random:")):
            loaded = load_backbone(str(backbone), device=device, seed=seed, image_size_px=task.size_px)
        yield seed, loaded


def few_shot(features: Features, split: Split, shots: int | None, seed: int) -> tuple[Features, Labels]:
    """All training images, or `shots` a class (or label) drawn by `seed`."""
    if shots is None:
        return features, split.labels
    rng = np.random.default_rng(seed)
    single = split.labels.shape[1] == 1
    groups = (
        [np.flatnonzero(split.labels[:, 0] == value) for value in np.unique(split.labels)]
        if single
        else [np.flatnonzero(column) for column in split.labels.T]
    )
    rows = np.unique(np.concatenate([rng.permutation(group)[:shots] for group in groups]))
    return np.asarray(features[rows]), split.labels[rows]


def fit_linear(
    train: npt.NDArray[np.float32],
    labels: Labels,
    features: FeatureSet,
    task: Task,
    *,
    inverse_penalties: Sequence[float] = CS,
    device: str = "cpu",
) -> Prediction:
    """Logistic regression with the penalty of the smallest validation log-loss.

    Args:
        train: (N, D) features to fit on.
        labels: (N, 1) or (N, L).
        features: Of the validation and test splits.
        task: Labels of the validation split.
        inverse_penalties: scikit-learn's C.
        device: Where the products run.
    """
    started = time.perf_counter()
    path = LogisticPath(train, labels, task.kind, num_classes=task.num_classes, device=device)
    candidates = []
    for fit in path.fit(inverse_penalties):
        val = path.predict(fit, features.val)
        candidates.append((log_loss(task.val.labels, val, task.kind), fit, val))
    loss, best, val = min(candidates, key=lambda candidate: candidate[0])
    test = path.predict(best, features.test)
    return Prediction(
        val=val,
        test=test,
        settings={
            "C": best.inverse_penalty,
            "C_at_edge": best.inverse_penalty in (min(inverse_penalties), max(inverse_penalties)),
            "val_log_loss": loss,
            "passes": sum(fit.num_passes for _, fit, _ in candidates),
            "fitted_on": len(train),
        },
        seconds=time.perf_counter() - started,
    )


def score(
    prediction: Prediction,
    task: Task,
    backbone: Backbone,
    *,
    protocol: str,
    seed: int,
    options: dict[str, Any],
    scores: Path,
    num_resamples: int = NUM_RESAMPLES,
) -> ProbeResult:
    """Metrics with intervals; labels and scores are kept for paired comparisons."""
    thresholds = best_thresholds(task.val.labels, prediction.val, task.kind)
    provenance = {
        "weights": backbone.digest,
        "num_params": backbone.num_params,
        "images": task.digest,
        "origin": task.origin,
        "image_size_px": task.size_px,
        "normalisation": {"mean": list(backbone.mean), "std": list(backbone.std)},
        "num_resamples": num_resamples,
        "trainer": dict(backbone.metadata),
        "versions": versions(),
        **options,
    }
    groups = task.test.groups
    measured = intervals(
        task.test.labels,
        prediction.test,
        task.kind,
        threshold=thresholds,
        num_resamples=num_resamples,
        groups=groups,
    )
    bounds = auc_bounds(
        task.test.labels, prediction.test, task.kind, bootstrap=measured["auc"], grouped=groups is not None
    )
    return ProbeResult(
        task=task.name,
        kind=task.kind,
        protocol=protocol,
        backbone=backbone.spec,
        seed=seed,
        metrics=measured,
        val_metrics=evaluate(task.val.labels, prediction.val, task.kind, threshold=thresholds),
        thresholds=[float(value) for value in thresholds],
        settings=prediction.settings,
        num_train=int(prediction.settings.get("fitted_on", len(task.train))),
        num_val=len(task.val),
        num_test=len(task.test),
        seconds=round(prediction.seconds, 3),
        provenance=provenance,
        scores_path=str(_keep_scores(prediction, task, scores, {"protocol": protocol, "seed": seed, **provenance})),
        auc_bounds=bounds,
        notes=caveats(task, prediction.settings, protocol=protocol, network_px=provenance["network_image_size_px"]),
    )


def _keep_scores(prediction: Prediction, task: Task, folder: Path, facts: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:24]
    path = folder / f"{task.name}-{name}.npz"
    partial = folder / f"{path.stem}.partial.npz"
    if task.test.groups is None:
        np.savez_compressed(partial, labels=task.test.labels, scores=prediction.test)
    else:
        np.savez_compressed(partial, labels=task.test.labels, scores=prediction.test, groups=task.test.groups)
    partial.replace(path)
    return path


def versions() -> dict[str, str]:
    """Versions of everything that the numbers may depend on."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("biovfm", "numpy", "scipy", "scikit-learn", "timm", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
