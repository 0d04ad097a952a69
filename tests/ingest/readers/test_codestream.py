"""Sizes out of codestream headers, compared with what the encoders were given."""

from __future__ import annotations

import imagecodecs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.readers.codestream import codestream_size, has_endless_box
from tests.ingest.material import encoded, photo

GRAY = photo(0, height=37, width=53, channels=1)
STREAMS = {
    "jpeg": encoded(GRAY, "JPEG"),
    "progressive jpeg": encoded(GRAY, "JPEG", progressive=True),
    "jpeg with a comment": encoded(GRAY, "JPEG", comment=b"x" * 999),
    "j2k": encoded(GRAY, "JPEG2000", no_jp2=True),
    "jp2": encoded(GRAY, "JPEG2000"),
    "jpeg-ls": bytes(imagecodecs.jpegls_encode(GRAY)),
    "lossless jpeg": bytes(imagecodecs.ljpeg_encode(GRAY)),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_sizes_are_those_of_the_picture(kind: str) -> None:
    assert codestream_size(STREAMS[kind]) == (37, 53)
    assert codestream_size(STREAMS[kind][:12]) is None


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", encoded(GRAY, "PNG"), bytes(100)])
def test_what_is_no_codestream_has_no_size(data: bytes) -> None:
    assert codestream_size(data) is None


@pytest.mark.parametrize("length", [0, 1, 7])
def test_a_box_without_a_length_is_endless(length: int) -> None:
    whole = STREAMS["jp2"]
    assert not any(has_endless_box(data) for data in STREAMS.values())
    assert not has_endless_box(whole[:12])
    assert has_endless_box(whole[:12] + length.to_bytes(4, "big") + whole[16:])
    assert has_endless_box(whole[:12] + bytes(3))


@given(st.sampled_from(sorted(STREAMS)), st.data())
def test_any_damage_gives_a_size_or_none(kind: str, draw: st.DataObject) -> None:
    data = bytearray(STREAMS[kind][: draw.draw(st.integers(0, 400))])
    for _ in range(draw.draw(st.integers(0, 6)) if data else 0):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    assert has_endless_box(bytes(data)) in (True, False)
    size = codestream_size(bytes(data))
    assert size is None or (size[0] >= 0 and size[1] >= 0)
