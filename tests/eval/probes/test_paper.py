"""The paper's protocol against numbers of the authors' own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eval.encoders.encoder import load_backbone
from eval.medmnist.data import load_task
from eval.medmnist.tasks import MULTI_CLASS, MULTI_LABEL
from eval.probes.logistic import probabilities
from eval.probes.paper import augment, fit_head, make_head, paper_features, probe_paper, stochastic_depth
from shards.errors import ConfigError
from tests.eval.builders import write_archive

pytestmark = pytest.mark.torch

FIXTURE = Path(__file__).parents[1] / "fixtures" / "linear_probe.npz"


@pytest.mark.parametrize(("name", "kind"), [("multiclass", MULTI_CLASS), ("multilabel", MULTI_LABEL)])
def test_a_head_trains_as_the_authors(name: str, kind: Any) -> None:
    with np.load(FIXTURE, allow_pickle=False) as arrays:
        known = {key.removeprefix(f"{name}_"): torch.from_numpy(arrays[key]) for key in arrays if key.startswith(name)}
    features = paper_features(known["tokens"], 1)
    assert torch.allclose(features, known["features"], atol=1e-5)
    train, batch = int(known["n_train"]), int(known["batch"])
    head = make_head(features.shape[1], len(known["w0"]))
    linear: Any = head[1]
    linear.weight.data, linear.bias.data = known["w0"].clone(), known["b0"].clone()

    def batches(_epoch: int) -> Any:
        for start in range(0, train, batch):
            yield features[start : start + batch], known["labels"][start : start + batch]

    fit = fit_head(
        head, batches, (features[train:], known["labels"][train:]), kind=kind, num_epochs=int(known["epochs"])
    )
    assert np.allclose(fit.val_losses, known["val_loss_per_epoch"], atol=1e-5)
    last: Any = fit.last
    assert torch.allclose(last[1].weight, known["w_final"], rtol=1e-3, atol=1e-5)
    assert torch.allclose(last[1].bias, known["b_final"], rtol=1e-3, atol=1e-5)
    assert torch.allclose(last[0].running_mean, known["bn_running_mean"], atol=1e-5)
    assert torch.allclose(last[0].running_var, known["bn_running_var"], rtol=1e-4)
    with torch.no_grad():
        assert torch.allclose(probabilities(fit.last(features[train:]), kind), known["val_prob"], atol=1e-5)
    assert fit.best_epoch == int(np.argmin(known["val_loss_per_epoch"]))


def test_the_best_epoch_is_kept() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(32, 4), torch.randint(0, 2, (32,))

    def batches(_epoch: int) -> Any:
        yield features, labels

    head = make_head(4, 2)
    fit = fit_head(head, batches, (features, 1 - labels), kind=MULTI_CLASS, num_epochs=6)
    assert fit.best_epoch == 0
    with torch.no_grad():
        kept = nn.functional.cross_entropy(fit.head(features), 1 - labels)
    assert float(kept) == pytest.approx(fit.val_losses[0], abs=1e-5)


def test_augmentation_turns_and_shifts_within_its_limits() -> None:
    size = 65
    images = torch.zeros(64, 3, size, size)
    images[:, :, 32, 32] = 1.0
    moved = augment(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    places = moved[:, 0].flatten(1).argmax(dim=1)
    rows, columns = places // size - 32, places % size - 32
    assert rows.abs().max() == 4
    assert columns.abs().max() == 4
    bar = torch.zeros(200, 3, size, size)
    bar[:, :, 8] = 1.0
    angles = _angles(augment(bar, torch.Generator().manual_seed(1)))
    assert 25 < angles.abs().max() < 32
    assert angles.mean().abs() < 4


def _angles(turned: Tensor) -> Tensor:
    """Degrees by which a horizontal bar was turned."""
    found = []
    for image in turned[:, 0]:
        y, x = torch.nonzero(image > 0, as_tuple=True)
        x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
        found.append(torch.atan2((x * y).sum(), (x * x).sum()) * 180 / torch.pi)
    return torch.stack(found)


def test_stochastic_depth_is_on_only_where_asked() -> None:
    model = load_backbone("random:test_vit").model
    torch.manual_seed(0)  # what is left out is drawn: about one draw in some hundred leaves out very little
    images = torch.randn(4, 3, 160, 160)
    with torch.no_grad():
        calm: Any = model.forward_features(images)
        with stochastic_depth(model, on=True):
            assert model.training
            wild: Any = model.forward_features(images)
        with stochastic_depth(model, on=False):
            assert not model.training
        after: Any = model.forward_features(images)
    assert torch.equal(calm, after)
    assert (calm - wild).norm() / calm.norm() > 0.05


def test_a_result_of_the_protocol(tmp_path: Path) -> None:
    task = load_task("breast", root=write_archive(tmp_path, "breastmnist"))
    seen: list[tuple[int, int]] = []
    (result,) = probe_paper(
        "random:test_vit",
        [task],
        num_epochs=3,
        batch_size=16,
        image_size_px=32,
        train_mode_backbone=True,
        cache=tmp_path / "cache",
        num_resamples=20,
        report=lambda *now: seen.append(now),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert result.protocol == "paper"
    assert result.seed == 42
    assert result.provenance["train_mode_backbone"] is True
    assert 0 <= result.settings["best_epoch"] < 3


def test_only_vits_have_the_paper_protocol(tmp_path: Path) -> None:
    task = load_task("breast", root=write_archive(tmp_path, "breastmnist"))
    for spec in ("pixels", "random:resnet18"):
        with pytest.raises(ConfigError, match="is for ViTs"):
            probe_paper(spec, [task], num_epochs=1)
