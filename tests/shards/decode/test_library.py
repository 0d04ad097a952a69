"""The decoder without a compiler, what it shares with the native one, and how one is chosen."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from shards.decode import Crops, Status, describe_decoder, native_decoder, open_decoder
from shards.decode import opening as package
from shards.errors import ConfigError
from shards.native import build
from tests.shards.decode.images import blank, by_pillow, decode, jpeg, jpeg_kinds, picture, psnr

CROPS = [Crops(num=2, size_px=96), Crops(size_px=64, kind="center"), Crops(size_px=80, interpolation="bicubic")]
KINDS = sorted(jpeg_kinds(picture(8, 8)))


@pytest.mark.parametrize("coding", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_exact_mode_equals_pillow_and_the_native_decoder(coding: str, channels: int) -> None:
    blob = jpeg_kinds(picture(251, 333, 6))[coding]
    got, status = decode(open_decoder("library", "exact"), [blob] * 3, CROPS, channels=channels)
    native, _ = decode(open_decoder("auto", "exact"), [blob] * 3, CROPS, channels=channels)
    assert status.tolist() == [Status.OK] * 3
    for mine, theirs in zip(got, native, strict=True):
        assert psnr(mine, theirs) > 50
    if channels == 3 and coding != "440":  # Pillow's libjpeg upsamples 4:4:0 in another way
        pixels = np.asarray(Image.open(io.BytesIO(blob)).convert("RGB"))
        for mine, want in zip(got, by_pillow(pixels, 0, CROPS), strict=True):
            assert psnr(mine[0], want) > 50


@pytest.mark.parametrize("sharpness", [1.5, 4.0])
def test_fast_mode_shows_what_the_native_decoder_shows(sharpness: float) -> None:
    blobs = [jpeg(picture(600, 640, seed, sharpness=sharpness), subsampling=2) for seed in range(3)]
    got, _ = decode(open_decoder("library", "fast"), blobs, CROPS)
    native, _ = decode(open_decoder("auto", "exact"), blobs, CROPS)
    for mine, theirs in zip(got, native, strict=True):
        assert psnr(mine, theirs) > (26 if sharpness < 2 else 31)


def encode_png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_png_of_every_depth(mode: str) -> None:
    pixels = picture(120, 150, 8)
    gray = pixels[..., 0]
    deep = (gray.astype(np.uint16) << 8) | gray
    alpha = np.dstack([pixels[..., ::-1], np.full(gray.shape, 9, np.uint8)])
    palette = io.BytesIO()
    Image.fromarray(gray).convert("P").save(palette, "PNG")
    blobs = [encode_png(pixels[..., ::-1]), encode_png(gray), encode_png(deep), encode_png(alpha), palette.getvalue()]
    crops = [Crops(size_px=150, kind="center")]
    [got], status = decode(open_decoder("library", mode), blobs, crops)  # type: ignore[arg-type]
    assert not status.any()
    assert np.array_equal(got[0], got[3])
    for row in (2, 4):
        assert np.abs(got[1].astype(int) - got[row]).max() <= 1
    [luma], _ = decode(open_decoder("library", mode), blobs, crops, channels=1)  # type: ignore[arg-type]
    assert np.array_equal(luma[1][..., 0], got[1][..., 0])


def test_bad_png_has_a_status() -> None:
    good = encode_png(picture(60, 70))
    huge = bytearray(good)
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    garbled = good[:60] + bytes(40) + good[100:]
    out = blank(4, [Crops(size_px=8)], value=5)
    blobs = [good[:-20], bytes(huge), garbled, good[:30]]
    status = open_decoder("library").decode(blobs, np.zeros(4, np.uint64), [Crops(size_px=8)], out)
    assert status.tolist() == [Status.CORRUPT, Status.UNSUPPORTED, Status.CORRUPT, Status.CORRUPT]
    assert (out[0] == 5).all()


@pytest.mark.parametrize("name", ["auto", "library"])
@pytest.mark.parametrize(
    "shape",
    [(2, 1, 8, 8, 3), (1, 2, 8, 8, 3), (1, 1, 8, 9, 3), (1, 1, 8, 8, 4)],
    ids=["images", "crops", "side", "rgba"],
)
def test_wrong_output_shapes_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="output"):
        open_decoder(name).decode(  # type: ignore[arg-type]
            [b""], np.zeros(1, np.uint64), [Crops(size_px=8)], [np.zeros(shape, np.uint8)]
        )


def test_output_with_gaps_is_refused() -> None:
    with pytest.raises(ValueError, match="contiguous"):
        open_decoder().decode(
            [b""], np.zeros(1, np.uint64), [Crops(size_px=8)], [np.zeros((1, 1, 8, 16, 3), np.uint8)[:, :, :, ::2]]
        )


@pytest.mark.parametrize("name", ["auto", "library"])
def test_a_seed_for_every_image_is_needed(name: str) -> None:
    crops = [Crops(size_px=8)]
    with pytest.raises(ValueError, match="seeds for 2 images"):
        open_decoder(name).decode([b"", b""], np.zeros(1, np.uint64), crops, blank(2, crops))  # type: ignore[arg-type]


def test_no_images_are_no_error() -> None:
    for name in ("auto", "library"):
        assert decode(open_decoder(name), [], [Crops(size_px=8)])[1].size == 0  # type: ignore[arg-type]


@pytest.fixture
def without_extension(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native_decoder, "HERE", tmp_path)
    native_decoder.load.cache_clear()
    package._say_once.cache_clear()
    yield
    native_decoder.load.cache_clear()


@pytest.mark.usefixtures("without_extension")
def test_without_the_extension_the_library_serves_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert [open_decoder().name, open_decoder().name] == ["library", "library"]
    assert len(caplog.records) == 1
    assert "libjpeg62-turbo-dev" in caplog.text
    report = describe_decoder()
    assert report.name == "library"
    assert "not built" in str(report)
    assert "shards.native.build" in report.hint
    with pytest.raises(ConfigError, match=r"shards\.native\.build"):
        open_decoder("native")


@pytest.mark.process
@pytest.mark.usefixtures("without_extension")
def test_an_extension_of_other_sources_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        build.build(tmp_path)
    except build.BuildError as error:
        pytest.skip(str(error))
    assert describe_decoder().name == "native"
    native_decoder.load.cache_clear()
    monkeypatch.setattr(native_decoder, "source_digest", lambda: "0123456789abcdef")
    assert "other sources" in str(describe_decoder())


@pytest.mark.process
@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("exit 1", "failed"),
        ("echo 'decode.c:11: fatal error: jpeglib.h: No such file' >&2; exit 1", "libjpeg62-turbo-dev"),
    ],
)
def test_a_build_that_fails_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, reason: str
) -> None:
    script = tmp_path / "cc"
    script.write_text(f"#!/bin/sh\n{compiler}\n")
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    with pytest.raises(build.BuildError, match=reason):
        build.build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cc"]


def test_a_machine_without_a_compiler_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError, match="no C compiler"):
        build.build(tmp_path)


@pytest.mark.parametrize(("name", "mode"), [("fastest", "fast"), ("auto", "quick")])
def test_unknown_names_are_refused(name: str, mode: str) -> None:
    with pytest.raises(ConfigError, match="use "):
        open_decoder(name, mode)  # type: ignore[arg-type]
