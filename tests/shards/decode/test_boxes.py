from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.decode import Crops
from shards.decode.boxes import crop_boxes
from shards.decode.native_decoder import NativeUnavailableError, native_boxes
from shards.errors import ConfigError

QUANTILES = dict(np.load(Path(__file__).parents[1] / "data" / "rrc_quantiles.npz"))
SCALES = {"dinov2_global": (0.32, 1.0), "dinov2_local": (0.05, 0.32), "mae": (0.2, 1.0)}


def draw(crops: Crops, width: int, height: int, num: int = 6000, group: int = 0) -> np.ndarray:
    seeds = np.arange(num).astype(np.uint64)
    return crop_boxes(seeds, group, crops, np.full(num, width), np.full(num, height)).box[:, 0]


@pytest.mark.parametrize("recipe", sorted(SCALES))
@pytest.mark.parametrize(("width", "height"), [(256, 256), (512, 320)])
def test_boxes_are_distributed_as_in_the_published_recipes(recipe: str, width: int, height: int) -> None:
    x, y, w, h = draw(Crops(scale=SCALES[recipe]), width, height).T
    values = {
        "area": w * h / (width * height),
        "aspect": w / h,
        "center_y": (y + h / 2) / height,
        "center_x": (x + w / 2) / width,
    }
    for name, value in values.items():
        want = QUANTILES[f"{recipe}_{width}x{height}_{name}_q"]
        got = np.quantile(value, QUANTILES["quantiles"])
        assert np.abs(got - want).max() < 0.035 * (want[-1] - want[0]), name


def test_flips_have_their_probability_and_do_not_follow_the_boxes() -> None:
    seeds = np.arange(20_000).astype(np.uint64)
    sizes = np.full(len(seeds), 300)
    drawn = crop_boxes(seeds, 0, Crops(flip_probability=0.3), sizes, sizes)
    assert abs(drawn.flip.mean() - 0.3) < 0.015
    assert abs(np.corrcoef(drawn.flip[:, 0], drawn.box[:, 0, 0])[0, 1]) < 0.03
    for probability in (0.0, 1.0):
        flips = crop_boxes(seeds, 0, Crops(flip_probability=probability), sizes, sizes).flip
        assert (flips == bool(probability)).all()


def test_a_box_depends_on_its_seed_alone_and_not_on_its_neighbours() -> None:
    seeds = np.array([5, 2**64 - 1, 7], np.uint64)
    widths, heights = np.array([300, 41, 600]), np.array([200, 900, 600])
    together = crop_boxes(seeds, 1, Crops(num=4), widths, heights)
    for row in range(3):
        pick = slice(row, row + 1)
        alone = crop_boxes(seeds[pick], 1, Crops(num=2), widths[pick], heights[pick])
        assert np.array_equal(alone.box[0], together.box[row, :2])
        assert np.array_equal(alone.flip[0], together.flip[row, :2])


def test_groups_and_crops_of_a_sample_differ() -> None:
    boxes = np.concatenate([draw(Crops(), 500, 500, 1), draw(Crops(), 500, 500, 1, group=1)])
    many = crop_boxes(np.zeros(1, np.uint64), 0, Crops(num=8), np.array([500]), np.array([500])).box[0]
    assert not np.array_equal(boxes[0], boxes[1])
    assert np.unique(many, axis=0).shape[0] == 8


@pytest.mark.parametrize(("width", "height"), [(1000, 1), (1, 1000), (2000, 40), (40, 2000), (1, 1)])
def test_boxes_of_extreme_images_fall_back_to_the_centre_and_stay_inside(width: int, height: int) -> None:
    x, y, w, h = draw(Crops(), width, height, 200).T
    assert (x >= 0).all()
    assert (y >= 0).all()
    assert (w >= 1).all()
    assert (h >= 1).all()
    assert (x + w <= width).all()
    assert (y + h <= height).all()


def test_center_box_is_the_pre_image_of_resize_then_crop() -> None:
    box = draw(Crops(kind="center", size_px=100), 400, 200, 1)[0]
    assert box.tolist() == [100, 0, 200, 200]
    odd = draw(Crops(kind="center", size_px=224), 333, 251, 1)[
        0
    ]  # 333 x 251 → 297 x 224, from column 36 (36.5 to even)
    assert odd[2] == pytest.approx(224 * 333 / 297)
    assert odd[0] == pytest.approx(36 * 333 / 297)


def test_first_box_is_pinned() -> None:
    drawn = crop_boxes(np.array([2026], np.uint64), 0, Crops(num=2), np.array([640]), np.array([480]))
    assert drawn.box[0].tolist() == [[75, 70, 385, 380], [92, 4, 509, 476]]
    assert drawn.flip[0].tolist() == [True, False]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    low=st.floats(0.001, 1.0),
    ratio=st.tuples(st.floats(0.06, 1.0), st.floats(1.0, 15.0)),
    kind=st.sampled_from(["random", "center"]),
    group=st.integers(0, 9),
)
def test_c_draws_the_same_bits(seed: int, low: float, ratio: tuple[float, float], kind: str, group: int) -> None:
    crops = Crops(num=3, scale=(low, 1.0), ratio=ratio, kind=kind, size_px=96)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    seeds = rng.integers(0, 2**64, 300, dtype=np.uint64)
    widths, heights = np.exp(rng.uniform(0, 8.5, (2, 300))).astype(np.int64)
    try:
        got = native_boxes(seeds, group, crops, widths, heights)
    except NativeUnavailableError as error:
        pytest.skip(f"native decoder: {error}")
    want = crop_boxes(seeds, group, crops, widths, heights)
    assert np.array_equal(got.box, want.box)
    assert np.array_equal(got.flip, want.flip)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num": 0},
        {"size_px": 0},
        {"size_px": 100_000},
        {"scale": (0.5, 0.1)},
        {"scale": (0.0, 1.0)},
        {"ratio": (2.0, 1.0)},
        {"ratio": (0.001, 1.0)},
        {"flip_probability": 1.5},
    ],
)
def test_impossible_crops_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="use "):
        Crops(**wrong)  # type: ignore[arg-type]
