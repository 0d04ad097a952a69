"""The kernels of colour and blur against torch; in Triton's interpreter where there is no GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import DRAWN, compiles_for_a_gpu, need_triton
from train import augment as reference
from train.augment import Chances, augment, draw_augmentation
from train.kernels.colour_table import COLUMNS, colour_table
from train.randomness import Purpose, Share, to_device
from train.recipe import AugmentConfig

pytestmark = pytest.mark.torch
need_triton()

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ALL = {"jitter_probability": 1.0, "gray_probability": 0.3}
STEP_OF_SOLARIZING = abs(1 - 2 * 128 / 255)
"""How far apart two values end that lie on both sides of the threshold."""


def pixels(kind: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    if kind == "gray":
        values = np.repeat(rng.integers(0, 256, (*shape[:-1], 1)), shape[-1], axis=-1)
    elif kind == "extremes":
        values = rng.choice([0, 127, 128, 255], shape)
    else:
        values = rng.integers(0, 256, shape)
    return torch.from_numpy(values.astype(np.uint8)).to(DEVICE)


def by_both(crops: torch.Tensor, seed: int, config: AugmentConfig, chances: Chances | None) -> tuple[Any, Any]:
    of = Share(seed=seed, step=5, first_unit=2, num_units=1, unit_images=len(crops))
    purpose = Purpose.AUGMENT_LOCAL
    want = augment(crops, of, config, purpose=purpose, chances=chances)
    return want, augment(crops, of, config, purpose=purpose, chances=chances, by="triton")


@pytest.mark.slow
@DRAWN
@given(
    num_images=st.integers(1, 2),
    size=st.integers(5, 40),
    channels=st.sampled_from([1, 3]),
    kind=st.sampled_from(["noise", "gray", "extremes"]),
    seed=st.integers(0, 2**62),
    strengths=st.fixed_dictionaries(
        {name: st.floats(0, most) for name, most in (("brightness", 0.8), ("contrast", 0.8), ("saturation", 0.8))}
        | {"hue": st.floats(0, 0.5)}
    ),
    jitter=st.sampled_from([0.0, 0.5, 1.0]),
    blur=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=2),
    solarize=st.sampled_from([0.0, 1.0]),
)
def test_every_value_is_within_a_thousandth_of_torchs(
    num_images: int,
    size: int,
    channels: int,
    kind: str,
    seed: int,
    strengths: dict[str, float],
    jitter: float,
    blur: list[float],
    solarize: float,
) -> None:
    config = AugmentConfig(jitter_probability=jitter, gray_probability=0.3, solarize_probability=1.0, **strengths)
    chances = Chances(blur=tuple(blur), solarize=(solarize,) * len(blur))
    crops = pixels(kind, (num_images, len(blur), size, size, channels), seed)
    want, got = by_both(crops, seed, config, chances)
    assert got.shape == want.shape
    assert got.dtype == torch.float32
    difference = (got - want).abs()
    if solarize:  # rounding may take a value to the other side of the threshold
        unsolarised, _ = by_both(crops, seed, config, Chances(blur=chances.blur, solarize=(0.0,) * len(blur)))
        mean, std = (reference._of_channels(values, channels) for values in (config.mean, config.std))
        mean_, std_ = (torch.tensor(values, device=DEVICE).view(-1, 1, 1) for values in (mean, std))
        near = (unsolarised * std_ + mean_ - reference.SOLARIZE_FROM).abs() < 1e-5
        assert (difference[near] <= (STEP_OF_SOLARIZING + 1e-3) / min(std)).all()
        difference = difference[~near]
    assert not len(difference) or difference.max() <= 1e-3


@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_alone(channels: int) -> None:
    crops = pixels("noise", (2, 3, 7, 7, channels), 1)
    want, got = by_both(crops, 1, AugmentConfig(), None)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_large_crops_are_made_in_tiles_and_in_the_training_type() -> None:
    crops = pixels("noise", (1, 1, 72, 72, 3), 4)  # more than one tile
    config, chances = AugmentConfig(**ALL), Chances(blur=(1.0,), solarize=(0.0,))
    want, got = by_both(crops, 3, config, chances)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-3)
    of = Share(seed=3, step=5, first_unit=2, num_units=1, unit_images=1)
    half = augment(crops, of, config, purpose=Purpose.AUGMENT_LOCAL, chances=chances, by="triton", dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), got, rtol=2**-7, atol=1e-6)  # the interpreter cuts bits off


def test_numbers_drawn_ahead_give_the_same_crops() -> None:
    crops = pixels("noise", (2, 2, 6, 6, 3), 4)
    of = Share(seed=3, step=1, first_unit=0, num_units=1, unit_images=2)
    config, chances = AugmentConfig(**ALL), Chances(blur=(1.0, 0.5), solarize=(0.0, 0.5))
    ahead = to_device(
        draw_augmentation(of, config, purpose=Purpose.AUGMENT_LOCAL, chances=chances, channels=3, by="triton"), DEVICE
    )
    assert set(ahead) == {"table", "blur/rows"}
    now, later = (
        augment(crops, of, config, purpose=Purpose.AUGMENT_LOCAL, chances=chances, drawn=drawn, by="triton")
        for drawn in (None, ahead)
    )
    assert torch.equal(now, later)


def test_the_table_says_what_the_rows_say() -> None:
    of = Share(seed=8, step=1, first_unit=0, num_units=4, unit_images=8)
    config = AugmentConfig(jitter_probability=0.7, gray_probability=0.4)
    chances = Chances(blur=(0.9, 0.1), solarize=(0.0, 0.3))
    rows = draw_augmentation(of, config, purpose=Purpose.AUGMENT_GLOBAL, chances=chances, channels=3)
    table = colour_table(rows, 64)["table"]
    assert table.shape == (64, COLUMNS)
    jittered = np.unique(np.concatenate([rows[f"{name}@0/rows"] for name in reference.JITTER]))
    assert np.array_equal(np.flatnonzero(table[:, 0] >= 0), jittered)
    for crop in jittered:
        order = [reference.JITTER[int(number)] for number in table[crop, :4]]
        assert sorted(order) == sorted(reference.JITTER)
        for place, name in enumerate(order):
            [at] = np.flatnonzero(rows[f"{name}@{place}/rows"] == crop)
            assert table[crop, 4 + place] == rows[f"{name}@{place}/strength"][at]
        assert order[int(table[crop, 12])] == "contrast"
    for column, name in ((8, "gray"), (11, "solarize")):
        assert np.array_equal(np.flatnonzero(table[:, column]), rows[f"{name}/rows"])
    assert np.array_equal(table[rows["blur/rows"], 9], np.arange(len(rows["blur/rows"])))
    assert np.array_equal(table[rows["blur/rows"], 10], rows["blur/strength"])
    assert (np.delete(table[:, 9], rows["blur/rows"]) == -1).all()


def test_one_channel_has_brightness_and_contrast_alone() -> None:
    of = Share(seed=8, step=1, first_unit=0, num_units=1, unit_images=8)
    chances = Chances(blur=(0.0,), solarize=(0.0,))
    drawn = draw_augmentation(
        of, AugmentConfig(**ALL), purpose=Purpose.AUGMENT_GLOBAL, chances=chances, channels=1, by="triton"
    )
    assert set(drawn) == {"table"}
    assert set(np.unique(drawn["table"][:, :4])) == {-1, 0, 1}


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("channels", [1, 3])
def test_they_compile_for_a_gpu(channels: int) -> None:
    numbers: Any = ("fp32",) * channels
    fixed = {"num_columns": COLUMNS, "num_crops": 2, "pixels": 224 * 224, "channels": channels, "tile": 1024}
    lumas = {"crops": "*u8", "table": "*fp32", "sums": "*fp32", "num_images": "i32"}
    colours = lumas | {"blurred": "*fp32", "out": "*bf16", "means": numbers, "deviations": numbers}
    down = {
        "source": "*fp32",
        "table": "*fp32",
        "rows": "*i64",
        "out": "*fp32",
        "means": numbers,
        "deviations": numbers,
    }
    blur = {"num_columns": COLUMNS, "size": 224, "channels": channels, "tile": 1024}
    compiles_for_a_gpu(
        "train.kernels.triton_colour",
        [
            ("_lumas", lumas, fixed),
            ("_colours", colours, fixed | {"num_sums": 64}),
            ("_colours", colours, fixed | {"num_sums": 0}),
            ("_blur", down, blur | {"is_last": False}),
            ("_blur", down | {"out": "*bf16"}, blur | {"is_last": True}),
        ],
    )
