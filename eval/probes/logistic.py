"""L2-penalised logistic regression for anything from 500 to 200,000 images on two cores, or on a GPU.

The objective is scikit-learn's, `C · Σ log-loss + ½‖w‖²` on standardised features with a free intercept: softmax for
multi-class tasks, one sigmoid a label for binary and multi-label ones. L-BFGS runs in coordinates where the Hessian
at zero is nearly the identity (the eigenbasis of the features' covariance, scaled by its eigenvalues plus the
penalty), which takes 10 to 30 passes over the data where the plain coordinates take hundreds. Penalties are visited
from strong to weak, each started from the last solution.

Cost: a pass is two matrix products of N × D × K; memory one float32 copy of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from eval.medmnist.tasks import BINARY, MULTI_LABEL, Kind
from eval.probes.threads import fitting_threads
from eval.scoring.metrics import Floats, Labels

CS: Final = tuple(10.0**exponent for exponent in range(-7, 3))
"""Inverse penalties that are tried, strong to weak."""

_TOLERANCE: Final = 1e-7
_MAX_PASSES: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaler:
    """Mean and standard deviation of each feature on the training split.

    Attributes:
        mean: (D,) float32.
        std: (D,) float32; 1 where a feature is constant.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, features_ND: Tensor) -> Scaler:
        """Measure (N, D) features in float64."""
        mean = features_ND.mean(dim=0, dtype=torch.float64)
        square = torch.stack([column.double().square().mean() for column in features_ND.T])
        std = (square - mean.square()).clamp_min(0).sqrt()
        std[std < 1e-6 * (1 + mean.abs())] = 1.0
        return cls(mean=mean.float(), std=std.float())

    def __call__(self, features_ND: Tensor) -> Tensor:
        """Standardise."""
        return (features_ND - self.mean) / self.std


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One fitted penalty.

    Attributes:
        inverse_penalty: scikit-learn's C.
        weight: (K, D) float32, on standardised features; one row in binary tasks.
        bias: (K,) float32.
        num_passes: Evaluations of the objective.
    """

    inverse_penalty: float
    weight: Tensor
    bias: Tensor
    num_passes: int


class LogisticPath:
    """Fits of one training split for several penalties.

    Args:
        features: (N, D) float32; copied once to `device`.
        labels: (N, 1) class numbers, or (N, L) zeros and ones.
        kind: One of MedMNIST's four kinds.
        num_classes: K.
        device: Where the products run.
    """

    def __init__(
        self, features: npt.NDArray[np.float32], labels: Labels, kind: Kind, *, num_classes: int, device: str = "cpu"
    ) -> None:
        self.kind = kind
        self.device = device
        raw = torch.from_numpy(np.array(features, dtype=np.float32)).to(device)
        self.scaler = Scaler.of(raw)
        self._x, self._span = _in_own_span(raw.sub_(self.scaler.mean).div_(self.scaler.std))
        self._sigmoid = kind in (BINARY, MULTI_LABEL)
        targets = torch.from_numpy(np.asarray(labels, dtype=np.int64).reshape(len(features), -1)).to(device)
        self._y = targets.float() if self._sigmoid else targets[:, 0]
        self._outputs = targets.shape[1] if self._sigmoid else num_classes
        self._basis: tuple[Tensor, Tensor] | None = None

    def fit(self, inverse_penalties: Sequence[float] = CS) -> list[Fit]:
        """Fit every penalty, strong to weak, each from the last one's solution."""
        start = torch.zeros(self._outputs, self._x.shape[1] + 1, dtype=torch.float64, device=self.device)
        fits = []
        for inverse_penalty in sorted(inverse_penalties):
            with fitting_threads(self._x.numel() * self._outputs):
                found, passes = self._minimise(start, inverse_penalty)
            start = found
            fits.append(
                Fit(
                    inverse_penalty=inverse_penalty,
                    weight=self._outer(found[:, :-1]),
                    bias=found[:, -1].float(),
                    num_passes=passes,
                )
            )
        return fits

    def predict(self, fit: Fit, features: npt.NDArray[np.float32], *, batch_size: int = 65536) -> Floats:
        """Probabilities.

        Args:
            fit: One of `self.fit()`.
            features: (N, D) float32.
            batch_size: Rows a product.

        Returns:
            (N, K) float64: of each class, each label, or (1 - p, p) in binary tasks.
        """
        parts = []
        for start in range(0, len(features), batch_size):
            rows = torch.from_numpy(np.array(features[start : start + batch_size])).to(self.device)
            logits = nn.functional.linear(self.scaler(rows), fit.weight, fit.bias).double()
            parts.append(probabilities(logits, self.kind).cpu().numpy())
        return np.concatenate(parts)

    def _outer(self, weight_KR: Tensor) -> Tensor:
        """Weights on the features themselves."""
        return (weight_KR if self._span is None else weight_KR @ self._span.T).float()

    def _eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvectors (D, D) and eigenvalues (D,) of the features' covariance."""
        if self._basis is None:
            values, vectors = torch.linalg.eigh((self._x.T @ self._x / len(self._x)).double())
            self._basis = vectors, values.clamp_min(0)
        return self._basis

    def _minimise(self, start: Tensor, inverse_penalty: float) -> tuple[Tensor, int]:
        from scipy.optimize import minimize

        vectors, values = self._eigen()
        curvature = 0.25 if self._sigmoid else 1 / self._outputs * (1 - 1 / self._outputs)
        penalty = 1 / (inverse_penalty * len(self._x))
        scale = torch.cat([(curvature * values + penalty).sqrt(), torch.tensor([curvature**0.5]).to(values)])

        def from_inner(inner: Tensor) -> Tensor:
            outer = inner / scale
            outer[:, :-1] = outer[:, :-1] @ vectors.T
            return outer

        def to_inner(outer: Tensor) -> Tensor:
            inner = outer.clone()
            inner[:, :-1] = inner[:, :-1] @ vectors
            return inner * scale

        def objective(flat: Floats) -> tuple[float, Floats]:
            outer = from_inner(torch.from_numpy(flat).to(self.device).view_as(start))
            loss, gradient = self._loss(outer, penalty)
            gradient[:, :-1] = gradient[:, :-1] @ vectors
            return loss, (gradient / scale).flatten().cpu().numpy()

        result: Any = minimize(
            objective,
            to_inner(start).flatten().cpu().numpy(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _MAX_PASSES, "ftol": _TOLERANCE, "gtol": 1e-6, "maxcor": 20},
        )
        return from_inner(torch.from_numpy(result.x).to(self.device).view_as(start)), int(result.nfev)

    def _loss(self, weight_KD1: Tensor, penalty: float) -> tuple[float, Tensor]:
        """Mean log-loss plus penalty, and its gradient (K, D + 1) float64."""
        weight, bias = weight_KD1[:, :-1], weight_KD1[:, -1]
        logits = torch.addmm(bias.float(), self._x, weight.float().T)
        if self._sigmoid:
            losses = nn.functional.binary_cross_entropy_with_logits(logits, self._y, reduction="none")
            residual = torch.sigmoid(logits) - self._y
        else:
            logarithms = torch.log_softmax(logits, dim=1)
            rows = torch.arange(len(logits), device=logits.device)
            losses = -logarithms[rows, self._y]
            residual = logarithms.exp_()
            residual[rows, self._y] -= 1
        count = len(self._x)
        loss = losses.sum(dtype=torch.float64) / count + 0.5 * penalty * weight.square().sum()
        gradient = torch.cat(
            [
                (residual.T @ self._x).double() / count + penalty * weight,
                residual.sum(dim=0, dtype=torch.float64)[:, None] / count,
            ],
            dim=1,
        )
        return float(loss), gradient


