"""How fast a device decodes and copies, library by library, beside the host's decoder."""

from __future__ import annotations

import ctypes
import sysconfig
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache
from importlib import util
from pathlib import Path
from typing import Final

import numpy as np
import torch

from infra.commands.device.images import TarStream, drawn_jpegs
from infra.commands.device.parts import Part, Skipped
from infra.commands.device.quick import Answer
from infra.commands.device.steps import thread_counts
from shards.decode import open_decoder
from shards.decode.engines import EngineName, NvimgcodecEngine, engine_names, open_engine
from train.data import stream_crops
from train.recipe_files import load_recipe

__all__ = ["comparison_parts", "copy_part", "decode_parts", "jpeg_engines"]

BACKENDS: Final = {"hardware": "HW_GPU_ONLY", "cuda": "GPU_ONLY", "hybrid": "HYBRID_CPU_GPU"}
"""Of nvImageCodec on a GPU: the JPEG engine alone, kernels alone, and kernels behind Huffman decoding on the host."""
GOAL: Final = 6000.0
"""Images of 512 x 512 pixels per second, in batches of 256."""

_Decode = Callable[[Sequence[bytes]], object]
_SECONDS: Final = 0.7


def decode_parts(device: torch.device, images: Sequence[bytes]) -> list[Part]:
    """Decode rates: by library, batch and size on the device, and by threads on the host."""
    cuda = device.type == "cuda"
    parts = [Part(name="JPEG engines", run=lambda: jpeg_engines(device))]
    for name in engine_names():
        for side in (256, 512, 1024) if cuda else (256,):
            for batch in (32, 128, 256, 512) if cuda else (32,):
                goal = GOAL if cuda and (batch, side) == (256, 512) else 0.0
                parts.append(_rate_part(name, device, lambda name=name: _library(device, name), batch, side, goal=goal))  # type: ignore[misc]
    parts += [_native_part(images, threads) for threads in thread_counts()]
    return parts


def comparison_parts(device: torch.device) -> list[Part]:
    """The rates of what the device decoder does not use: nvImageCodec's backends one by one, and torchvision."""
    if device.type != "cuda":
        return []
    openings: dict[str, Callable[[], _Decode]] = {}
    if "nvimgcodec" in engine_names():
        for name, kind in BACKENDS.items():
            openings[f"nvimgcodec {name}"] = lambda kind=kind: _backend(device, kind)  # type: ignore[misc]
    if util.find_spec("torchvision") is not None:
        openings["torchvision"] = lambda: _torchvision(device)
    return [_rate_part(name, device, opening, batch, 512) for name, opening in openings.items() for batch in (32, 256)]


def _library(device: torch.device, name: EngineName) -> _Decode:
    engine = open_engine(device, name)
    return lambda blobs: engine.decode(blobs, 3)


def _backend(device: torch.device, kind: str) -> _Decode:
    engine = NvimgcodecEngine(device, backend=kind)
    return lambda blobs: engine.decode(blobs, 3)


def _torchvision(device: torch.device) -> _Decode:
    from torchvision.io import ImageReadMode, decode_jpeg

    def decode(blobs: Sequence[bytes]) -> object:
        data = [torch.frombuffer(bytearray(blob), dtype=torch.uint8) for blob in blobs]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is deprecated, and here to be compared with
            return decode_jpeg(data, mode=ImageReadMode.RGB, device=device)

    return decode


def _rate_part(
    name: str, device: torch.device, opening: Callable[[], _Decode], batch: int, side: int, *, goal: float = 0.0
) -> Part:
    def run() -> Answer:
        decode, blobs = opening(), list(_blobs(side)) * (batch // 16)
        decode(blobs)
        _synchronize(device)
        began, num = time.perf_counter(), 0
        while time.perf_counter() - began < _SECONDS:
            decode(blobs)
            _synchronize(device)
            num += batch
        return _rate(num, time.perf_counter() - began)

    return Part(
        name=f"{name} rate, {batch} of {side} px",
        run=run,
        good=lambda figures: bool(figures["images_per_second"] >= goal),
    )


@cache
def _blobs(side: int) -> tuple[bytes, ...]:
    """16 images; drawing large ones takes seconds."""
    return tuple(drawn_jpegs(16, side=side))


def _rate(num: int, seconds: float) -> Answer:
    return f"{num / seconds:,.0f} images/s", {"images_per_second": round(num / seconds, 1)}


def _native_part(images: Sequence[bytes], threads: int) -> Part:
    return Part(name=f"native decoder, {threads} threads", run=lambda: _native_rate(images, threads))


def _native_rate(images: Sequence[bytes], threads: int) -> Answer:
    crops, batch = stream_crops(load_recipe("mae-default")), 64 * threads  # enough parts for every thread
    stream = TarStream(list(images), crops=crops, global_batch=batch, decoder=open_decoder("auto"), threads=threads)
    with closing(stream.lend(lambda shapes: tuple(np.zeros(shape, np.uint8) for shape in shapes))) as batches:
        next(batches)
        began, num = time.perf_counter(), 0
        while time.perf_counter() - began < _SECONDS:
            next(batches)
            num += batch
        return _rate(num, time.perf_counter() - began)


def copy_part(device: torch.device) -> Part:
    """The rate of copies from pinned memory."""

    def run() -> Answer:
        if device.type != "cuda":
            raise Skipped("no GPU")
        host = torch.empty(1 << 28, dtype=torch.uint8, pin_memory=True)
        target = torch.empty_like(host, device=device)
        _synchronize(device)
        began = time.perf_counter()
        for _ in range(8):
            target.copy_(host, non_blocking=True)
        _synchronize(device)
        rate = 8 * host.numel() / (time.perf_counter() - began) / 1e9
        return f"{rate:.1f} GB/s", {"gb_per_second": round(rate, 2)}

    return Part(name="pinned copy", run=run)


def jpeg_engines(device: torch.device) -> Answer:
    """How many JPEG engines nvJPEG sees (`nvjpegGetHardwareDecoderInfo`); none where the container hides them."""
    if device.type != "cuda":
        raise Skipped("no GPU")
    site = Path(sysconfig.get_path("platlib"))
    places = ("nvidia/**/lib/libnvjpeg.so*", "torchcodec.libs/libnvjpeg*", "torchvision.libs/libnvjpeg*")
    found = next((path for place in places for path in sorted(site.glob(place))), None)
    if found is None:
        raise Skipped("no libnvjpeg beside PyTorch's packages")
    library = ctypes.CDLL(str(found))
    handle, engines, cores = ctypes.c_void_p(), ctypes.c_uint(), ctypes.c_uint()
    torch.cuda.synchronize(device)  # makes the CUDA context that the handle lives in
    for answer in (
        library.nvjpegCreateSimple(ctypes.byref(handle)),
        library.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(engines), ctypes.byref(cores)),
        library.nvjpegDestroy(handle),
    ):
        if answer:
            raise RuntimeError(f"nvJPEG answers {answer}")
    figures = {"engines": engines.value, "cores_per_engine": cores.value, "library": found.name}
    return f"{engines.value} engines of {cores.value} cores ({found.name})", figures


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
