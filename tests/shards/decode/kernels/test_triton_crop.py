"""The crop kernel against torch, over drawn images, crops and filters; in Triton's interpreter without a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.decode import Crops
from shards.decode.kernels.cut import write_crops
from tests.kernels import DRAWN, compiles_for_a_gpu, need_triton

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
need_triton()

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIDES = st.integers(3, 45)
GROUPS = st.builds(
    Crops,
    num=st.integers(1, 2),
    size_px=st.integers(14, 40),
    kind=st.sampled_from(["random", "random", "center"]),
    scale=st.sampled_from([(0.05, 0.3), (0.3, 1.0), (1.0, 1.0)]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)


def picture(sides: tuple[int, int], channels: int, seed: int, *, kind: str, interleaved: bool) -> Any:
    """An image as libraries give them: planes, or a view of interleaved pixels."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        pixels = rng.integers(0, 256, (channels, *sides))
    elif kind == "extremes":
        pixels = rng.choice([0, 255], (channels, *sides))
    else:
        pixels = np.broadcast_to(np.linspace(0, 255, sides[1]).round(), (channels, *sides))
    image = torch.from_numpy(np.ascontiguousarray(pixels).astype(np.uint8)).to(DEVICE)
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1) if interleaved else image


def by_both(images: list[Any], seed: int, crops: Crops, turned: list[bool]) -> tuple[Any, Any]:
    channels = images[0].shape[0]
    seeds = np.arange(len(images), dtype=np.uint64) + np.uint64(seed)
    made = []
    for by in ("torch", "triton"):
        shape = (len(images) + 1, crops.num, crops.size_px, crops.size_px, channels)
        out = torch.full(shape, 7, dtype=torch.uint8, device=DEVICE)
        rows = list(range(len(images), 0, -1))
        write_crops(images, seeds, [crops], [out], rows, turned=np.array(turned), by=by)  # type: ignore[arg-type]
        made.append(out.int())
    return made[0], made[1]


@pytest.mark.slow
@DRAWN
@given(
    sides=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=2),
    crops=GROUPS,
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**62),
    kind=st.sampled_from(["noise", "extremes", "ramp"]),
    layout=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_a_crop_is_within_one_of_torchs(
    sides: list[tuple[int, int]], crops: Crops, channels: int, seed: int, kind: str, layout: list[bool]
) -> None:
    images = [
        picture(size, channels, seed + place, kind=kind, interleaved=layout[place]) for place, size in enumerate(sides)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.decode.kernels.triton_crop._TILE", (64, 64))  # the interpreter is quick with large tiles
        want, got = by_both(images, seed, crops, layout[2 : 2 + len(images)])
    assert (got - want).abs().max() <= 1
    assert (got != want).float().mean() < 0.05
    assert (got[0] == 7).all()


def test_a_crop_of_several_tiles() -> None:
    image = picture((40, 50), 3, 3, kind="noise", interleaved=True)
    want, got = by_both([image], 1, Crops(size_px=40), [True])
    assert (got - want).abs().max() <= 1


@pytest.mark.slow
def test_strong_reduction_and_enlargement() -> None:
    big = picture((200, 150), 1, 3, kind="noise", interleaved=False)
    small = picture((3, 2), 1, 4, kind="noise", interleaved=False)
    want, got = by_both([big, small], 1, Crops(size_px=16, scale=(1.0, 1.0)), [False, True])
    assert (got - want).abs().max() <= 1
    assert len(got.unique()) > 50


def test_arrays_of_the_host_are_filled_where_they_are_asked_for() -> None:
    images = [picture((9, 12), 3, seed, kind="noise", interleaved=True) for seed in range(2)]
    crops = Crops(size_px=8)
    tensor = torch.zeros((2, 1, 8, 8, 3), dtype=torch.uint8, device=DEVICE)
    array = np.zeros((4, 1, 8, 8, 3), np.uint8)
    seeds, turned = np.arange(2, dtype=np.uint64), np.zeros(2, np.bool_)
    write_crops(images, seeds, [crops], [tensor], [0, 1], turned=turned, by="triton")
    write_crops(images, seeds, [crops], [array], [3, 1], turned=turned, by="triton")
    assert np.array_equal(array[[3, 1]], tensor.cpu().numpy())
    assert not array[[0, 2]].any()
    write_crops([], seeds[:0], [crops], [array], [], turned=turned[:0], by="triton")


def test_the_trial_crop_is_right_here() -> None:
    from shards.decode.kernels.triton_crop import try_on

    try_on(DEVICE)


@pytest.mark.slow
@pytest.mark.process
def test_it_compiles_for_a_gpu() -> None:
    signature, tile = {"table": "*i64", "out": "*u8"}, {"num_columns": 15, "rows": 16, "columns": 32, "block": 16}
    kernels = [
        ("_crop", signature, tile | {"size": size, "channels": channels, "reach": reach})
        for size, channels, reach in ((224, 3, 1), (96, 1, 2))
    ]
    compiles_for_a_gpu("shards.decode.kernels.triton_crop", kernels)
