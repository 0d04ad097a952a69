"""TIFF: pages, planes, colours, and what of a slide is no tissue."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from ingest.picture.normalise import to_picture
from ingest.raw.items import RawFile, RejectError
from ingest.readers import RawImage, ReadOptions
from ingest.readers.images import read
from ingest.source.layout import FrameRule
from tests.ingest.material import photo


def images(data: bytes, **options: Any) -> list[RawImage]:
    return list(read(RawFile.of_bytes(data, "a.tif"), ReadOptions(**options)))


def told(data: bytes) -> list[tuple[str, str]]:
    return [(image.frame, image.fault and f"{image.fault} {image.detail}") for image in images(data)]


def by_pillow(pixels: Any, mode: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "TIFF", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mode", "options", "error"),
    [
        ("YCbCr", {"compression": "tiff_lzw"}, 2),
        ("YCbCr", {"compression": "jpeg", "quality": 95}, 4),
        ("YCbCr", {}, 2),
        ("LAB", {}, 8),
    ],
)
def test_colour_spaces_come_out_in_the_colours_that_they_show(mode: str, options: dict[str, Any], error: float) -> None:
    smooth = np.asarray(Image.fromarray(photo(3)).resize((12, 9)).resize((128, 96)))
    (image,) = images(by_pillow(smooth, mode, **options))
    assert np.abs(image.pixels.astype(int) - smooth).mean() < error


def test_tiles_of_one_pixel_are_not_begun() -> None:
    tags = {
        256: (4, 16_000),
        257: (4, 16_000),
        258: (3, 8),
        259: (3, 1),
        262: (3, 1),
        277: (3, 1),
        322: (4, 1),
        323: (4, 1),
        324: (4, 8),
        325: (4, 8),
    }
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in tags.items())
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    with pytest.raises(RejectError, match="tiles of a page") as caught:
        images(data)
    assert caught.value.reason == "over_budget"


def stack(count: int = 7) -> Any:
    rng = np.random.default_rng(1)
    return rng.integers(0, 4000, (count, 40, 56), dtype=np.uint16)


@pytest.mark.parametrize("options", [{"imagej": True}, {}])
def test_planes_behind_a_single_directory_are_all_met(options: dict[str, Any]) -> None:
    planes, buffer = stack(), io.BytesIO()
    tifffile.imwrite(buffer, planes, truncate=True, metadata={"axes": "ZYX"}, **options)
    found = images(buffer.getvalue())
    assert [image.frame for image in found] == [f"p{number:04d}" for number in range(7)]
    for image, plane in zip(found, planes, strict=True):
        np.testing.assert_array_equal(image.pixels, plane)
    some = images(buffer.getvalue(), frames=FrameRule(every=3))
    assert [image.frame for image in some] == ["p0000", "p0003", "p0006"]
    cut = told(buffer.getvalue()[: -planes[0].nbytes * 2])
    assert cut[-1] == ("p0005", "missing_frames 2 of 7 stated planes are not in the file")
    assert len(cut) == 6


def pages(*entries: tuple[Any, dict[str, Any]], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, **options) as tiff:
        for pixels, more in entries:
            tiff.write(pixels, photometric="rgb", metadata=None, **more)
    return buffer.getvalue()


APERIO = "Aperio Image Library v10.0.50\r\n"


def test_label_and_macro_pages_of_aperio_are_told_and_never_pictures() -> None:
    data = pages(
        (photo(1), {"description": f"{APERIO}128x96 [0,0 128x96] (64x64) J2K/KDU Q=70|AppMag = 20"}),
        (photo(2), {"description": f"{APERIO}label 128x96"}),
        (photo(3), {"description": f"{APERIO}macro 128x96", "subfiletype": 9}),
    )
    assert told(data) == [("p0001", "slide_label label"), ("p0002", "slide_label macro"), ("", "")]
    np.testing.assert_array_equal(images(data)[2].pixels, photo(1))


def test_smaller_levels_of_aperio_are_no_pictures() -> None:
    data = pages(
        (photo(1), {"description": f"{APERIO}128x96 [0,0 128x96] (64x64) J2K/KDU Q=70|AppMag = 20"}),
        (photo(1)[::4, ::4], {"description": f"{APERIO}128x96 -> 32x24 - |AppMag = 20"}),
        (photo(1)[::2, ::2], {"description": f"{APERIO}128x96 [0,0 128x96] (64x64) -> 64x48 JPEG/RGB Q=70|MPP = 0.5"}),
        (photo(2), {"description": f"{APERIO}128x96 [0,0 128x96] (64x64) JPEG/RGB Q=70|Note = a -> 5x5"}),
    )
    found = [image for image in images(data) if not image.fault]
    assert [image.frame for image in found] == ["p0000", "p0001"]
    np.testing.assert_array_equal(found[1].pixels, photo(2))


def test_label_and_macro_pages_of_philips() -> None:
    xml = '<DataObject ObjectType="DPUfsImport"></DataObject>'
    data = pages(
        (photo(1), {"description": xml, "software": "Philips DP v1.0"}),
        (photo(2), {"description": "Macro", "software": "Philips DP v1.0"}),
        (photo(3), {"description": "Label", "software": "Philips DP v1.0"}),
    )
    assert told(data) == [("p0001", "slide_label macro"), ("p0002", "slide_label label"), ("", "")]


def test_smaller_copies_and_masks_of_a_page_are_no_pictures() -> None:
    """`NewSubfileType` 1 and 4 (TIFF 6.0, section 8)."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as tiff:
        tiff.write(photo(1), photometric="rgb", metadata=None)
        tiff.write(photo(1)[::4, ::4], photometric="rgb", metadata=None, subfiletype=1)
        tiff.write(photo(2, channels=1) > 127, photometric="minisblack", metadata=None, subfiletype=4)
        tiff.write(photo(3), photometric="rgb", metadata=None, subfiletype=2)
    found = images(buffer.getvalue())
    assert [image.frame for image in found] == ["p0000", "p0001"]
    np.testing.assert_array_equal(found[1].pixels, photo(3))


