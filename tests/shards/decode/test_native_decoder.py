"""The native decoder: regions, vector kernels, threads, and what it does with bytes that are no image."""

from __future__ import annotations

import io
import mmap
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from shards.decode import Crops, Status, open_decoder
from shards.decode.base import MAX_SCANS
from shards.decode.native_decoder import NativeDecoder, NativeUnavailableError, load
from tests.shards.decode.images import (
    SIZES,
    blank,
    by_pillow,
    decode,
    jpeg,
    jpeg_kinds,
    picture,
    psnr,
)

try:
    load()
except NativeUnavailableError as error:
    pytest.skip(f"native decoder: {error}", allow_module_level=True)

MODES = ["fast", "exact"]
DINO = [Crops(num=2, scale=(0.32, 1.0), interpolation="bicubic"), Crops(num=8, size_px=96, scale=(0.05, 0.32))]


@pytest.fixture(scope="module")
def zoo() -> list[bytes]:
    return [blob for seed, (h, w) in enumerate(SIZES) for blob in jpeg_kinds(picture(h, w, seed)).values()]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_regions_equal_whole_images_in_thousands_of_consecutive_calls(zoo: list[bytes], mode: str) -> None:
    rng = np.random.default_rng(7)
    region, whole = NativeDecoder(mode=mode), NativeDecoder(mode=mode, read_all=True)  # type: ignore[arg-type]
    crops_taken = 0
    for turn in range(6):
        crops = [
            Crops(num=1, size_px=int(rng.choice([16, 33, 64])), scale=(0.005, 1.0)),
            Crops(num=1, size_px=24, scale=(0.02, 0.2), interpolation="bicubic"),
            Crops(size_px=40, kind="center"),
        ][turn % 3 :]
        blobs = [zoo[k] for k in rng.permutation(len(zoo))]
        channels = 1 + 2 * (turn % 2)
        got, status = decode(region, blobs, crops, channels=channels, first_seed=turn * 1000)
        want, _ = decode(whole, blobs, crops, channels=channels, first_seed=turn * 1000)
        assert not status.any()
        for a, b in zip(got, want, strict=True):
            assert np.array_equal(a, b)
        crops_taken += len(blobs) * len(crops)
    assert crops_taken > 2500


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("kind", ["random", "center"])
@pytest.mark.parametrize("coding", ["4:4:4-plain", "4:2:0-progressive", "4:2:2-restart", "gray-plain"])
def test_exact_mode_is_pillows_decode_and_resize_within_rounding(coding: str, kind: str, interpolation: str) -> None:
    crops = [Crops(num=4, size_px=112, kind=kind, interpolation=interpolation)]  # type: ignore[arg-type]
    for seed, (height, width) in enumerate([(301, 700), (413, 640), (90, 97)]):
        blob = jpeg_kinds(picture(height, width, seed))[coding]
        [got], _ = decode(open_decoder("native", "exact"), [blob], crops, first_seed=seed)
        pixels = np.asarray(Image.open(io.BytesIO(blob)).convert("RGB"))
        [want] = by_pillow(pixels, seed, crops)
        difference = np.abs(got[0].astype(int) - want)
        assert difference.max() <= 2
        assert (difference > 0).mean() < 0.05
        assert psnr(got[0], want) > 55


def test_multi_crop_is_every_crop_by_itself(zoo: list[bytes]) -> None:
    blobs = zoo[::17]
    [large, small], status = decode(NativeDecoder(mode="exact"), blobs, DINO)
    assert not status.any()
    [only_large], _ = decode(NativeDecoder(mode="exact"), blobs, DINO[:1])
    assert np.array_equal(large, only_large)
    for row, blob in enumerate(blobs):
        pixels = np.asarray(Image.open(io.BytesIO(blob)).convert("RGB"))
        for got, want in zip((large[row], small[row]), by_pillow(pixels, row, DINO), strict=True):
            assert psnr(got, want) > 50


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("instructions", ["best", "avx2"])
def test_vector_kernels_equal_portable_c(zoo: list[bytes], mode: str, channels: int, instructions: str) -> None:
    for size, interpolation in [(7, "bilinear"), (11, "bicubic"), (32, "bicubic"), (96, "bilinear"), (225, "bicubic")]:
        crops = [Crops(size_px=size, interpolation=interpolation)]  # type: ignore[arg-type]
        quick = NativeDecoder(mode=mode, instructions=instructions)  # type: ignore[arg-type]
        plain = NativeDecoder(mode=mode, instructions="portable")  # type: ignore[arg-type]
        [got], _ = decode(quick, zoo[::3], crops, channels=channels)
        [want], _ = decode(plain, zoo[::3], crops, channels=channels)
        assert np.array_equal(got, want)


