"""The solver against scikit-learn's, for all kinds of tasks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from eval.medmnist.tasks import BINARY, MULTI_CLASS, MULTI_LABEL
from eval.probes.logistic import LogisticPath, Scaler, log_loss

pytestmark = pytest.mark.torch


def made_up(rows: int, classes: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    mixing = rng.normal(size=(12, 12)) * np.logspace(0, -2, 12)
    features = (rng.normal(size=(rows, 12)) + rng.normal(size=(classes, 12))[labels]) @ mixing + 5
    return features.astype(np.float32), labels


def sklearns(features: np.ndarray, labels: np.ndarray, inverse_penalty: float, scaler: Scaler) -> LogisticRegression:
    standardised = (features - scaler.mean.numpy()) / scaler.std.numpy()
    return LogisticRegression(C=inverse_penalty, max_iter=20_000, tol=1e-9).fit(standardised, labels)


@pytest.mark.parametrize(("classes", "kind"), [(2, BINARY), (4, MULTI_CLASS)])
def test_probabilities_are_sklearns(classes: int, kind: str) -> None:
    features, labels = made_up(300, classes)
    path = LogisticPath(features, labels[:, None], kind, num_classes=classes)
    for fit in path.fit((1e-3, 1e-1, 10.0)):
        theirs = sklearns(features, labels, fit.inverse_penalty, path.scaler)
        standardised = (features - path.scaler.mean.numpy()) / path.scaler.std.numpy()
        assert np.abs(path.predict(fit, features) - theirs.predict_proba(standardised)).max() < 5e-3


def test_fewer_images_than_features() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 300)).astype(np.float32) + 0.3 * (np.arange(60) % 2)[:, None].astype(np.float32)
    labels = np.arange(60) % 2
    path = LogisticPath(features, labels[:, None], BINARY, num_classes=2)
    other = rng.normal(size=(40, 300)).astype(np.float32)
    for fit in path.fit((1e-4, 1e-2)):
        theirs = sklearns(features, labels, fit.inverse_penalty, path.scaler)
        standardised = (other - path.scaler.mean.numpy()) / path.scaler.std.numpy()
        assert np.abs(path.predict(fit, other) - theirs.predict_proba(standardised)).max() < 5e-3


def test_each_label_is_a_regression_of_its_own() -> None:
    features, labels = made_up(300, 4)
    many = np.stack([labels % 2, labels // 2], axis=1)
    path = LogisticPath(features, many, MULTI_LABEL, num_classes=2)
    (fit,) = path.fit((0.1,))
    scores = path.predict(fit, features, batch_size=97)
    for column in range(2):
        theirs = sklearns(features, many[:, column], 0.1, path.scaler)
        standardised = (features - path.scaler.mean.numpy()) / path.scaler.std.numpy()
        assert np.abs(scores[:, column] - theirs.predict_proba(standardised)[:, 1]).max() < 5e-3


def test_few_passes_even_where_features_are_ill_conditioned() -> None:
    rng = np.random.default_rng(0)
    features = (
        rng.normal(size=(2000, 40)) @ np.linalg.qr(rng.normal(size=(40, 40)))[0] * np.logspace(0, -4, 40)
    ).astype(np.float32)
    labels = (features @ rng.normal(size=40) + 0.1 * rng.normal(size=2000) > 0).astype(int)
    fits = LogisticPath(features, labels[:, None], BINARY, num_classes=2).fit((1e-3, 1e-2, 1e-1))
    assert max(fit.num_passes for fit in fits) < 40


def test_the_input_is_left_alone_and_constant_features_do_no_harm() -> None:
    features, labels = made_up(120, 2)
    features = np.concatenate([features, np.full((120, 1), 3.0, dtype=np.float32)], axis=1)
    before = features.copy()
    path = LogisticPath(features, labels[:, None], BINARY, num_classes=2)
    (fit,) = path.fit((1.0,))
    assert np.array_equal(features, before)
    assert path.scaler.std[-1] == 1
    assert np.isfinite(path.predict(fit, features)).all()
    assert np.allclose(path.predict(fit, features).sum(axis=1), 1)


def test_a_class_that_never_occurs_gets_little() -> None:
    features, labels = made_up(200, 3)
    path = LogisticPath(features, labels[:, None], MULTI_CLASS, num_classes=5)
    (fit,) = path.fit((0.1,))
    scores = path.predict(fit, features)
    assert scores.shape == (200, 5)
    assert scores[:, 3:].max() < 0.2


def test_scaler_in_double_precision() -> None:
    rows = torch.full((1000, 1), 1000.0) + torch.linspace(-1, 1, 1000)[:, None]
    scaler = Scaler.of(rows)
    assert scaler.std.item() == pytest.approx(rows.double().std(correction=0).item(), rel=1e-4)


def test_log_loss_is_sklearns() -> None:
    from sklearn.metrics import log_loss as theirs

    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(3), 50)
    labels = rng.integers(0, 3, (50, 1))
    assert log_loss(labels, scores, MULTI_CLASS) == pytest.approx(theirs(labels[:, 0], scores, labels=[0, 1, 2]))
    many = rng.integers(0, 2, (50, 3))
    expected = np.mean([theirs(many[:, k], scores[:, k], labels=[0, 1]) for k in range(3)])
    assert log_loss(many, scores, MULTI_LABEL) == pytest.approx(expected)
