"""Decoding on the device, from the stream to the slots, on the CPU backend of the libraries that run on a GPU."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from shards.dataset.dataset import Dataset
from shards.decode import Crops
from shards.decode.engines import EngineName, engine_names
from shards.errors import ConfigError, ShardError
from shards.stream import Stream
from tests.shards.builders import add_source
from tests.shards.decode.images import jpeg, jpeg_kinds, picture, psnr
from tests.shards.decode.mutations import damaged_anywhere
from tests.train.feed.test_device_stream import CopyingSide
from train.feed.device_stream import DeviceStream
from train.feed.side import HostSide

pytestmark = pytest.mark.torch
if not engine_names():
    pytest.skip("no library that decodes on devices is installed", allow_module_level=True)

CROPS = [Crops(num=2, size_px=48), Crops(size_px=32, interpolation="bicubic")]


def rotated(seed: int, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(picture(70, 90, seed), exif=exif)


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(70, 90, seed)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEGs of every kind, PNG, and files that are cut off: 64 images."""
    images = [jpeg(picture(70, 90, seed)) for seed in range(24)]
    images += [*jpeg_kinds(picture(71, 93, 60)).values()]
    images += [rotated(100 + orientation, orientation) for orientation in range(1, 9)]
    images += [png(seed) for seed in range(120, 124)]
    images += [jpeg(picture(70, 90, seed))[: 900 + seed] for seed in range(130, 136)]
    images += [jpeg(picture(70, 90, 200 + seed), mode="CMYK") for seed in range(64 - len(images))]
    folder = tmp_path_factory.mktemp("decode") / "dataset"
    add_source(Dataset.create(str(folder)), "mixed", "CT", images)
    return folder


def stream(url: Path, **settings: Any) -> Stream:
    return Stream(url, crops=CROPS, global_batch=16, seed=5, num_threads=2, num_epochs=2, **settings)


@pytest.mark.parametrize("side", [HostSide, CopyingSide])
def test_crops_and_substitutes_are_those_of_the_host(dataset: Path, side: type[HostSide]) -> None:
    wanted = [
        ([view.copy() for view in batch.views], batch.keys, batch.substituted)
        for batch in stream(dataset, mode="exact")
    ]
    feed = DeviceStream(stream(dataset, decoder="device"), side())
    got = [([view.numpy().copy() for view in batch.views], batch.keys, batch.substituted) for batch in feed]
    assert [one[1:] for one in got] == [one[1:] for one in wanted]
    assert sum(len(substituted) for _, _, substituted in wanted) >= 6
    for (mine, *_), (theirs, *_) in zip(got, wanted, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            assert np.abs(one.astype(int) - other).max() <= 2
            assert psnr(one, other) > 48
    assert 2 * 4 <= feed.num_decoded_on_host < 2 * 40


def test_substitutes_are_the_same_in_fast_mode_and_with_other_crops(dataset: Path) -> None:
    wanted = [(batch.keys, batch.substituted) for batch in stream(dataset, decoder="device").lend(_new_arrays)]
    for decoder in ("native", "library"):
        other = Stream(
            dataset,
            crops=[Crops(kind="center", size_px=24)],
            global_batch=16,
            seed=5,
            num_epochs=2,
            decoder=decoder,  # type: ignore[arg-type]
        )
        assert [(batch.keys, batch.substituted) for batch in other] == wanted


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind with bytes changed, missing and put in; half of them cannot be decoded: 192 images."""
    files = [*jpeg_kinds(picture(40, 52, 60)).values(), png(7), cv2.imencode(".bmp", picture(9, 9))[1].tobytes()]
    images = [damaged_anywhere(files[seed % len(files)], 1000 + seed) for seed in range(128)]
    images += [jpeg(picture(30, 40, seed)) for seed in range(64)]
    folder = tmp_path_factory.mktemp("damaged") / "dataset"
    add_source(Dataset.create(str(folder)), "damaged", "CT", list(dict.fromkeys(images)))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("engine", engine_names())
def test_damaged_files_have_the_same_substitutes_on_every_library(
    damaged: Path, engine: EngineName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.decode.engines.engine_names", lambda: [engine])
    wanted = [(batch.keys, batch.substituted) for batch in stream(damaged)]
    feed = DeviceStream(stream(damaged, decoder="device"), CopyingSide())
    assert feed._decoder is not None
    assert feed._decoder.engine.name == engine
    assert [(batch.keys, batch.substituted) for batch in feed] == wanted
    assert sum(len(substituted) for _, substituted in wanted) > 50


def _new_arrays(shapes: Any) -> Any:
    return tuple(np.zeros(shape, np.uint8) for shape in shapes)


def test_a_stream_that_leaves_images_to_a_device_cannot_be_iterated(dataset: Path) -> None:
    with pytest.raises(ConfigError, match="DeviceStream"):
        next(iter(stream(dataset, decoder="device")))


def test_crops_are_cut_by_the_kernels_that_the_run_has_chosen(dataset: Path) -> None:
    feeds = [DeviceStream(stream(dataset, decoder="device"), "cpu", kernels=by) for by in ("triton", "torch", None)]
    assert [feed._decoder.kernels for feed in feeds if feed._decoder] == ["triton", "torch", "torch"]
    for feed in feeds:
        feed.close()


def test_an_image_that_nothing_decodes_is_an_error_that_names_it(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = DeviceStream(stream(dataset, decoder="device"))
    monkeypatch.setattr(
        "shards.decode.device.DeviceDecoder.decode", lambda *arguments: np.ones(len(arguments[1]), np.int32)
    )
    with pytest.raises(ShardError, match="mixed-"):
        next(iter(feed))


def test_images_wider_than_the_slot_are_no_trouble(tmp_path: Path) -> None:
    images = [cv2.imencode(".jpg", picture(300, 20 + seed, seed))[1].tobytes() for seed in range(16)]
    add_source(Dataset.create(str(tmp_path / "d")), "tall", "CT", images)
    assert len(list(DeviceStream(stream(tmp_path / "d", decoder="device")))) == 2
