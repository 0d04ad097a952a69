"""A JPEG that is re-assembled keeps its pixels and nothing else."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ingest.picture.jpeg_parts import reassemble
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
    stripped = reassemble(data)
    assert stripped is not None
    assert b"PLANTED" not in stripped
    np.testing.assert_array_equal(decoded(stripped), decoded(data))
    with Image.open(io.BytesIO(stripped)) as image:
        assert not image.getexif()
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "progressive", "progression"}


def test_rgb_jpegs_keep_the_marker_that_says_so() -> None:
    data = encoded(photo(2), "JPEG", keep_rgb=True)
    stripped = reassemble(data)
    assert stripped is not None
    np.testing.assert_array_equal(decoded(stripped), decoded(data))


def test_gray_jpeg() -> None:
    data = encoded(photo(3, channels=1), "JPEG", comment=b"PLANTED")
    stripped = reassemble(data)
    assert stripped is not None
    assert b"PLANTED" not in stripped
    np.testing.assert_array_equal(decoded(stripped), decoded(data))


@pytest.mark.parametrize("cut", [2, 30, 200, 600, -2])
def test_cut_files_are_left_to_the_encoder(cut: int) -> None:
    assert reassemble(encoded(photo(4), "JPEG")[:cut]) is None


def test_cmyk_and_other_formats_are_left_to_the_encoder() -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo(5)).convert("CMYK").save(buffer, "JPEG")
    assert reassemble(buffer.getvalue()) is None
    assert reassemble(encoded(photo(5), "PNG")) is None


VARIANTS: list[dict[str, Any]] = [
    *({}, {"progressive": True}, {"optimize": True}, {"subsampling": 2}, {"restart_marker_rows": 1}),
    {"restart_marker_blocks": 3, "subsampling": 1},
]


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("hidden", [b"J", b"JD", b"JaneDoe", b"Jane Doe, born 1947", b"\xff\0", b"\0" * 3])
def test_bytes_behind_the_last_mcu_send_the_file_to_the_encoder(options: dict[str, Any], hidden: bytes) -> None:
    data = encoded(photo(6), "JPEG", **options)
    assert reassemble(data) is not None
    assert reassemble(data[:-2] + hidden + data[-2:]) is None


@pytest.mark.parametrize("hidden", [b"J", b"JaneDoe"])
def test_bytes_before_a_restart_or_another_scan_do_likewise(hidden: bytes) -> None:
    restarts = encoded(photo(6), "JPEG", restart_marker_rows=1)
    at = restarts.index(b"\xff\xd3")
    assert reassemble(restarts[:at] + hidden + restarts[at:]) is None
    progressive = encoded(photo(6), "JPEG", progressive=True)
    second = progressive.index(b"\xff\xda", progressive.index(b"\xff\xda") + 2)
    before = progressive.rindex(b"\xff\xc4", 0, second)
    assert reassemble(progressive[:before] + hidden + progressive[before:]) is None


def test_tables_that_nothing_uses_and_fill_bytes_go() -> None:
    data = encoded(photo(7), "JPEG")
    text = b"PLANTED, JANE " * 5
    quant = b"\xff\xdb\0\x43\x03" + text[:64]
    huffman = b"\xff\xc4" + (2 + 17 + 20).to_bytes(2, "big") + b"\x03" + bytes([0] * 15 + [20]) + text[:20]
    planted = data[:20] + quant + huffman + data[20:-2] + b"\xff\xff\xff" + data[-2:]
    stripped = reassemble(planted)
    assert stripped is not None
    assert b"PLANTED" not in stripped
    assert stripped == reassemble(data)
    np.testing.assert_array_equal(decoded(stripped), decoded(planted))


def test_longer_headers_are_left_to_the_encoder() -> None:
    data = encoded(photo(7), "JPEG")
    at = data.index(b"\xff\xda")
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    longer = data[: at + 2] + (length + 4).to_bytes(2, "big") + data[at + 4 : at + 2 + length] + b"JANE"
    assert reassemble(longer + data[at + 2 + length :]) is None


@pytest.mark.slow
@given(st.binary(max_size=60), st.integers(0, 2000), st.integers(0, 60))
@settings(max_examples=300, deadline=None)
def test_any_change_of_a_file_gives_the_same_pixels_or_nothing(patch: bytes, at: int, dropped: int) -> None:
    """What is kept decodes without complaint, to the pixels of the file that it came from."""
    data = FILE[:at] + patch + FILE[at + dropped :]
    kept = reassemble(data)
    if kept is not None:
        assert len(kept) <= len(data) + 18
        assert reassemble(kept) == kept
        try:
            pixels = simplejpeg.decode_jpeg(data, "RGB")
        except ValueError:
            return
        np.testing.assert_array_equal(simplejpeg.decode_jpeg(kept, "RGB"), pixels)


FILE = encoded(photo(8)[:32, :32], "JPEG")
