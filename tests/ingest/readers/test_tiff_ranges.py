"""One range for the gray pages of a stack, one for each channel of a microscope."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tifffile

from ingest.picture.normalise import to_picture
from ingest.raw.items import RawFile
from ingest.readers import RawImage, ReadOptions
from ingest.readers.base import percentile_range
from ingest.readers.images import read
from ingest.readers.tiff_ranges import channels_of
from ingest.source.layout import Window
from tests.ingest.material import photo

DIM, BRIGHT = 100, 4000


def images(data: bytes, **options: Any) -> list[RawImage]:
    return list(read(RawFile.of_bytes(data, "a.tif"), ReadOptions(**options)))


def saved(planes: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, planes, **{"photometric": "minisblack", **options})
    return buffer.getvalue()


def volume() -> Any:
    """Six slices, the first one without signal."""
    rng = np.random.default_rng(0)
    tops = np.array([DIM, BRIGHT, BRIGHT, BRIGHT, BRIGHT, BRIGHT]).reshape(-1, 1, 1)
    return (rng.random((6, 40, 56)) * tops).astype(np.uint16)


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": None},
        {"metadata": None, "compression": "zlib"},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"imagej": True, "metadata": {"axes": "ZYX"}, "truncate": True},
        {"truncate": True},
    ],
)
def test_a_slice_without_signal_stays_dark(options: dict[str, Any]) -> None:
    planes = volume()
    found = images(saved(planes, **options))
    assert {(image.low, image.high) for image in found} == {percentile_range(planes)}
    assert to_picture(found[0]).max() < 10
    assert to_picture(found[1]).max() == 255


@pytest.mark.parametrize("truncate", [True, False])
def test_each_channel_has_a_range_of_its_own(*, truncate: bool) -> None:
    slices = np.stack([volume() // 10, volume()], axis=1)
    data = saved(slices, imagej=True, metadata={"axes": "ZCYX"}, truncate=truncate)
    found = images(data)
    assert len(found) == 12
    for channel in (0, 1):
        assert {(i.low, i.high) for i in found[channel::2]} == {percentile_range(slices[:, channel])}


def test_pages_of_another_size_and_single_pages_have_their_own() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as tiff:
        for plane in (volume()[0], volume()[1, :30]):
            tiff.write(plane, photometric="minisblack", metadata=None)
    first, second = images(buffer.getvalue())
    assert (first.low, first.high) == percentile_range(volume()[0])
    assert (second.low, second.high) == percentile_range(volume()[1, :30])
    (alone,) = images(saved(volume()[0], metadata=None))
    assert (alone.low, alone.high) == percentile_range(volume()[0])


def test_a_window_of_the_source_comes_first_and_bytes_need_no_range() -> None:
    found = images(saved(volume(), metadata=None), window=Window(center=50, width=100))
    assert {(image.low, image.high, image.windowed) for image in found} == {(0, 100, True)}
    gray = np.stack([photo(seed, channels=1) for seed in range(3)])
    assert {(image.low, image.high) for image in images(saved(gray, metadata=None))} == {(None, None)}


def test_a_broken_page_counts_for_nothing() -> None:
    planes = volume()
    data = bytearray(saved(planes, metadata=None, compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
        start = tiff.pages[2].dataoffsets[0]
    data[start : start + 40] = bytes(40)
    found = images(bytes(data))
    assert [image.fault for image in found] == ["", "", "undecodable", "", "", ""]
    sound = np.delete(planes, 2, axis=0)
    assert (found[0].low, found[0].high) == percentile_range(sound)


def test_files_that_say_nothing_of_axes_have_one_channel() -> None:
    assert channels_of(object(), 3) == [0, 0, 0]
