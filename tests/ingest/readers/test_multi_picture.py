"""JPEGs with further pictures behind the first: stereo pairs are images, previews and gain maps are rejects."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ingest.picture.normalise import to_picture
from ingest.raw.items import RawFile
from ingest.readers import RawImage, ReadOptions, handles, reader_for
from ingest.readers.multi_picture import further_pictures
from ingest.source.layout import FrameRule
from tests.ingest.material import photo

UNDEFINED, THUMBNAIL, PANORAMA, DISPARITY, ANGLE, PRIMARY = 0, 0x010001, 0x020001, 0x020002, 0x020003, 0x030000


def mpo(*kinds: int, height: int = 96, orientation: int = 0) -> bytes:
    """A file of a picture of 96 rows, and behind it one of `height` rows for each type."""
    pictures = [Image.fromarray(photo(n, height=height if n else 96)) for n in range(len(kinds) + 1)]
    options: dict[str, Any] = {}
    if orientation:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    buffer = io.BytesIO()
    pictures[0].save(buffer, "MPO", save_all=True, append_images=pictures[1:], **options)
    data = bytearray(buffer.getvalue())
    start = data.index(struct.pack("<LL", PRIMARY, data.index(b"\xff\xd9\xff\xd8") + 2))
    for number, kind in enumerate(kinds, 1):
        struct.pack_into("<L", data, start + 16 * number, kind)
    return bytes(data)


def images(data: bytes, name: str = "a.jpg", **options: Any) -> list[RawImage]:
    return list(reader_for("auto", name)(RawFile.of_bytes(data, name), ReadOptions(**options)))


def told(data: bytes, **options: Any) -> list[tuple[str, str]]:
    return [(image.frame, image.fault) for image in images(data, **options)]


@pytest.mark.parametrize("kind", [PANORAMA, DISPARITY, ANGLE, PRIMARY])
@pytest.mark.parametrize("name", ["a.jpg", "a.MPO"])
def test_pictures_of_equal_rank_are_images(kind: int, name: str) -> None:
    assert handles("auto", name)
    found = images(mpo(kind, kind), name, straight=True)
    assert [image.frame for image in found] == ["p0000", "p0001", "p0002"]
    for number, image in enumerate(found):
        assert np.abs(to_picture(image).astype(int) - photo(number)).mean() < 6
    assert [image.part_of_volume for image in found] == [True] * 3
    further = found[1].jpeg
    assert further is not None
    assert Image.open(io.BytesIO(further)).size == (128, 96)
    assert told(mpo(kind, kind), frames=FrameRule(max_frames=1)) == [("p0001", "")]


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (mpo(UNDEFINED), "no stated type"),
        (mpo(THUMBNAIL), "a preview"),
        (mpo(DISPARITY, height=48), "size"),
    ],
)
def test_previews_and_maps_are_rejects_beside_the_picture(data: bytes, detail: str) -> None:
    first, other = images(data)
    assert (first.frame, first.fault, first.part_of_volume) == ("", "", False)
    assert (other.frame, other.fault) == ("p0001", "other_object")
    assert detail in other.detail


def test_every_picture_is_turned_as_it_says_itself() -> None:
    data = mpo(DISPARITY, orientation=6)
    start = data.index(b"\xff\xd9\xff\xd8")
    own = data.index(b"Exif", start)
    for turned, shapes in (
        (data, {(128, 96, 3)}),
        (data[:own] + b"exif" + data[own + 4 :], {(128, 96, 3), (96, 128, 3)}),
    ):
        assert {image.pixels.shape for image in images(turned)} == shapes


def test_a_damaged_further_picture_costs_itself_alone() -> None:
    data = mpo(DISPARITY, DISPARITY)
    (second, third) = further_pictures(data)
    half = (third.place.start + len(data)) // 2
    assert told(data[:half]) == [("p0000", ""), ("p0001", ""), ("p0002", "undecodable")]
    assert told(data[: third.place.start]) == [("p0000", ""), ("p0001", ""), ("p0002", "undecodable")]
    assert told(data[: second.place.start]) == [("", ""), ("p0001", "undecodable"), ("p0002", "undecodable")]
