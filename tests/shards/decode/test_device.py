"""The device decoder on torch's CPU device: the libraries are the ones that run on a GPU, with their CPU backends."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from shards.decode import Crops, Decoder, Status, open_decoder
from shards.errors import ConfigError
from tests.shards.decode.images import blank, decode, jpeg, jpeg_kinds, picture, psnr
from tests.shards.decode.mutations import damaged_anywhere

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
engines = pytest.importorskip("shards.decode.engines")

CROPS = [Crops(num=2, size_px=96), Crops(size_px=64, kind="center"), Crops(size_px=80, interpolation="bicubic")]
NAMES = engines.engine_names()
if not NAMES:
    pytest.skip("no library that decodes on devices is installed", allow_module_level=True)


@pytest.fixture(params=NAMES)
def device(request: pytest.FixtureRequest) -> Decoder:
    return open_decoder("device", device="cpu", engine=request.param)


def exact(blobs: list[bytes], channels: int = 3) -> tuple[Any, Any]:
    return decode(open_decoder("auto", "exact"), blobs, CROPS, channels=channels)


@pytest.mark.parametrize("channels", [1, 3])
def test_device_shows_what_the_other_decoders_show(device: Decoder, channels: int) -> None:
    kinds = jpeg_kinds(picture(251, 333, 2))
    blobs = [kinds[name] for name in ("4:4:4-plain", "4:2:0-progressive", "4:2:2-restart", "gray-plain", "cmyk")]
    got, status = decode(device, blobs, CROPS, channels=channels)
    want, _ = exact(blobs, channels)
    assert not status.any()
    for mine, theirs in zip(got, want, strict=True):
        assert np.abs(mine.astype(int) - theirs).max() <= 2
        assert psnr(mine, theirs) > 48


def test_tensors_are_filled_in_place(device: Decoder) -> None:
    blobs = [jpeg(picture(90, 120)), jpeg(picture(90, 120), mode="CMYK")]
    [want], _ = decode(device, blobs, CROPS[:1])
    out = torch.zeros(want.shape, dtype=torch.uint8)
    status = device.decode(blobs, np.arange(2, dtype=np.uint64), CROPS[:1], [out])
    assert not status.any()
    assert np.array_equal(out.numpy(), want)


def scrambled(blob: bytes) -> bytes:
    start = blob.index(b"\xff\xda") + 20
    middle = (start + len(blob)) // 2
    return blob[:middle] + bytes(len(blob[middle : middle + 50])) + blob[middle + 50 :]


def test_a_bad_image_costs_only_itself_and_is_bad_for_every_decoder(device: Decoder) -> None:
    blob = jpeg(picture(90, 120))
    blobs = [blob, blob[:200], blob[: len(blob) // 2], blob[:-2], scrambled(blob), b"no image, only words", b"", blob]
    out = blank(len(blobs), CROPS, value=33)
    status = device.decode(blobs, np.arange(len(blobs)).astype(np.uint64), CROPS, out)
    assert status.tolist() == exact(blobs)[1].tolist() == [0, 1, 1, 1, 0, 2, 1, 0]
    for row in np.flatnonzero(status):
        assert all((array[row] == 33).all() for array in out)
    assert not (out[0][4] == 33).all()


@pytest.mark.slow
def test_damaged_files_have_the_hosts_status(device: Decoder) -> None:
    kinds = [*jpeg_kinds(picture(33, 47, 3)).values()]
    blobs = [damaged_anywhere(kinds[seed % len(kinds)], seed) for seed in range(120)]
    want = exact(blobs)[1]
    assert 30 < np.count_nonzero(want == Status.OK) < 90
    assert np.array_equal(decode(device, blobs, CROPS)[1] == Status.OK, want == Status.OK)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(device: Decoder, orientation: int) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = orientation
    blobs = [jpeg(picture(90, 120), exif=exif)]
    got, status = decode(device, blobs, CROPS)
    assert not status.any()
    for mine, theirs in zip(got, exact(blobs)[0], strict=True):
        assert psnr(mine, theirs) > 48


def test_png_is_decoded_on_the_host_and_counted(device: Any) -> None:
    import cv2

    pixels = picture(90, 120)
    blobs = [cv2.imencode(".png", pixels[..., ::-1])[1].tobytes(), jpeg(pixels), jpeg(pixels, mode="CMYK")]
    got, status = decode(device, blobs, CROPS)
    assert not status.any()
    assert device.num_on_host == 2
    for mine, theirs in zip(got, exact(blobs)[0], strict=True):
        assert psnr(mine, theirs) > 48


def test_an_image_that_the_library_fails_on_is_decoded_on_the_host(device: Any) -> None:
    class Failing:
        name = "failing"

        def decode(self, blobs: list[bytes], channels: int) -> list[Any]:
            return [None, *device_engine.decode(blobs[1:], channels)]

    device_engine, device.engine = device.engine, Failing()
    blobs = [jpeg(picture(90, 120, 1)), jpeg(picture(90, 120, 2))]
    got, status = decode(device, blobs, CROPS)
    assert not status.any()
    assert device.num_on_host == 1
    for mine, theirs in zip(got, exact(blobs)[0], strict=True):
        assert psnr(mine, theirs) > 48


def test_large_batches_are_decoded_in_parts(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = [jpeg(picture(40, 50, seed)) for seed in range(7)]
    want, _ = decode(device, blobs, CROPS)
    monkeypatch.setattr("shards.decode.device._BATCH_PIXELS", 2 * 40 * 50)
    got, _ = decode(device, blobs, CROPS)
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(got, want, strict=True))


def test_no_deprecated_decoder_is_used(device: Decoder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(device, [jpeg(picture(30, 40))], CROPS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_missing_device_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="CUDA"):
        open_decoder("device")


def test_without_a_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_is_installed", lambda _: False)
    with pytest.raises(ConfigError, match="torchcodec or nvimgcodec"):
        open_decoder("device", device="cpu")


def test_deferring_judges_all_and_decodes_what_the_device_does_not_take() -> None:
    from shards.decode.device import DeferringDecoder

    blob = jpeg(picture(90, 120))
    blobs = [blob, jpeg(picture(90, 120), mode="CMYK"), blob[:200]]
    out = blank(3, CROPS, value=33)
    status = DeferringDecoder(open_decoder("auto", "exact")).decode(blobs, np.arange(3, dtype=np.uint64), CROPS, out)
    assert status.tolist() == [Status.DEFERRED, Status.OK, Status.CORRUPT]
    assert [(array == 33).all(axis=(1, 2, 3, 4)).tolist() for array in out] == [[True, False, True]] * len(CROPS)


def test_the_kernel_cuts_whole_batches_and_agrees_with_torch(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    triton_crop = pytest.importorskip("shards.decode.kernels.triton_crop", reason="Triton is not installed")
    crops = [Crops(num=2, size_px=16), Crops(size_px=12, kind="center")]
    blobs = [jpeg(picture(20, 30, seed)) for seed in range(3)] + [jpeg(picture(20, 30), mode="CMYK")]
    seeds = np.arange(len(blobs), dtype=np.uint64)
    want, got = blank(len(blobs), crops), blank(len(blobs), crops)
    assert device.kernels == "torch"
    device.decode(blobs, seeds, crops, want)
    device.kernels = "triton"
    launches = []
    launch = triton_crop._launch
    monkeypatch.setattr(
        triton_crop, "_launch", lambda table, *rest, **more: launches.append(len(table)) or launch(table, *rest, **more)
    )
    status = device.decode(blobs, seeds, crops, got)
    assert not status.any()
    assert launches == [6, 3]
    for mine, theirs in zip(got, want, strict=True):
        assert np.abs(mine.astype(int) - theirs).max() <= 1
