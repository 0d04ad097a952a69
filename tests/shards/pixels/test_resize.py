"""Whole pictures at another size: what Pillow makes of them within rounding, and the same bits from every kernel."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shards.decode.native_decoder import NativeUnavailableError, load
from shards.pixels.resize import resize
from tests.shards.decode.images import picture

try:
    load()
except NativeUnavailableError as error:
    pytest.skip(f"native decoder: {error}", allow_module_level=True)

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SIZES = [  # height, width, and those of the result
    (864, 1152, 512, 683),
    (301, 700, 129, 300),
    (97, 90, 31, 29),
    (640, 33, 512, 26),
    (33, 1200, 7, 255),
    (200, 300, 200, 300),
    (200, 300, 200, 151),
    (200, 300, 77, 300),
    (1, 1, 1, 1),
    (3, 2, 1, 1),
    (1, 900, 1, 5),
    (900, 1, 5, 1),
    (2000, 50, 3, 2),
    (20, 31, 45, 64),
]


def noise(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(height * width).integers(0, 256, shape, dtype=np.uint8)


def photo(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    pixels = picture(height, width, 1)
    return np.ascontiguousarray(pixels[..., 0]) if channels == 1 else pixels


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("made", [noise, photo])
def test_it_is_pillows_within_rounding(
    made: Callable[[int, int, int], NDArray[np.uint8]], size: tuple[int, ...], channels: int, interpolation: str
) -> None:
    pixels = made(size[0], size[1], channels)
    # In two steps, since by itself Pillow begins with the columns of tall pictures.
    across = Image.fromarray(pixels).resize((size[3], size[0]), FILTERS[interpolation])
    want = np.asarray(across.resize((size[3], size[2]), FILTERS[interpolation]))
    got = resize(pixels, (size[3], size[2]), interpolation=interpolation)  # type: ignore[arg-type]
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    difference = np.abs(got.astype(int) - want)
    assert difference.max() <= 2
    assert difference.mean() < (0.05 if want.size > 1000 else 0.2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_every_instruction_set_gives_the_same_bits(size: tuple[int, ...], channels: int) -> None:
    pixels = noise(size[0], size[1], channels)
    plain = resize(pixels, (size[3], size[2]), instructions="portable")
    for instructions in ("avx2", "best"):
        np.testing.assert_array_equal(resize(pixels, (size[3], size[2]), instructions=instructions), plain)  # type: ignore[arg-type]


def test_without_reduction_it_is_the_picture_and_flat_stays_flat() -> None:
    pixels = noise(61, 83, 3)
    np.testing.assert_array_equal(resize(pixels, (83, 61)), pixels)
    assert (resize(np.full((700, 900), 201, np.uint8), (321, 250)) == 201).all()


def test_views_are_read_as_they_are() -> None:
    pixels = noise(120, 90, 3)
    np.testing.assert_array_equal(resize(pixels[::-1, 3:], (40, 50)), resize(pixels[::-1, 3:].copy(), (40, 50)))


def test_threads_do_not_disturb_each_other() -> None:
    pictures = [noise(300 + k, 400 - k, 1 + 2 * (k % 2)) for k in range(8)]
    want = [resize(pixels, (101, 77)) for pixels in pictures]
    wrong: list[int] = []

    def check(number: int) -> None:
        wrong.extend(number for _ in range(20) if not np.array_equal(resize(pictures[number], (101, 77)), want[number]))

    threads = [threading.Thread(target=check, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("pixels", "size"),
    [
        (np.zeros((4, 4, 4), np.uint8), (2, 2)),
        (np.zeros((4, 4), np.uint16), (2, 2)),
        (np.zeros((0, 4), np.uint8), (2, 2)),
        (np.zeros((4, 4), np.uint8), (0, 2)),
        (np.zeros(4, np.uint8), (2, 2)),
    ],
)
def test_other_pixels_are_refused(pixels: NDArray[np.uint8], size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="pixels"):
        resize(pixels, size)
