"""The numpy twins give what OpenCV gives, in every bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.decode import opencv


@pytest.fixture
def without_opencv(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], tuple[Any, Any]]:
    """Runs something with OpenCV and without it."""

    def both(run: Callable[[], Any]) -> tuple[Any, Any]:
        with_opencv = run()
        with monkeypatch.context() as patch:
            patch.setattr(opencv, "find_opencv", lambda: None)
            return with_opencv, run()

    return both


def noise(seed: int, *shape: int) -> opencv.Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


Both = Callable[[Callable[[], Any]], tuple[Any, Any]]


def same(found: tuple[Any, Any]) -> None:
    assert found[0].dtype == found[1].dtype
    np.testing.assert_array_equal(*found)


sides = st.integers(1, 300)


@given(sides, sides, st.sampled_from([(64, 64), (256, 256), (256, 64), (37, 300), (1, 1)]), st.integers(0, 99))
def test_linear_interpolation(height: int, width: int, size: tuple[int, int], seed: int) -> None:
    pixels = noise(seed, height, width)
    expected = opencv.scale_linear(pixels, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opencv, "find_opencv", lambda: None)
        same((expected, opencv.scale_linear(pixels, size)))


@pytest.mark.parametrize("size", [(50, 81), (90, 40), (200, 11)])
def test_linear_interpolation_of_colour(without_opencv: Both, size: tuple[int, int]) -> None:
    same(without_opencv(lambda: opencv.scale_linear(noise(1, 40, 50, 3), size)))


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 8])
def test_means_of_blocks(without_opencv: Both, rows: int, columns: int) -> None:
    same(without_opencv(lambda: opencv.mean_blocks(noise(rows, 64 * rows, 64 * columns), (64, 64))))


@pytest.mark.parametrize("channels", [3, 4])
def test_luma(without_opencv: Both, channels: int) -> None:
    same(without_opencv(lambda: opencv.luma(noise(channels, 300, 200, channels))))
    levels = np.arange(256, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels[::5], indexing="ij"), axis=-1).reshape(256, -1, 3)
    same(without_opencv(lambda: opencv.luma(cube)))


def test_colour_and_histogram(without_opencv: Both) -> None:
    same(without_opencv(lambda: opencv.rgb_of(noise(5, 33, 21, 4))))
    same(without_opencv(lambda: opencv.histogram(noise(6, 120, 90))))
    part = noise(6, 120, 90)[::3]
    same(without_opencv(lambda: opencv.histogram(part)))
