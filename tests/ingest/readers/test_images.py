"""Ordinary image files: orientation, depth, palettes, pages, and what is no image."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from ingest.picture.encoding import Encoding
from ingest.picture.normalise import encode, reduce, scale_to_8bit, to_picture
from ingest.raw.items import RawFile, RejectError
from ingest.readers import RawImage, ReadOptions, handles, reader_for
from ingest.readers.images import read
from ingest.settings import LimitSettings
from tests.ingest.material import encoded, photo


def images(data: bytes, name: str = "x.png", **options: Any) -> list[RawImage]:
    return list(read(RawFile.of_bytes(data, name), ReadOptions(**options)))


def pictures(data: bytes) -> list[Any]:
    return [to_picture(image) for image in images(data)]


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_give_their_pixels(format_: str, channels: int) -> None:
    pixels = photo(1, channels=channels)
    options = {"lossless": True} if format_ == "WEBP" else {}
    (picture,) = pictures(encoded(pixels, format_, **options))
    np.testing.assert_array_equal(picture, pixels)


def test_gif_frames_are_images() -> None:
    frames = [Image.fromarray(photo(seed, channels=1)) for seed in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    found = images(buffer.getvalue(), "x.gif")
    assert [image.frame for image in found] == ["p0000", "p0001", "p0002"]
    for image, frame in zip(found, frames, strict=True):
        np.testing.assert_array_equal(to_picture(image), np.asarray(frame))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF"])
def test_orientation_is_applied_before_anything_else(orientation: int, format_: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = Image.fromarray(photo(2))
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that `orientation` asks a viewer to undo
    stored = upright.transpose(Image.Transpose(turn[orientation])) if orientation > 1 else upright
    buffer = io.BytesIO()
    if format_ == "TIFF":
        tifffile.imwrite(buffer, np.asarray(stored), photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    else:
        stored.save(buffer, format_, exif=exif, **({"quality": 100, "subsampling": 0} if format_ == "JPEG" else {}))
    (image,) = images(buffer.getvalue())
    picture = to_picture(image)
    assert picture.shape == (96, 128, 3)
    assert np.abs(picture.astype(int) - np.asarray(upright)).max() <= (12 if format_ == "JPEG" else 0)
    assert (image.jpeg is not None) == (format_ == "JPEG" and orientation == 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_deep_pngs_are_turned_like_all_others(orientation: int, channels: int) -> None:
    stored = np.random.default_rng(0).integers(0, 65536, (96, 128, channels), dtype=np.uint16)
    stored[..., 3:] = 65535
    shallow = Image.fromarray((stored[..., 0] >> 8).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    shallow.getexif()[0x0112] = orientation
    data = deep_png(stored) if channels > 1 else encoded(stored[..., 0])
    turned = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    for at in (33, len(data) - 12):  # before the pixels, and behind them
        (image,) = images(data[:at] + turned + data[at:])
        first = image.pixels if image.pixels.ndim == 2 else image.pixels[..., 0]
        np.testing.assert_array_equal(first >> 8, np.asarray(ImageOps.exif_transpose(shallow)))


def test_sixteen_bit_gray_is_spread_over_its_percentiles_not_clipped() -> None:
    pixels = (np.linspace(1000, 5000, 96 * 128).reshape(96, 128)).astype(np.uint16)
    for data in (encoded(pixels), _tiff(pixels), _tiff(pixels, bigtiff=True)):
        (image,) = images(data)
        assert image.bit_depth == 16
        picture = to_picture(image)
        assert (picture.min(), picture.max()) == (0, 255)
        assert 120 < picture.mean() < 135


def test_float_tiff_with_nan() -> None:
    pixels = np.linspace(-3, 5, 96 * 128, dtype=np.float32).reshape(96, 128).copy()
    pixels[0, 0] = np.nan
    (picture,) = pictures(_tiff(pixels))
    assert picture[0, 0] == 0
    assert picture.max() == 255


def test_palette_transparency_bilevel_and_gray_in_rgb() -> None:
    pixels = photo(3)
    palette = Image.fromarray(pixels).quantize(256)
    np.testing.assert_array_equal(pictures(_save(palette))[0], np.asarray(palette.convert("RGB")))
    clear = Image.fromarray(np.dstack([pixels, np.zeros((96, 128), np.uint8)]), "RGBA")
    assert not pictures(_save(clear))[0].any()
    gray = photo(4, channels=1)
    assert pictures(encoded(np.dstack([gray] * 3)))[0].shape == (96, 128)
    bits = Image.fromarray(gray).convert("1")
    np.testing.assert_array_equal(pictures(_save(bits))[0], np.asarray(bits).astype(np.uint8) * 255)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
def test_what_is_transparent_is_black_in_every_format(format_: str, channels: int) -> None:
    pixels = photo(3, channels=channels).reshape(96, 128, channels)
    alpha = np.random.default_rng(0).integers(0, 256, (96, 128, 1), dtype=np.uint8)
    alpha[:20] = 0
    if format_ == "WEBP" and channels == 1:
        pixels, channels = np.repeat(pixels, 3, axis=2), 3
    image = Image.fromarray(np.dstack([pixels, alpha]), "LA" if channels == 1 else "RGBA")
    buffer = io.BytesIO()
    image.save(buffer, format_, **({"lossless": True, "exact": True} if format_ == "WEBP" else {}))
    (picture,) = pictures(buffer.getvalue())
    np.testing.assert_allclose(picture.reshape(96, 128, -1)[..., :1], (pixels * (alpha / 255.0))[..., :1], atol=1)
    assert not picture[:20].any()


def test_a_level_or_colour_that_stands_for_transparent_is_black() -> None:
    gray = photo(4, channels=1)
    level = int(np.bincount(gray.ravel()).argmax())
    expected = np.where(gray == level, 0, gray)
    np.testing.assert_array_equal(pictures(encoded(gray, transparency=level))[0], expected)
    colour = photo(5)
    clear = (int(colour[3, 4, 0]), int(colour[3, 4, 1]), int(colour[3, 4, 2]))
    (picture,) = pictures(encoded(colour, transparency=clear))
    np.testing.assert_array_equal(picture, np.where((colour == clear).all(axis=2, keepdims=True), 0, colour))


def test_the_bit_depth_is_that_of_the_stored_samples() -> None:
    gray = photo(4, channels=1)
    words = gray.astype(np.uint16) << 4
    bilevel, palette = Image.fromarray(gray).convert("1"), Image.fromarray(photo(3)).quantize(4)
    pgm = b"P5\n# a comment\n128 96\n4095\n" + words.astype(">u2").tobytes()
    files = {
        "1.png": (1, _save(bilevel)),
        "palette.png": (8, _save(palette)),
        "8.png": (8, encoded(gray)),
        "16.png": (16, encoded(words)),
        "colour.png": (16, deep_png(np.dstack([words] * 3))),
        "1.pbm": (1, encoded(gray > 99, "PPM")),
        "8.pgm": (8, encoded(gray, "PPM")),
        "12.pgm": (12, pgm),
        "1.tiff": (1, _tiff(gray > 99)),
        "12.tiff": (12, _tiff(words, bitspersample=12)),
        "16.tiff": (16, _tiff(words)),
        "32.tiff": (32, _tiff(words.astype(np.float32))),
        "8.jpg": (8, encoded(gray, "JPEG")),
        "8.gif": (8, encoded(gray, "GIF")),
    }
    for name, (bits, data) in files.items():
        assert [image.bit_depth for image in images(data, name)] == [bits], name


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_bit_depth_of_jpeg_2000(bits: int, channels: int) -> None:
    import imagecodecs

    values = photo(4, channels=channels)
    pixels = values if bits == 8 else values.astype(np.uint16) << (bits - 8)
    data = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2", reversible=True, bitspersample=bits)
    assert [image.bit_depth for image in images(bytes(data), "x.jp2")] == [bits]


def test_pages_and_planes_of_a_tiff_are_images_but_thumbnails_are_not() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=True) as tiff:
        tiff.write(photo(5), photometric="rgb")
        tiff.write(photo(6), photometric="rgb")
        tiff.write(photo(6)[::4, ::4], photometric="rgb", subfiletype=1)
    assert [image.frame for image in images(buffer.getvalue())] == ["p0000", "p0001"]
    planar = io.BytesIO()
    tifffile.imwrite(planar, np.moveaxis(photo(7), -1, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(pictures(planar.getvalue())[0], photo(7))


def test_white_is_zero_tiffs_are_inverted() -> None:
    gray = photo(8, channels=1)
    np.testing.assert_array_equal(pictures(_tiff(gray, photometric="miniswhite"))[0], ~gray)


@pytest.mark.parametrize("data", [b"not an image", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0\x07", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image_is_unreadable(data: bytes) -> None:
    with pytest.raises((RejectError, OSError, SyntaxError)):
        images(data)


def test_truncated_jpeg_raises() -> None:
    data = encoded(photo(9), "JPEG")
    with pytest.raises(OSError, match="truncated"):
        images(data[: len(data) // 2])


def test_absurd_headers_are_bombs_before_decoding() -> None:
    data = encoded(np.zeros((2000, 2000), np.uint8))
    with pytest.raises(RejectError) as caught:
        images(data, limits=LimitSettings(max_pixels=1_000_000))
    assert caught.value.reason == "decompression_bomb"


def test_small_jpegs_keep_their_compressed_data_and_large_ones_do_not() -> None:
    data = encoded(photo(10), "JPEG", quality=60)
    (image,) = images(data)
    policy = Encoding(short_side_px=96)
    kept = encode(reduce(to_picture(image), policy), policy, jpeg=image.jpeg)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(kept.data))), to_picture(image))
    assert len(kept.data) < len(data) + 32
    small = Encoding(short_side_px=48)
    reduced = encode(reduce(to_picture(image), small), small, jpeg=image.jpeg)
    assert (reduced.width, reduced.height, reduced.channels) == (64, 48, 3)
    assert encode(reduce(to_picture(image), Encoding()), Encoding(format="png"), jpeg=image.jpeg).extension == "png"


def test_scale_to_8bit_rounds_half_up_and_clips() -> None:
    values = np.array([[-1, 0, 1, 2, 3, 4, 9]], np.int16)
    np.testing.assert_array_equal(scale_to_8bit(values, 0, 4), [[0, 0, 64, 128, 191, 255, 255]])
    np.testing.assert_array_equal(
        scale_to_8bit(values.clip(0, 9).astype(np.uint8), 0, 4), [[0, 0, 64, 128, 191, 255, 255]]
    )


def test_readers_go_by_name() -> None:
    assert handles("auto", "a.nii.gz")
    assert handles("auto", "IM000001")
    assert handles("auto", "1.2.840.113619.2.1")
    assert not handles("auto", "labels.csv")
    assert not handles("auto", ".DS_Store")
    assert not handles("images", "a.dcm")
    with pytest.raises(RejectError):
        reader_for("auto", "a.docx")


def _save(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _tiff(pixels: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    bigtiff = options.pop("bigtiff", False)
    tifffile.imwrite(buffer, pixels, bigtiff=bigtiff, **options)
    return buffer.getvalue()


def deep_png(pixels: Any) -> bytes:
    import cv2

    return bytes(cv2.imencode(".png", pixels[..., ::-1] if pixels.shape[2] == 3 else pixels[..., [2, 1, 0, 3]])[1])


def test_colour_of_sixteen_bits_keeps_its_levels() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 4096, (96, 128, 3), dtype=np.uint16)
    (image,) = images(deep_png(pixels))
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.bit_depth == 16
    assert len(np.unique(to_picture(image))) > 200
    clear = np.dstack([pixels, np.full((96, 128), 32768, np.uint16)])
    np.testing.assert_allclose(images(deep_png(clear))[0].pixels, pixels / 2, atol=1)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("format_", ["png", "tiff"])
def test_deep_colour_goes_from_black_to_white_by_its_bits(format_: str, bits: int) -> None:
    shades = np.linspace(0.2, 0.7, 96 * 128 * 3).reshape(96, 128, 3)
    pixels = np.round(shades * (2**bits - 1)).astype(np.uint16)
    (image,) = images(deep_png(pixels) if format_ == "png" else _tiff(pixels, photometric="rgb"), f"x.{format_}")
    np.testing.assert_allclose(to_picture(image), shades * 255, atol=1)


@pytest.mark.parametrize(("top", "white"), [(0, 255), (200, 255), (255, 255), (256, 1023), (1100, 4095)])
def test_the_brightest_sample_tells_the_bits_of_words_of_sixteen(top: int, white: int) -> None:
    pixels = np.linspace(0, top, 96 * 128 * 3).reshape(96, 128, 3).astype(np.uint16)
    for data in (deep_png(pixels), _tiff(pixels, photometric="rgb")):
        (image,) = images(data)
        assert (image.low, image.high) == (0, white)


def test_pages_of_deep_colour_share_their_range() -> None:
    pixels = np.linspace(0, 1100, 2 * 64 * 48 * 3).reshape(2, 64, 48, 3).astype(np.uint16)
    found = images(_tiff(pixels, photometric="rgb"))
    assert [(image.low, image.high) for image in found] == [(0, 4095)] * 2


def test_deep_gray_with_alpha_is_read_as_gray() -> None:
    gray = np.linspace(20_000, 40_000, 96 * 128).reshape(96, 128).astype(">u2")
    rows = b"".join(b"\0" + np.dstack([row, np.full_like(row, 65535)]).astype(">u2").tobytes() for row in gray)
    head = (128).to_bytes(4, "big") + (96).to_bytes(4, "big") + bytes([16, 4, 0, 0, 0])
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (image,) = images(data)
    np.testing.assert_array_equal(image.pixels, gray)
    assert to_picture(image).max() == 255


def test_colour_of_twelve_bits_in_jpeg_2000_keeps_its_levels() -> None:
    import imagecodecs

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 4096, (96, 128, 3), dtype=np.uint16)
    for kind in ("j2k", "jp2"):
        data = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat=kind, reversible=True, bitspersample=12)
        (image,) = images(bytes(data))
        assert image.pixels.dtype == np.uint16
        assert image.high == 4095
        dark = imagecodecs.jpeg2k_encode(pixels // 20, level=0, codecformat=kind, reversible=True, bitspersample=12)
        assert images(bytes(dark))[0].high == 4095
        assert np.corrcoef(image.pixels.ravel(), pixels.ravel())[0, 1] > 0.999


def chunk(kind: bytes, content: bytes, *, sound: bool = True) -> bytes:
    check = zlib.crc32(kind + content) ^ (0 if sound else 1)
    return len(content).to_bytes(4, "big") + kind + content + check.to_bytes(4, "big")


@pytest.mark.parametrize(
    "damage",
    [
        chunk(b"tEXt", b"A\0bc", sound=False),
        chunk(b"iCCP", b"name\0\0broken", sound=False),
        chunk(b"eXIf", b"Exif", sound=False),
        chunk(b"tEXt", b"A\0bc") + chunk(b"zTXt", b"x", sound=False),
        b"\x7f\xff\xff\xfftEXtA\0b",
        (2000).to_bytes(4, "big") + b"tEXtA\0bc\1\2\3\4",
    ],
)
def test_damaged_chunks_that_only_describe_cost_no_picture(damage: bytes) -> None:
    data = encoded(photo(3))
    (image,) = images(data[:33] + damage + data[33:])
    np.testing.assert_array_equal(image.pixels, photo(3))


def test_damaged_pixels_of_a_png_are_no_picture() -> None:
    data = encoded(photo(3))
    middle = data.index(b"IDAT") + 200
    broken = data[:middle] + bytes(400) + data[middle + 400 :]
    with pytest.raises((RejectError, OSError, SyntaxError)):
        images(broken)


def test_a_broken_frame_of_a_film_costs_that_frame() -> None:
    buffer = io.BytesIO()
    frames = [Image.fromarray(photo(number)).quantize(64) for number in range(4)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], disposal=2)
    assert [image.fault for image in images(buffer.getvalue())] == [""] * 4


def test_stated_frames_that_no_bytes_follow_are_one_reject() -> None:
    buffer = io.BytesIO()
    frames = [Image.fromarray(photo(number)) for number in range(3)]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    data = bytearray(buffer.getvalue())
    at = data.index(b"acTL")
    data[at + 4 : at + 8] = (2_000_000_000).to_bytes(4, "big")
    data[at + 12 : at + 16] = zlib.crc32(data[at : at + 12]).to_bytes(4, "big")
    assert [image.fault for image in images(bytes(data))] == ["", "", "", "undecodable", "undecodable"]


@pytest.mark.parametrize("start", [b"P6\n#", b"P6 3 #", b"P6\n3 3\n#", b"P1 #", b"P5 1"])
def test_the_header_of_a_pnm_has_an_end(start: bytes) -> None:
    with pytest.raises(RejectError, match="header"):
        images(start + b"0" * 70_000 + b"\n 3 3 255\n" + bytes(27))


@pytest.mark.parametrize("header", [b"P6 #c\n200 #d\n 200\n#e\n255\n", b"P6\n200 200\n255\n", b"P6\t200\r200 255 "])
def test_comments_in_the_header_of_a_pnm_are_skipped(header: bytes) -> None:
    (picture,) = pictures(header + photo(1, height=200, width=200).tobytes())
    assert picture.shape == (200, 200, 3)
