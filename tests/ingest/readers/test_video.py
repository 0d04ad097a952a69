"""Videos: how frames are shown, and which are taken."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ingest.raw.items import RawFile
from ingest.readers import RawImage, ReadOptions
from ingest.readers.video import _Clock, _turned, read
from ingest.source.layout import FrameRule

av = pytest.importorskip("av")


def scene() -> Any:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return np.asarray(small.resize((128, 96), Image.Resampling.BICUBIC))


def film(*, sar: Fraction | None = None, times: Any = range(10), rate: int = 10) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=rate, options={"qscale": "2"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 128, 96, "yuv420p", 4_000_000
        stream.codec_context.gop_size = 1
        if sar:
            stream.codec_context.sample_aspect_ratio = sar
        for time in times:
            frame = av.VideoFrame.from_ndarray(scene(), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def images(data: bytes, **options: Any) -> list[RawImage]:
    return list(read(RawFile.of_bytes(data, "a.mkv"), ReadOptions(**options)))


@pytest.mark.parametrize(
    ("sar", "shape"), [(None, (96, 128)), (Fraction(2, 1), (96, 256)), (Fraction(1, 2), (192, 128))]
)
def test_pixels_are_made_square(sar: Fraction | None, shape: tuple[int, int]) -> None:
    assert images(film(sar=sar))[0].pixels.shape[:2] == shape


class Data:
    def __init__(self, *matrix: int) -> None:
        a, b, c, d = (value * 65536 for value in matrix)
        self.type = type("Type", (), {"name": "DISPLAYMATRIX"})
        self._content = struct.pack("=9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)

    def __bytes__(self) -> bytes:
        return self._content


class Shown:
    def __init__(self, *matrix: int) -> None:
        self.side_data = [Data(*matrix)] if matrix else []


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((), lambda p: p),
        ((1, 0, 0, 1), lambda p: p),
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),  # clockwise, as phones that are held upright write it
        ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
        ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
        ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
        ((1, 0, 0, -1), lambda p: p[::-1]),
        ((0, 1, 1, 0), lambda p: np.swapaxes(p, 0, 1)),
        ((0, 0, 0, 0), lambda p: p),
    ],
)
def test_frames_are_turned_by_the_display_matrix(matrix: tuple[int, ...], turned: Any) -> None:
    pixels = np.arange(24).reshape(2, 4, 3)
    np.testing.assert_array_equal(_turned(pixels, Shown(*matrix)), turned(pixels))


def taken(times: Any, **rule: Any) -> list[int]:
    clock = _Clock(interval=1.0, frame_seconds=0.1)
    return [number for number, time in enumerate(times) if clock.is_due(time)]


def test_a_pause_is_followed_by_one_frame_and_then_the_usual_interval() -> None:
    before, after = [n / 10 for n in range(20)], [100 + n / 10 for n in range(25)]
    assert taken(before + after) == [0, 10, 20, 30, 40]


def test_time_stamps_that_begin_anew_or_are_missing() -> None:
    assert taken([n / 10 for n in range(20)] * 2) == [0, 10, 20, 30]
    assert taken([None] * 25) == [0, 10, 20]
    assert taken([5 + n / 10 for n in range(25)]) == [0, 10, 20]


def test_a_film_with_a_pause(tmp_path: Path) -> None:
    found = images(film(times=[*range(20), *range(500, 520)]))
    assert [image.frame for image in found] == ["f000000", "f000010", "f000020", "f000030"]
    two = images(film(times=range(40)), frames=FrameRule(max_frames=2))
    assert [image.frame for image in two] == ["f000000", "f000010"]


def test_a_broken_packet_costs_its_frames_alone() -> None:
    data = bytearray(film(times=range(30)))
    with av.open(io.BytesIO(bytes(data))) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    start = bytes(data).index(packets[15])
    data[start : start + len(packets[15])] = bytes(len(packets[15]))
    found = images(bytes(data))
    good = [image for image in found if not image.fault]
    assert len(good) == 3
    assert all(image.detail == "1 packets of the video" for image in found if image.fault)