def test_fast_mode_reduces_and_stays_close_to_exact() -> None:
    blobs = [jpeg(picture(700, 900, seed, sharpness=3), subsampling=2) for seed in range(4)]
    crops = [Crops(num=2, size_px=64)]
    [fast], _ = decode(open_decoder("native", "fast"), blobs, crops)
    [exact], _ = decode(open_decoder("native", "exact"), blobs, crops)
    assert not np.array_equal(fast, exact)
    assert psnr(fast, exact) > 35


def test_gray_output_is_luma_and_gray_input_is_repeated() -> None:
    pixels = picture(200, 300, 1)
    crops = [Crops(size_px=64)]
    decoder = NativeDecoder(mode="exact")
    [colour], _ = decode(decoder, [jpeg(pixels)], crops)
    [luma], _ = decode(decoder, [jpeg(pixels)], crops, channels=1)
    assert psnr(luma[..., 0], colour.astype(float) @ [0.299, 0.587, 0.114]) > 40
    [one], _ = decode(decoder, [jpeg(pixels, mode="L")], crops, channels=1)
    [three], _ = decode(decoder, [jpeg(pixels, mode="L")], crops)
    assert np.array_equal(np.repeat(one, 3, axis=-1), three)


@pytest.mark.parametrize("name", ["native", "library"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    blob = jpeg(picture(120, 200, 3), exif=exif, subsampling=2)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(blob))))
    crops = [Crops(num=3, size_px=48), Crops(size_px=40, kind="center")]
    got, status = decode(open_decoder(name, "exact"), [blob], crops, first_seed=11)  # type: ignore[arg-type]
    assert status.tolist() == [Status.OK]
    for mine, want in zip(got, by_pillow(upright, 11, crops), strict=True):
        assert np.abs(mine[0].astype(int) - want).max() <= 2


def test_every_flip_mirrors_the_same_crop() -> None:
    blob = jpeg(picture(150, 170, 2))
    [plain], _ = decode(NativeDecoder(), [blob] * 8, [Crops(size_px=32, flip_probability=0)])
    [flipped], _ = decode(NativeDecoder(), [blob] * 8, [Crops(size_px=32, flip_probability=1)])
    assert np.abs(plain.astype(int) - flipped[:, :, :, ::-1]).max() <= 1
    assert not np.array_equal(plain, flipped)


@pytest.mark.slow
def test_threads_give_what_one_thread_gives(zoo: list[bytes]) -> None:
    decoder = NativeDecoder()
    crops = [Crops(num=2, size_px=48), Crops(num=1, size_px=24)]
    blobs = zoo[::4]
    want = [decode(decoder, blobs, crops, first_seed=turn)[0] for turn in range(8)]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda turn: decode(decoder, blobs, crops, first_seed=turn)[0], range(8)))
    for mine, theirs in zip(got, want, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert np.array_equal(a, b)


def test_bytes_views_and_memory_maps_give_the_same(tmp_path: Path) -> None:
    blob = jpeg(picture(99, 130, 5))
    file = tmp_path / "shard"
    file.write_bytes(b"x" * 13 + blob + b"y" * 9)
    crops = [Crops(size_px=32)]
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)[13 : 13 + len(blob)]
        out = blank(2, crops)
        status = NativeDecoder().decode([blob, view], np.array([4, 4], np.uint64), crops, out)
        view.release()
    assert not status.any()
    assert np.array_equal(out[0][0], out[0][1])


def patch(
    blob: bytes, *, marker: int | None = None, precision: int | None = None, size: tuple[int, int] = (0, 0)
) -> bytes:
    """A JPEG with another frame marker, precision or size."""
    at = blob.index(b"\xff\xc0")
    changed = bytearray(blob)
    changed[at + 1] = marker or changed[at + 1]
    changed[at + 4] = precision or changed[at + 4]
    if any(size):
        changed[at + 5 : at + 9] = struct.pack(">HH", *size)
    return bytes(changed)


def with_many_scans(blob: bytes) -> bytes:
    last = blob.rindex(b"\xff\xda")
    return blob[:last] + blob[last:-2] * (MAX_SCANS + 1) + blob[-2:]