def _in_own_span(x_ND: Tensor) -> tuple[Tensor, Tensor | None]:
    """Fewer rows than columns: the same rows in an orthonormal basis (D, R) of their span, where the solution lies."""
    if x_ND.shape[0] >= x_ND.shape[1]:
        return x_ND, None
    values, vectors = torch.linalg.eigh((x_ND @ x_ND.T).double())
    kept = values > 1e-6 * values[-1]
    roots = values[kept].sqrt()
    return (vectors[:, kept] * roots).float(), x_ND.T.double() @ (vectors[:, kept] / roots)


def probabilities(logits_NK: Tensor, kind: Kind) -> Tensor:
    """Logits to probabilities: softmax, one sigmoid a label, or (1 - p, p) of one binary logit."""
    if kind == MULTI_LABEL:
        return torch.sigmoid(logits_NK)
    if kind == BINARY and logits_NK.shape[1] == 1:
        return torch.sigmoid(torch.cat([-logits_NK, logits_NK], dim=1))
    return torch.softmax(logits_NK, dim=1)


def log_loss(labels: Labels, scores: Floats, kind: Kind) -> float:
    """Mean negative log-likelihood; over images and labels in multi-label tasks."""
    labels = np.asarray(labels).reshape(len(labels), -1)
    clipped = np.clip(scores, 1e-12, 1 - 1e-12)
    if kind == MULTI_LABEL:
        return float(-np.where(labels == 1, np.log(clipped), np.log1p(-clipped)).mean())
    return float(-np.log(clipped[np.arange(len(labels)), labels[:, 0]]).mean())
