"""Pictures behind the first one of a JPEG (Multi-Picture Format, CIPA DC-007).

Cameras write several of equal rank there (stereo pairs, panoramas), and far more often previews, depth maps and gain
maps, which are no pictures of their own. The index of the file tells them apart by a type.
"""

from __future__ import annotations

import io
from typing import Any, Final, NamedTuple

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

__all__ = ["Picture", "further_pictures", "open_jpeg"]

_ENTRIES: Final = 0xB002
_OF_EQUAL_RANK: Final = ("Baseline MP Primary Image", "Multi-Frame Image")
_BROKEN: Final = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError)


class Picture(NamedTuple):
    """A picture behind the first.

    Attributes:
        frame: Its number, as `p0001`.
        place: Where its JPEG lies in the file.
        fault: Reason for which it is no image of its own; empty for one of the rank of the first.
        detail: More of that reason.
    """

    frame: str
    place: slice
    fault: str = ""
    detail: str = ""


def further_pictures(data: bytes) -> list[Picture]:
    """The pictures behind the first of an MPO file, by its index and their headers; none is decoded."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        size, entries = image.size, getattr(image, "mpinfo", {}).get(_ENTRIES, ())
        return [_picture(image, number, entry, data, size) for number, entry in enumerate(entries) if number]


def _picture(image: Any, number: int, entry: Any, data: bytes, size: tuple[int, int]) -> Picture:
    frame, place = f"p{number:04d}", slice(0, 0)
    try:
        image.seek(number)
        place = slice(image.offset, image.offset + int(entry["Size"]))
        with open_jpeg(data[place]) as picture:
            has_its_size = picture.size == size
    except _BROKEN as error:
        return Picture(frame, place, "undecodable", type(error).__name__)
    if not str(entry["Attribute"]["MPType"]).startswith(_OF_EQUAL_RANK):
        return Picture(frame, place, "other_object", "a preview, a map or of no stated type, by the MPO file's index")
    if not has_its_size:
        return Picture(frame, place, "other_object", "not of the size of the MPO file's first picture")
    return Picture(frame, place)


def open_jpeg(data: bytes) -> JpegImageFile:
    """A single JPEG; an index of further pictures in it is not followed."""
    return JpegImageFile(io.BytesIO(data))