BLOB = jpeg(picture(64, 80, 9), subsampling=2)
PROGRESSIVE = jpeg(picture(64, 80, 9), progressive=True)
BAD = {
    "empty": (b"", Status.CORRUPT),
    "short": (b"\xff\xd8\xff", Status.CORRUPT),
    "text": (b"this is no image at all", Status.UNSUPPORTED),
    "12-bit": (patch(BLOB, precision=12), Status.UNSUPPORTED),
    "arithmetic": (patch(BLOB, marker=0xC9), Status.UNSUPPORTED),
    "lossless": (patch(BLOB, marker=0xC3), Status.UNSUPPORTED),
    "huge": (patch(BLOB, size=(65500, 65500)), Status.UNSUPPORTED),
    "no height": (patch(BLOB, size=(0, 80)), Status.CORRUPT),
    "many scans": (with_many_scans(PROGRESSIVE), Status.UNSUPPORTED),
    "truncated": (BLOB[: len(BLOB) // 2], Status.CORRUPT),
    "no end": (BLOB[:-2], Status.CORRUPT),
    "no tables": (BLOB.replace(b"\xff\xdb", b"\xff\xed"), Status.CORRUPT),
    "two frames": (BLOB[: (at := BLOB.index(b"\xff\xc0"))] + BLOB[at : at + 19] + BLOB[at:], Status.CORRUPT),
}


@pytest.mark.parametrize("name", ["native", "library"])
@pytest.mark.parametrize("mode", MODES)
def test_bad_images_have_a_status_and_leave_their_slots_alone(name: str, mode: str) -> None:
    blobs = [BLOB, *(blob for blob, _ in BAD.values()), BLOB]
    crops = [Crops(kind="center", size_px=64), Crops(num=2, size_px=16)]
    out = blank(len(blobs), crops, value=77)
    decoder = open_decoder(name, mode)  # type: ignore[arg-type]
    status = decoder.decode(blobs, np.arange(len(blobs)).astype(np.uint64), crops, out)
    assert dict(zip(BAD, status[1:-1].tolist(), strict=True)) == {key: int(want) for key, (_, want) in BAD.items()}
    assert status[0] == status[-1] == Status.OK
    for array in out:
        assert (array[1:-1] == 77).all()
        assert not (array[-1] == 77).all()


def damaged(blob: bytes, seed: int) -> bytes:
    """A JPEG with other bytes in its first scan, none of them part of a marker."""
    rng = np.random.default_rng(seed)
    changed = bytearray(blob)
    start = blob.index(b"\xff\xda") + 20
    for at in rng.integers(start, len(blob) - 4, 6):
        if 0xFF not in changed[at - 1 : at + 2]:
            changed[at] = rng.integers(0xFF)
    return bytes(changed)


def test_damage_inside_a_scan_is_no_property_of_decoder_mode_or_crops() -> None:
    blobs = [patch(BLOB, size=(4000, 80)), *(damaged(BLOB, seed) for seed in range(40))]
    for crops in ([Crops(kind="center", size_px=64)], [Crops(size_px=16, scale=(0.05, 0.1))]):
        for name in ("native", "library"):
            for mode in MODES:
                _, status = decode(open_decoder(name, mode), blobs, crops)  # type: ignore[arg-type]
                assert not status.any()


def test_an_image_without_tables_does_not_borrow_those_of_the_last_one() -> None:
    bare = BLOB.replace(b"\xff\xdb", b"\xff\xed")
    _, status = decode(NativeDecoder(), [BLOB, bare, BLOB], [Crops(size_px=16)])
    assert status.tolist() == [Status.OK, Status.CORRUPT, Status.OK]


def test_other_codecs_share_the_interface() -> None:
    import cv2

    pixels = picture(90, 120, 4)
    blobs = [cv2.imencode(kind, pixels[..., ::-1])[1].tobytes() for kind in (".png", ".bmp", ".tiff")] + [BLOB]
    crops = [Crops(num=2, size_px=32)]
    [got], status = decode(NativeDecoder(mode="exact"), blobs, crops, first_seed=3)
    assert not status.any()
    for row in range(3):
        [want] = by_pillow(pixels, 3 + row, crops)
        assert np.abs(got[row].astype(int) - want).max() <= 1


def test_decoders_travel_between_processes() -> None:
    copy = pickle.loads(pickle.dumps(NativeDecoder(mode="exact", instructions="portable")))
    assert copy.mode == "exact"
    assert "portable C" in copy.description
    assert not decode(copy, [BLOB], [Crops(size_px=16)])[1].any()
