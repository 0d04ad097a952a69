"""The device decoder, on torch's CPU device."""

from __future__ import annotations

import numpy as np
import pytest

from shards.decode import Crops, Status, open_decoder
from shards.errors import ConfigError
from tests.shards.decode.images import blank, decode, jpeg, jpeg_kinds, picture, psnr

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

CROPS = [Crops(num=2, size_px=96), Crops(size_px=64, kind="center"), Crops(size_px=80, interpolation="bicubic")]


@pytest.mark.parametrize("channels", [1, 3])
def test_device_shows_what_the_other_decoders_show(channels: int) -> None:
    kinds = jpeg_kinds(picture(251, 333, 2))
    blobs = [kinds[name] for name in ("4:4:4-plain", "4:2:0-progressive", "gray-plain", "cmyk")]
    got, status = decode(open_decoder("device", device="cpu"), blobs, CROPS, channels=channels)
    want, _ = decode(open_decoder("auto", "exact"), blobs, CROPS, channels=channels)
    assert not status.any()
    for mine, theirs in zip(got, want, strict=True):
        assert psnr(mine, theirs) > 48


def test_tensors_are_filled_in_place() -> None:
    blob = jpeg(picture(90, 120))
    [want], _ = decode(open_decoder("device", device="cpu"), [blob], CROPS[:1])
    out = torch.zeros(want.shape, dtype=torch.uint8)
    status = open_decoder("device", device="cpu").decode([blob], np.zeros(1, np.uint64), CROPS[:1], [out])  # type: ignore[list-item]
    assert not status.any()
    assert np.array_equal(out.numpy(), want)


def test_one_bad_image_costs_only_itself() -> None:
    blob = jpeg(picture(90, 120))
    scrambled = bytearray(blob)
    scrambled[blob.index(b"\xff\xda") + 20 : -2] = b"\xff\xd3" * ((len(blob) - 22 - blob.index(b"\xff\xda")) // 2)
    blobs = [blob, blob[:200], bytes(scrambled), b"no image, only words", blob]
    out = blank(5, CROPS, value=33)
    status = open_decoder("device", device="cpu").decode(blobs, np.arange(5).astype(np.uint64), CROPS, out)
    assert status[[0, 1, 3, 4]].tolist() == [Status.OK, Status.CORRUPT, Status.UNSUPPORTED, Status.OK]
    assert (out[0][1] == 33).all()
    assert (out[0][3] == 33).all()
    assert not (out[0][4] == 33).all()


def test_orientation_and_png_are_handled() -> None:
    import cv2
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = picture(90, 120)
    blobs = [jpeg(pixels, exif=exif), cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()]
    got, _ = decode(open_decoder("device", device="cpu"), blobs, CROPS)
    want, _ = decode(open_decoder("library", "exact"), blobs, CROPS)
    for mine, theirs in zip(got, want, strict=True):
        assert psnr(mine, theirs) > 48


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_missing_device_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="CUDA"):
        open_decoder("device")
