from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.train.recipes import dino_recipe, mae_recipe
from train.augment import augment, blur_chances
from train.backbone import drop_path_rows
from train.methods import build_method
from train.randomness import Purpose, Share
from train.recipe import AugmentConfig, Recipe

pytestmark = pytest.mark.torch


def share(*, first: int = 0, num: int = 4, images: int = 2, step: int = 3, seed: int = 1) -> Share:
    return Share(seed=seed, step=step, first_unit=first, num_units=num, unit_images=images)


def numbers(of: Share, purpose: Purpose = Purpose.MASK) -> np.ndarray:
    return of.draw(purpose, lambda rng: rng.random(5))


def test_a_part_draws_what_the_whole_draws_there() -> None:
    np.testing.assert_array_equal(numbers(share())[2:], numbers(share(first=2, num=2)))


def test_numbers_differ_by_seed_step_unit_and_purpose() -> None:
    variants = [
        numbers(share()),
        numbers(share(seed=2)),
        numbers(share(step=4)),
        numbers(share(first=4)),
        numbers(share(), Purpose.AUGMENT_LOCAL),
    ]
    values = np.concatenate([variant.ravel() for variant in variants])
    assert len(np.unique(values)) == len(values)


def test_scalar_sources_follow_the_unit() -> None:
    whole, part = share(), share(first=1, num=1)
    assert whole.scalar_source(Purpose.MASK, 1).random() == part.scalar_source(Purpose.MASK, 0).random()
    assert whole.scalar_source(Purpose.MASK, 1).random() != whole.scalar_source(Purpose.MASK, 2).random()


@pytest.mark.parametrize("recipe", [mae_recipe(), dino_recipe(model={"drop_path": 0.3})], ids=["mae", "dinov2"])
def test_two_halves_are_prepared_like_the_whole_batch(recipe: Recipe) -> None:
    method = build_method(recipe)
    generator = torch.Generator().manual_seed(0)
    views = [
        torch.randint(256, (8, crop.num, crop.size_px, crop.size_px, 3), dtype=torch.uint8, generator=generator)
        for crop in recipe.crops()
    ]
    whole = method.prepare(views, share(num=2, images=4))
    halves = [
        method.prepare([view[4 * part : 4 * part + 4] for view in views], share(first=part, num=1, images=4))
        for part in range(2)
    ]
    if hasattr(whole, "patches"):
        torch.testing.assert_close(torch.cat([half.patches for half in halves]), whole.patches, rtol=0, atol=0)
        assert torch.equal(torch.cat([half.masking.removed for half in halves]), whole.masking.removed)
        return
    for crop in range(2):
        rows = slice(4 * crop, 4 * crop + 4)
        both = torch.cat([half.global_images[rows] for half in halves])
        torch.testing.assert_close(both, whole.global_images[8 * crop : 8 * crop + 8], rtol=0, atol=0)
        both = torch.cat([half.masks[rows] for half in halves])
        assert torch.equal(both, whole.masks[8 * crop : 8 * crop + 8])
    kept = set(whole.drops[0].rows[0].tolist())
    for part, half in enumerate(halves):
        there = {(row // 4) * 8 + 4 * part + row % 4 for row in half.drops[0].rows[0].tolist()}
        assert there == {row for row in kept if row % 8 // 4 == part}


def test_drop_path_keeps_the_same_number_in_every_unit() -> None:
    draws = np.random.default_rng(0).random((3, 4, 10))
    drop = drop_path_rows(draws, unit_images=5, rate=0.3, device=torch.device("cpu"))
    assert drop.rows.shape == (4, 21)
    assert drop.scale == pytest.approx(10 / 7)
    for rows in drop.rows:
        assert len(set(rows.tolist())) == 21
        per_unit = torch.bincount(rows % 15 // 5, minlength=3)
        assert per_unit.tolist() == [7, 7, 7]


def test_gray_images_stay_gray_and_keep_their_hue() -> None:
    config = AugmentConfig(jitter_probability=1.0, gray_probability=0.5, blur="intended", solarize_probability=0.5)
    gray = torch.randint(256, (4, 2, 16, 16, 1), dtype=torch.uint8).expand(-1, -1, -1, -1, 3)
    of = share(num=1, images=4)
    chances = blur_chances(config, num_global=2, num_local=0)[0]
    out = augment(gray, of, config, purpose=Purpose.AUGMENT_GLOBAL, chances=chances)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    levels = out * std + mean
    torch.testing.assert_close(levels[:, 0], levels[:, 1], rtol=0, atol=2e-6)
    torch.testing.assert_close(levels[:, 0], levels[:, 2], rtol=0, atol=2e-6)


def test_one_channel_is_augmented_and_normalised() -> None:
    config = AugmentConfig(jitter_probability=1.0, blur="effective")
    images = torch.full((2, 2, 16, 16, 1), 128, dtype=torch.uint8)
    out = augment(images, share(num=1), config, purpose=Purpose.AUGMENT_GLOBAL)
    assert out.shape == (4, 1, 16, 16)
    luma = torch.tensor([0.299, 0.587, 0.114])
    want = (128 / 255 - (torch.tensor(config.mean) * luma).sum()) / (torch.tensor(config.std) * luma).sum()
    torch.testing.assert_close(out, want.expand_as(out))


def test_blur_presets_are_the_measured_and_the_written_ones() -> None:
    effective, local = blur_chances(AugmentConfig(blur="effective"), num_global=2, num_local=3)
    assert (effective.blur, local.blur) == ((0.0, 0.9), (0.5, 0.5, 0.5))
    assert blur_chances(AugmentConfig(blur="intended"), num_global=2, num_local=1)[0].blur == (1.0, 0.1)


@pytest.mark.parametrize("turn", [-0.1, 0.25, 0.5])
def test_hue_turns_like_the_hsv_model(turn: float) -> None:
    import colorsys

    from train.augment import shift_hue

    pixels = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    got = shift_hue(pixels, strength=torch.full((1, 1, 1, 1), turn))
    for y in range(4):
        for x in range(5):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixels[0, :, y, x].tolist())
            want = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
            assert got[0, :, y, x].tolist() == pytest.approx(want, abs=1e-5)
