"""Stripping a JPEG leaves its pixels alone and nothing else."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ingest.picture.jpeg_metadata import strip_metadata
from tests.ingest.material import encoded, photo


def decoded(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


def with_metadata(**options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "PLANTED-DESCRIPTION"
    exif[0x8825] = {1: "N", 2: (48.0, 51.0, 30.0)}
    return encoded(photo(1), "JPEG", exif=exif, comment=b"PLANTED-COMMENT", icc_profile=b"PLANTED-ICC" * 9, **options)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 2}, {"quality": 10, "restart_marker_rows": 1}]
)
def test_pixels_stay_and_metadata_goes(options: dict[str, Any]) -> None:
    data = with_metadata(**options) + b"PLANTED-TRAILER"
    assert data.count(b"PLANTED") >= 4
    stripped = strip_metadata(data)
    assert stripped is not None
    assert b"PLANTED" not in stripped
    np.testing.assert_array_equal(decoded(stripped), decoded(data))
    with Image.open(io.BytesIO(stripped)) as image:
        assert not image.getexif()
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "progressive", "progression"}


def test_rgb_jpegs_keep_the_marker_that_says_so() -> None:
    data = encoded(photo(2), "JPEG", keep_rgb=True)
    stripped = strip_metadata(data)
    assert stripped is not None
    np.testing.assert_array_equal(decoded(stripped), decoded(data))


def test_gray_jpeg() -> None:
    data = encoded(photo(3, channels=1), "JPEG", comment=b"PLANTED")
    stripped = strip_metadata(data)
    assert stripped is not None
    assert b"PLANTED" not in stripped
    np.testing.assert_array_equal(decoded(stripped), decoded(data))


@pytest.mark.parametrize("cut", [2, 30, 200, 600, -2])
def test_cut_files_are_left_to_the_encoder(cut: int) -> None:
    assert strip_metadata(encoded(photo(4), "JPEG")[:cut]) is None


def test_cmyk_and_other_formats_are_left_to_the_encoder() -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo(5)).convert("CMYK").save(buffer, "JPEG")
    assert strip_metadata(buffer.getvalue()) is None
    assert strip_metadata(encoded(photo(5), "PNG")) is None
