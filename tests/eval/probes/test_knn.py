"""k is chosen by the AUC that is reported."""

from __future__ import annotations

import numpy as np
import pytest

from eval.medmnist.data import Split, Task
from eval.medmnist.tasks import BINARY, MULTI_CLASS, Kind
from eval.probes.features import FeatureSet
from eval.probes.knn import KS, knn_scores, predict_knn
from eval.scoring.metrics import evaluate

pytestmark = pytest.mark.torch


def problem(seed: int, kind: Kind, num_classes: int, share: float) -> tuple[FeatureSet, Task]:
    """Overlapping clouds, the first class with a share of its own."""
    rng = np.random.default_rng(seed)
    weights = np.array([share, *[(1 - share) / (num_classes - 1)] * (num_classes - 1)])
    features, splits = {}, {}
    centres = rng.normal(size=(num_classes, 8))
    for name, count in (("train", 400), ("val", 200), ("test", 200)):
        labels = rng.choice(num_classes, count, p=weights)
        features[name] = (rng.normal(size=(count, 8)) + 0.4 * centres[labels] + 1).astype(np.float32)
        splits[name] = Split(images=np.zeros((count, 1, 1), np.uint8), labels=labels[:, None].astype(np.int64))
    names = tuple(str(number) for number in range(num_classes))
    task = Task(name="own", kind=kind, size_px=1, class_names=names, origin="", digest="", **splits)
    return FeatureSet(key="own", **features), task


@pytest.mark.parametrize(("kind", "num_classes"), [(BINARY, 2), (MULTI_CLASS, 3)])
def test_no_k_that_was_tried_has_a_higher_reported_auc(kind: Kind, num_classes: int) -> None:
    lost = 0
    for seed in range(6):
        features, task = problem(seed, kind, num_classes, 0.8)
        found = predict_knn(features, task)
        votes = knn_scores(features.train, task.train.labels, features.val, kind=kind, num_classes=num_classes)
        shares = {k: scores / scores.sum(axis=1, keepdims=True) for k, scores in votes.items()}
        auc = {k: evaluate(task.val.labels, shares[k], kind)["auc"] for k in KS}
        assert auc[found.settings["k"]] == max(auc.values())
        assert evaluate(task.val.labels, found.val, kind)["auc"] == max(auc.values())
        raw = max(KS, key=lambda k: evaluate(task.val.labels, votes[k], kind)["auc"])
        lost += auc[raw] < max(auc.values())
    assert lost, "the sums of votes rank these ks as their shares do: the test shows nothing"


def test_a_validation_split_of_one_class_takes_the_smallest_k() -> None:
    features, task = problem(0, BINARY, 2, 0.8)
    task.val.labels[:] = 0
    assert predict_knn(features, task).settings["k"] == min(KS)
