"""Features: computed once, cached by everything they depend on, resumed where a killed run stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from eval.encoders.encoder import Backbone, load_backbone
from eval.medmnist.data import Task, load_task
from eval.probes.features import Preprocessing, extract, feature_key, to_unit
from shards.errors import ConfigError
from tests.eval.builders import write_archive

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return load_task("breast", root=write_archive(tmp_path_factory.mktemp("data"), "breastmnist"))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("random:test_vit")


class Counting:
    """A backbone that counts images and can die after some."""

    def __init__(self, backbone: Backbone, *, die_after: int | None = None) -> None:
        self.backbone, self.images, self.die_after = backbone, 0, die_after
        for name in ("digest", "image_size_px", "mean", "std", "model", "check_image_size", "pooling"):
            setattr(self, name, getattr(backbone, name))

    def features(self, batch: Tensor, pooling: str) -> Tensor:
        if self.die_after is not None and self.images + len(batch) > self.die_after:
            raise KeyboardInterrupt
        self.images += len(batch)
        return self.backbone.features(batch, pooling)


def test_features_are_the_networks_own(task: Task, backbone: Backbone, tmp_path: Path) -> None:
    features = extract(backbone, task, image_size_px=32, cache=tmp_path, batch_size=16)
    whole = Preprocessing.of(backbone, image_size_px=32)(task.test.images)
    with torch.no_grad():
        expected = backbone.features(whole).numpy()
    assert features.test.dtype == np.float32
    assert np.allclose(features.test, expected, atol=1e-5)
    assert isinstance(features.train, np.memmap)


def test_the_second_time_nothing_is_computed(task: Task, backbone: Backbone, tmp_path: Path) -> None:
    counting = Counting(backbone)
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        extract(counting, task, image_size_px=32, cache=tmp_path, report=lambda *now: seen.append(now))
    assert counting.images == 120 + 3
    assert seen[-1] == (120, 120)


@pytest.mark.parametrize("die_after", [17, 40, 70, 90])
def test_a_killed_run_goes_on_where_it_stopped(task: Task, backbone: Backbone, tmp_path: Path, die_after: int) -> None:
    whole = extract(backbone, task, image_size_px=32, cache=tmp_path / "whole", batch_size=8)
    with pytest.raises(KeyboardInterrupt):
        extract(Counting(backbone, die_after=die_after), task, image_size_px=32, cache=tmp_path, batch_size=8)
    rest = Counting(backbone)
    features = extract(rest, task, image_size_px=32, cache=tmp_path, batch_size=8)
    assert rest.images <= 120 - die_after + 8 + 3
    for name in ("train", "val", "test"):
        assert np.array_equal(features.split(name), whole.split(name))
    assert not list(tmp_path.rglob("*.partial.npy"))


def test_the_key_knows_everything(task: Task, backbone: Backbone) -> None:
    base = Preprocessing.of(backbone)
    other = Preprocessing(image_size_px=base.image_size_px, mean=(0.5,) * 3, std=(0.1,) * 3)
    keys = {
        feature_key(backbone, task, "patch_mean", base),
        feature_key(backbone, task, "cls", base),
        feature_key(backbone, task, "patch_mean", other),
        feature_key(backbone, task, "patch_mean", Preprocessing.of(backbone, image_size_px=64)),
        feature_key(load_backbone("random:test_vit", seed=1), task, "patch_mean", base),
    }
    assert len(keys) == 5


def test_grey_images_become_three_channels_and_back() -> None:
    gray = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    unit = to_unit(gray)
    assert unit.shape == (2, 3, 4, 4)
    assert torch.equal(unit[:, 0], unit[:, 2])
    one = Preprocessing(image_size_px=4, mean=(0.5,), std=(0.25,))
    assert torch.allclose(one(gray), (unit[:, :1] - 0.5) / 0.25, atol=1e-6)
    rgb = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    rgb[..., 1] = 255
    assert torch.allclose(one(rgb), torch.full((1, 1, 4, 4), (0.587 - 0.5) / 0.25), atol=1e-5)


def test_resizing_keeps_the_range_and_normalises() -> None:
    image = np.zeros((1, 28, 28), dtype=np.uint8)
    image[:, 14:] = 255
    out = Preprocessing(image_size_px=64, mean=(0.5,) * 3, std=(0.5,) * 3)(image)
    assert out.shape == (1, 3, 64, 64)
    assert out.min() == -1
    assert out.max() == 1


def test_unknown_pooling(task: Task, backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pooling 'max'"):
        extract(backbone, task, pooling="max", cache=tmp_path)


def test_images_of_half_a_patch(task: Task, backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="28 px is no whole number of 16 px patches") as caught:
        extract(backbone, task, image_size_px=28, cache=tmp_path)
    assert "--image-size 32" in caught.value.hint
