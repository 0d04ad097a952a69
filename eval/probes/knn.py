"""k nearest neighbours of frozen features: no training, so a fair first look at what a backbone has learnt.

Features are L2-normalised; the similarities of the nearest `max(k)` neighbours divided by the temperature go through
a softmax, and the weights of the first k of them are summed by class (DINOv2's evaluation). In multi-label tasks a
label's score is the weight of its neighbours divided by the weight of all k. k is chosen on the validation split.

Cost: O(N_train · N_test · D) in blocks, O(block · N_train) memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Final, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from eval.encoders.encoder import Backbone
from eval.medmnist.data import Task
from eval.medmnist.tasks import MULTI_LABEL, Kind
from eval.probes.features import Extraction, Features, FeatureSet, Report
from eval.probes.linear import Prediction, run
from eval.probes.results import ProbeResult
from eval.scoring.bootstrap import NUM_RESAMPLES
from eval.scoring.metrics import Floats, Labels, evaluate
from shards.errors import ConfigError

KS: Final = (5, 10, 20, 50, 100, 200)
TEMPERATURE: Final = 0.07
_BLOCK_BYTES: Final = 1 << 28


def knn_scores(
    train: Features,
    labels: Labels,
    queries: Features,
    *,
    kind: Kind,
    num_classes: int,
    ks: Sequence[int] = KS,
    temperature: float = TEMPERATURE,
    device: str = "cpu",
) -> dict[int, Floats]:
    """Scores of the queries for several k at once.

    Args:
        train: (N, D) float32.
        labels: (N, 1) class numbers, or (N, L) zeros and ones.
        queries: (M, D) float32.
        kind: One of MedMNIST's four kinds.
        num_classes: K.
        ks: Numbers of neighbours; those above N count as N.
        temperature: Of the softmax.
        device: Where the products run.

    Returns:
        k → (M, K) float64; the rows of k < max(ks) sum to less than 1 in single-label tasks.
    """
    bank = nn.functional.normalize(torch.from_numpy(np.array(train)).to(device), dim=1)
    votes = _votes(labels, kind, num_classes).to(device)
    deepest = min(max(ks), len(bank))
    block = max(1, _BLOCK_BYTES // (4 * len(bank)))
    parts: dict[int, list[Floats]] = {k: [] for k in ks}
    for start in range(0, len(queries), block):
        rows = torch.from_numpy(np.array(queries[start : start + block])).to(device)
        similar, nearest = (nn.functional.normalize(rows, dim=1) @ bank.T).topk(deepest, dim=1)
        weights = torch.softmax(similar.double() / temperature, dim=1)
        for k in ks:
            used = weights[:, : min(k, deepest)]
            scores = torch.einsum("mk,mkc->mc", used, votes[nearest[:, : used.shape[1]]])
            parts[k].append((scores / used.sum(dim=1, keepdim=True) if kind == MULTI_LABEL else scores).cpu().numpy())
    return {k: np.concatenate(found) for k, found in parts.items()}


def _votes(labels: Labels, kind: Kind, num_classes: int) -> Tensor:
    """(N, K) float64: which classes or labels each neighbour votes for."""
    tensor = torch.from_numpy(np.asarray(labels, dtype=np.int64).reshape(len(labels), -1))
    return tensor.double() if kind == MULTI_LABEL else nn.functional.one_hot(tensor[:, 0], num_classes).double()


def predict_knn(
    features: FeatureSet,
    task: Task,
    *,
    ks: Sequence[int] = KS,
    temperature: float = TEMPERATURE,
    device: str = "cpu",
) -> Prediction:
    """Classify validation and test split with the k of the highest validation AUC, the one that is reported.

    Args:
        features: Of the three splits.
        task: Their labels.
        ks: Candidates.
        temperature: Of the softmax.
        device: Where the products run.
    """
    started = time.perf_counter()

    def scores(queries: Features) -> dict[int, Floats]:
        votes = knn_scores(
            features.train,
            task.train.labels,
            queries,
            kind=task.kind,
            num_classes=task.num_classes,
            ks=ks,
            temperature=temperature,
            device=device,
        )
        return {k: _as_shares(found, task.kind) for k, found in votes.items()}

    val = scores(features.val)
    best = max(ks, key=lambda k: (_auc(task, val[k]), -k))
    return Prediction(
        val=val[best],
        test=scores(features.test)[best],
        settings={"k": best, "temperature": temperature, "ks": list(ks)},
        seconds=time.perf_counter() - started,
    )


def knn(
    backbone: Backbone | str,
    tasks: Sequence[Task],
    *,
    ks: Sequence[int] = KS,
    temperature: float = TEMPERATURE,
    num_resamples: int = NUM_RESAMPLES,
    report: Report | None = None,
    **extraction: Unpack[Extraction],
) -> list[ProbeResult]:
    """Classify tasks by the nearest neighbours of a frozen backbone's features.

    Args:
        backbone: Loaded, or what `eval.encoders.encoder.load_backbone` takes.
        tasks: From `eval.medmnist.data.load_task`.
        ks: Candidates; the best on the validation split is kept.
        temperature: Of the softmax.
        num_resamples: Of the bootstrap intervals.
        report: Called with (images done, images in all) while features are computed.
        extraction: As of `eval.probes.features.extract`.

    Returns:
        One result for each task.

    Raises:
        ConfigError: A number of neighbours is not positive.
    """
    if not ks or min(ks) < 1:
        raise ConfigError(f"k is {list(ks)}", hint="give one or more positive numbers")

    def predict(features: FeatureSet, task: Task, _seed: int) -> Prediction:
        device = extraction.get("device", "cpu")
        return predict_knn(features, task, ks=ks, temperature=temperature, device=device)

    options = {"ks": list(ks), "temperature": temperature}
    return run(
        predict,
        backbone,
        tasks,
        protocol="knn",
        options=options,
        num_resamples=num_resamples,
        report=report,
        **extraction,
    )


def _auc(task: Task, scores: Floats) -> float:
    """On the validation split; lowest of all where it has one class only."""
    auc = evaluate(task.val.labels, scores, task.kind)["auc"]
    return auc if math.isfinite(auc) else -math.inf


def _as_shares(scores_MK: Floats, kind: Kind) -> Floats:
    """Rows that sum to 1, so that 0.5 means half of the weight; single-label tasks only."""
    shares: Floats = scores_MK if kind == MULTI_LABEL else scores_MK / scores_MK.sum(axis=1, keepdims=True)
    return shares
