"""Pixels out of Pillow's memory, and the rule for blank pictures, which looks at some rows first."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ingest.picture.encoding import Encoding
from ingest.picture.normalise import reduce, to_gray, to_picture
from ingest.picture.quality import blank
from ingest.readers.base import RawImage
from ingest.readers.pillow import pixels_of
from ingest.settings import QualitySettings


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (640, 480), (3000, 2000)])  # the last is too large for one block
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pixels_of_a_pillow_image(mode: str, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    image = Image.fromarray(pixels)
    found = pixels_of(image)
    del image
    np.testing.assert_array_equal(found, pixels)
    assert found.flags.c_contiguous


@pytest.mark.parametrize("shape", [(700, 900, 3), (700, 900), (300, 200, 3)])
def test_the_gray_of_a_reduced_picture_is_the_luma_of_what_is_stored(shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    reduced = reduce(picture, Encoding())
    np.testing.assert_array_equal(reduced.gray, to_gray(np.asarray(reduced.image)))


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (97, 61), (300, 400)])
def test_equal_channels_become_gray_and_one_other_value_keeps_them(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    gray = rng.integers(0, 256, shape, dtype=np.uint8)
    colourless = np.repeat(gray[..., None], 3, axis=2)
    folded = to_picture(RawImage(pixels=colourless, modality=""))
    np.testing.assert_array_equal(folded, gray)
    for _ in range(20):
        pixels = colourless.copy()
        pixels[rng.integers(shape[0]), rng.integers(shape[1]), rng.integers(3)] ^= 1
        np.testing.assert_array_equal(to_picture(RawImage(pixels=pixels, modality="")), pixels)


def test_blank_is_decided_on_all_pixels() -> None:
    """Whatever some rows say, the answer is that of the rule in its plain form."""
    rng = np.random.default_rng(3)
    settings = QualitySettings()
    answers = []
    for trial in range(400):
        height, width = rng.integers(8, 90, 2)
        gray = np.full((height, width), rng.integers(0, 256), np.uint8)
        speckled = rng.random(gray.shape) < rng.choice((0.0, 0.005, 0.02, 0.03, 0.5))
        if trial % 2:
            speckled[:: rng.choice((1, 8))] = False
        gray[speckled] = rng.integers(0, 256, int(speckled.sum()))
        share = np.bincount(gray.ravel()).max() / gray.size
        expected = gray.std() < settings.blank_std or share > settings.blank_fraction
        assert (blank(gray, settings, part_of_volume=False) is not None) == expected
        answers.append(bool(expected))
    assert 50 < sum(answers) < 350