def test_named_images_of_ome() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, ome=True) as tiff:
        for number, name in enumerate(("region 1", "label image", "macro image", "macrophages")):
            tiff.write(photo(number), photometric="rgb", metadata={"axes": "YXS", "Name": name})
    assert told(buffer.getvalue()) == [
        *(("p0001", "slide_label label"), ("p0002", "slide_label macro"), ("p0000", ""), ("p0001", ""))
    ]


def test_macro_pages_of_hamamatsu() -> None:
    lens = [(65420, "I", 1, 1, True)]
    data = pages(
        (photo(1), {"extratags": [*lens, (65421, "f", 1, 20.0, True)]}),
        (photo(2), {"extratags": [*lens, (65421, "f", 1, -1.0, True)]}),
    )
    assert ("p0001", "slide_label macro") in told(data)


def test_words_that_only_sound_alike_are_pictures() -> None:
    data = pages((photo(1), {"description": "label-free imaging"}), (photo(2), {"description": "macrophages"}))
    assert told(data) == [("p0000", ""), ("p0001", "")]


def test_nothing_but_a_label_gives_no_picture() -> None:
    assert told(pages((photo(1), {"description": "Label"}))) == [("p0000", "slide_label label")]


def test_a_broken_page_costs_that_page() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as tiff:
        for number in range(3):
            tiff.write(photo(number), photometric="rgb", compression="zlib", metadata=None)
    with tifffile.TiffFile(io.BytesIO(buffer.getvalue())) as tiff:
        start = tiff.pages[1].dataoffsets[0]
    data = bytearray(buffer.getvalue())
    data[start : start + 40] = bytes(40)
    found = images(bytes(data))
    assert [image.fault for image in found] == ["", "undecodable", ""]


def test_channels_that_are_no_colours_are_planes() -> None:
    rng = np.random.default_rng(0)
    five = rng.integers(0, 999, (40, 56, 5), dtype=np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, five, photometric="minisblack", planarconfig="contig", metadata=None)
    found = images(buffer.getvalue())
    assert [image.frame for image in found] == [f"z{number:04d}" for number in range(5)]
    np.testing.assert_array_equal(found[4].pixels, five[..., 4])


def test_white_is_zero_of_signed_values() -> None:
    pixels = np.arange(-2000, 2000, dtype=np.int16).reshape(50, 80)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="miniswhite", metadata=None)
    picture = to_picture(images(buffer.getvalue())[0])
    assert picture[0, 0] == 255
    assert picture[-1, -1] == 0


def test_what_is_no_tiff_is_unreadable() -> None:
    with pytest.raises(RejectError):
        images(b"II*\0" + bytes(40))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", ["contig", "separate"])
def test_only_colours_that_are_not_weighted_by_their_opacity_are_laid_over_black(
    dtype: Any, channels: int, layout: str
) -> None:
    top = 1 if dtype is np.float32 else np.iinfo(dtype).max
    pixels = (photo(3, channels=channels).reshape(96, 128, channels) / 255 * top).astype(dtype)
    alpha = (np.random.default_rng(0).random((96, 128, 1)) * top).astype(dtype)
    stored = np.dstack([pixels, alpha])
    for kind, shown in {"unassalpha": pixels * (alpha / np.float64(top)), "assocalpha": pixels}.items():
        buffer = io.BytesIO()
        tifffile.imwrite(
            buffer,
            np.moveaxis(stored, -1, 0) if layout == "separate" else stored,
            photometric="rgb" if channels == 3 else "minisblack",
            planarconfig=layout,
            extrasamples=[kind],
        )
        (image,) = images(buffer.getvalue())
        np.testing.assert_allclose(image.pixels.reshape(96, 128, -1), shown, atol=top / 255)


def test_the_planes_of_a_stack_are_laid_over_black() -> None:
    stack = np.stack([np.dstack([photo(number), np.full((96, 128), 51, np.uint8)]) for number in range(3)])
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, stack, photometric="rgb", extrasamples=["unassalpha"], truncate=True)
    found = images(buffer.getvalue())
    np.testing.assert_allclose([image.pixels for image in found], stack[..., :3] / 5, atol=0.5)
