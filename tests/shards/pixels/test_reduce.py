"""Averaged areas and luma: OpenCV's results in every bit, from every kernel, and from ingest's fingerprints."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ingest.picture import fingerprint, normalise
from shards.decode.native_decoder import Instructions, NativeUnavailableError, load
from shards.pixels import reduce
from tests.shards.decode.images import picture

try:
    load()
except NativeUnavailableError as error:
    pytest.skip(f"native decoder: {error}", allow_module_level=True)

LEVELS: tuple[Instructions, ...] = get_args(Instructions)
ARM = platform.machine() in ("aarch64", "arm64")
SIZES = [  # height, width, and those of the result
    (512, 683, 256, 256),
    (683, 512, 256, 256),
    (257, 257, 256, 256),
    (256, 257, 256, 256),
    (512, 513, 256, 256),
    (300, 4096, 256, 256),
    (4096, 300, 256, 256),
    (511, 1021, 256, 256),
    (301, 1279, 97, 256),
    (64, 1600, 63, 250),
    (90, 97, 31, 29),
    (7, 200, 3, 16),
    (33, 15, 8, 15),
    (40, 17, 40, 16),
    (5, 3, 2, 2),
    (900, 1, 7, 1),
    (1, 901, 1, 17),
    (49, 49, 1, 1),
    (12544, 5, 256, 5),
]


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * width).integers(0, 256, (height, width), dtype=np.uint8)


def black_and_white(height: int, width: int) -> NDArray[np.uint8]:
    return np.where(noise(height, width) & 1, 255, 0).astype(np.uint8)


def photo(height: int, width: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(picture(height, width, 1)[..., 0])


def agrees(gray: NDArray[np.uint8], size: tuple[int, int]) -> None:
    """With OpenCV, at every level; OpenCV for 64-bit Arm rounds otherwise."""
    wanted = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    for level in LEVELS:
        got = reduce.area(gray, size, instructions=level)
        assert got.shape == (size[1], size[0])
        assert got.dtype == np.uint8
        assert np.abs(got.astype(int) - wanted).max() <= ARM, level
        np.testing.assert_array_equal(got, reduce.area(gray, size, instructions="portable"))


@pytest.mark.slow
@pytest.mark.parametrize("made", [noise, black_and_white, photo])
@pytest.mark.parametrize("size", SIZES)
def test_an_area_is_averaged_as_opencv_does_it(made: Any, size: tuple[int, ...]) -> None:
    agrees(made(size[0], size[1]), (size[3], size[2]))


def test_areas_of_random_sizes_are_opencvs() -> None:
    rng = np.random.default_rng(5)
    for trial in range(200):
        most = (24, 90, 400)[trial % 3]
        height, width = (int(side) for side in rng.integers(1, most, 2))
        size = int(rng.integers(1, width + 1)), int(rng.integers(1, height + 1))
        if width % size[0] or height % size[1]:  # else OpenCV has other ways
            agrees(rng.integers(0, 256, (height, width), dtype=np.uint8), size)


def test_flat_stays_flat() -> None:
    for value in (0, 1, 127, 254, 255):
        assert (reduce.area(np.full((512, 683), value, np.uint8), (256, 256)) == value).all()


def test_crops_are_read_where_they_lie() -> None:
    gray = noise(600, 700)
    for view in (gray[40:552, 85:597], gray[::-1, 3:], gray[::2, :650], gray.T, gray[:, ::2]):
        want = reduce.area(np.ascontiguousarray(view), (255, 250))
        for level in LEVELS:
            np.testing.assert_array_equal(reduce.area(view, (255, 250), instructions=level), want)


@pytest.mark.parametrize("channels", [3, 4])
def test_luma_is_opencvs(channels: int) -> None:
    code = cv2.COLOR_RGB2GRAY if channels == 3 else cv2.COLOR_RGBA2GRAY
    grid = np.stack(np.meshgrid(*[np.r_[0:256:5, 1, 254]] * 3, indexing="ij"), axis=-1).astype(np.uint8)
    colours = grid.reshape(1, -1, 3)
    fourth = np.random.default_rng(6).integers(0, 256, (*colours.shape[:2], channels - 3), dtype=np.uint8)
    pixels = np.concatenate([colours, fourth], axis=2)
    for length in (pixels.shape[1], *range(1, 130)):
        part = np.ascontiguousarray(pixels[:, -length:])
        want = cv2.cvtColor(part, code)
        for level in LEVELS:
            np.testing.assert_array_equal(reduce.luma(part, instructions=level), want)


def test_luma_of_views() -> None:
    pixels = picture(90, 120, 2)
    np.testing.assert_array_equal(reduce.luma(pixels[::-1, 5:80]), reduce.luma(pixels[::-1, 5:80].copy()))
    np.testing.assert_array_equal(reduce.luma(pixels), cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))


@pytest.mark.parametrize(
    ("pixels", "size"),
    [
        (np.zeros((4, 4, 3), np.uint8), (2, 2)),
        (np.zeros((4, 4), np.uint16), (2, 2)),
        (np.zeros((0, 4), np.uint8), (2, 2)),
        (np.zeros((4, 4), np.uint8), (0, 2)),
        (np.zeros((4, 4), np.uint8), (2, 5)),
        (np.zeros((4, 4), np.uint8), (5, 2)),
    ],
)
def test_areas_of_other_pixels_are_refused(pixels: NDArray[Any], size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="pixels"):
        reduce.area(pixels, size)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_luma_of_other_pixels_is_refused(pixels: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="pixels"):
        reduce.luma(pixels)


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    with monkeypatch.context() as patch:
        patch.setattr(reduce, "available", lambda: False)
        yield patch


@pytest.mark.skipif(ARM, reason="OpenCV for 64-bit Arm rounds averages otherwise")
@pytest.mark.parametrize("shape", [(512, 683), (683, 512), (512, 512), (1024, 512), (300, 257), (200, 900), (60, 40)])
def test_fingerprints_do_not_depend_on_who_computes_them(
    shape: tuple[int, int], without_native: pytest.MonkeyPatch
) -> None:
    pictures = [picture(*shape, 3), photo(*shape), np.dstack([picture(*shape, 4), photo(*shape)])]
    by_opencv = [(normalise.to_gray(pixels), fingerprint.fingerprint(pixels)) for pixels in pictures]
    without_native.undo()
    for pixels, (gray, prints) in zip(pictures, by_opencv, strict=True):
        np.testing.assert_array_equal(normalise.to_gray(pixels), gray)
        found = fingerprint.fingerprint(pixels)
        assert (found.whole, found.centre) == (prints.whole, prints.centre)
        np.testing.assert_array_equal(found.thumb, prints.thumb)
