"""The benchmark of a device: decode rates, copies, and steps fed by the stream against steps on a resident batch."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch

from infra.commands.device.images import TarStream, drawn_jpegs
from infra.commands.device.kernels import kernel_parts
from infra.commands.device.parts import Part, Skipped
from infra.commands.device.quick import Answer, quick_parts
from infra.estimate.operations import operations
from shards.decode import Decoder, open_decoder
from shards.decode.device import DeferringDecoder
from shards.decode.engines import EngineName, engine_names, open_engine
from train.data import stream_crops
from train.distributed import World, distribute
from train.feed.device_stream import DeviceStream
from train.loop import Loop
from train.methods import build_method
from train.optim import build_optimizer
from train.recipe import Recipe
from train.recipe_files import load_recipe
from train.schedules import schedule

__all__ = ["BENCH_SECONDS", "bench_parts"]

BENCH_SECONDS = 480.0
PEAK_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 operations per second, from the data sheets (SXM)."""
MODELS: dict[str, list[tuple[Literal["dinov2", "mae"], str, int]]] = {
    "cuda": [
        ("dinov2", "small", 128),
        ("dinov2", "base", 64),
        ("dinov2", "large", 64),
        ("mae", "base", 256),
        ("mae", "large", 128),
    ],
    "cpu": [("mae", "nano", 32), ("dinov2", "nano", 32)],
}
"""Device type → method, model size and images per step."""


def bench_parts(device: torch.device, images: Sequence[bytes]) -> list[Part]:
    """What `biovfm doctor --device --bench` runs, the quick check first.

    Args:
        device: To be measured.
        images: Real images, which steps are fed with.
    """
    cuda = device.type == "cuda"
    parts = quick_parts(device)
    for name in engine_names():
        for batch in (32, 128, 512) if cuda else (32,):
            for side in (256, 512, 1024) if cuda else (256,):
                parts.append(_rate(f"{name} rate, {batch} of {side} px", _engine_rate(device, name, batch, side)))
    for threads in _thread_counts():
        parts.append(_rate(f"native decoder, {threads} threads", _native_rate(images, threads)))
    parts.append(Part(name="pinned copy", run=lambda: _copy_rate(device)))
    parts += kernel_parts(device)
    for method, size, batch in MODELS[device.type]:
        parts += _step_parts(_Steps(device, images, method, size, batch), f"{method} {size}", cuda=cuda)
    return parts


def _step_parts(steps: _Steps, name: str, *, cuda: bool) -> list[Part]:
    enough = _fed_enough if cuda else _any
    return [
        Part(name=f"{name}, resident", run=steps.resident),
        Part(name=f"{name}, host waits", run=steps.host_waits, good=lambda figures: figures["host_waits"] == 0),
        Part(name=f"{name}, fed (host decode)", run=lambda: steps.fed("host"), good=enough),
        Part(name=f"{name}, fed (device decode)", run=lambda: steps.fed("device"), good=enough),
    ]


def _any(_: Mapping[str, Any]) -> bool:
    return True


def _fed_enough(figures: Mapping[str, Any]) -> bool:
    return bool(figures["fed_over_resident"] >= 0.95)


def _rate(name: str, measure: Callable[[], tuple[int, float]]) -> Part:
    def run() -> Answer:
        images, seconds = measure()
        return f"{images / seconds:,.0f} images/s", {"images_per_second": round(images / seconds, 1)}

    return Part(name=name, run=run)


def _thread_counts() -> list[int]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sorted({1, 4, cores} - {n for n in (4,) if n > cores})


def _engine_rate(device: torch.device, name: EngineName, batch: int, side: int) -> Callable[[], tuple[int, float]]:
    def measure() -> tuple[int, float]:
        blobs = drawn_jpegs(16, side=side) * (batch // 16)
        engine = open_engine(device, name)
        engine.decode(blobs, 3)
        _synchronize(device)
        began, images = time.perf_counter(), 0
        while time.perf_counter() - began < 1.0:
            engine.decode(blobs, 3)
            _synchronize(device)
            images += batch
        return images, time.perf_counter() - began

    return measure


def _native_rate(images: Sequence[bytes], threads: int) -> Callable[[], tuple[int, float]]:
    def measure() -> tuple[int, float]:
        crops = stream_crops(load_recipe("mae-default"))
        loop = TarStream(list(images), crops=crops, global_batch=64, decoder=open_decoder("auto"), threads=threads)
        batches = loop.lend(lambda shapes: tuple(np.zeros(shape, np.uint8) for shape in shapes))
        next(batches)
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < 1.0:
            next(batches)
            count += 64
        seconds = time.perf_counter() - began
        batches.close()  # type: ignore[attr-defined]  # it is a generator
        return count, seconds

    return measure


def _copy_rate(device: torch.device) -> Answer:
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


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


_SMALL: dict[str, dict[str, Any]] = {
    "mae": {"method.decoder_width": 64, "method.decoder_depth": 1, "method.decoder_heads": 4},
    "dinov2": {"method.head": {"prototypes": 256, "hidden": 64, "bottleneck": 32}, "method.local_crops.num": 2},
}
"""Changes for a dry run on a CPU."""


class _Steps:
    """Training steps of one model, built when the first part asks for them."""

    def __init__(
        self, device: torch.device, images: Sequence[bytes], method: Literal["dinov2", "mae"], size: str, batch: int
    ) -> None:
        self._device, self._images, self._method, self._size, self._batch = device, list(images), method, size, batch
        self._num = 20 if device.type == "cuda" else 2
        self._loop: Loop | None = None
        self._resident_rate = 0.0

    def _recipe(self) -> Recipe:
        name = {"dinov2": "dinov2-short", "mae": "mae-default"}[self._method]
        changes: dict[str, Any] = {
            "model.size": self._size,
            "run.epochs": None,
            "run.steps": 1000,
            "run.global_batch": self._batch,
            "run.unit_images": 32,
        }
        if self._device.type != "cuda":
            changes |= {"run.precision": "fp32"}
            changes |= _SMALL[self._method]
        return load_recipe(name, changes)

    def _built(self) -> Loop:
        if self._loop is None:
            recipe, world = self._recipe(), World(0, 1, self._device)
            method = build_method(recipe)
            network = distribute(method, recipe, world)
            self._loop = Loop(
                recipe=recipe,
                world=world,
                method=method,
                network=network,
                optimizer=build_optimizer(method.network, method.multipliers, recipe.optim),
                stream=self._stream("host"),
                checkpoints=None,  # type: ignore[arg-type]  # nothing is saved
            )
        return self._loop

    def _stream(self, decode: str) -> TarStream:
        decoder: Decoder = open_decoder("auto")
        if decode == "device":
            decoder = DeferringDecoder(open_decoder("auto", "exact"))
        recipe = self._recipe()
        threads = max(_thread_counts())
        return TarStream(
            self._images, crops=stream_crops(recipe), global_batch=self._batch, decoder=decoder, threads=threads
        )

    def _run(self, batches: Iterator[Any], num: int) -> float:
        """Seconds of `num` steps."""
        loop = self._built()
        _synchronize(self._device)
        began = time.perf_counter()
        for batch in islice(batches, num):
            loop.submit(batch.views, schedule(loop.recipe, loop.step), {"stop": 0.0}, batch.drawn)
            loop.step += 1
        _synchronize(self._device)
        return time.perf_counter() - began

    def resident(self) -> Answer:
        """Steps on one batch that stays on the device."""
        loop = self._built()
        feed = iter(DeviceStream(self._stream("host"), self._device, draw=loop.draw_from(0)))
        batch = next(feed)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._run(iter([batch] * 3), 3)
        seconds = self._run(iter([batch] * self._num), self._num)
        feed.close()
        self._resident_rate = self._num * self._batch / seconds
        figures = {"images_per_second": round(self._resident_rate, 1)}
        if self._device.type == "cuda":
            figures["peak_memory_gib"] = round(torch.cuda.max_memory_allocated(self._device) / 2**30, 2)
            figures |= self._utilisation()
        return f"{self._resident_rate:,.0f} images/s", figures

    def _utilisation(self) -> dict[str, float]:
        name = torch.cuda.get_device_name(self._device)
        peak = next((value for card, value in PEAK_BF16.items() if card in name), None)
        if peak is None:
            return {}
        needed = operations(self._method, self._size, image_px=224, patch_px=16)
        return {"mfu": round(self._resident_rate * needed / peak, 3)}

    def fed(self, decode: str) -> Answer:
        """Steps fed by the stream, as a run has them."""
        loop = self._built()
        if not self._resident_rate:
            raise Skipped("there is no rate on a resident batch to compare with")
        if decode == "device" and not engine_names():
            raise Skipped("no library that decodes on devices is installed: pip install 'biovfm[gpu]'")
        feed = DeviceStream(self._stream(decode), self._device, draw=loop.draw_from(loop.step))
        batches = iter(feed)
        self._run(batches, 2)
        seconds = self._run(batches, self._num)
        batches.close()
        rate = self._num * self._batch / seconds
        share = rate / self._resident_rate
        figures = {"images_per_second": round(rate, 1), "fed_over_resident": round(share, 3)}
        return f"{rate:,.0f} images/s, {share:.3f} of resident", figures

    def host_waits(self) -> Answer:
        """Calls for which the host waits in steps on a resident batch."""
        if self._device.type != "cuda":
            raise Skipped("no GPU")
        loop = self._built()
        feed = iter(DeviceStream(self._stream("host"), self._device, draw=loop.draw_from(0)))
        batch = next(feed)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for _ in range(3):
                    loop.submit(batch.views, schedule(loop.recipe, loop.step), {"stop": 0.0}, batch.drawn)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            feed.close()
        places = sorted({f"{one.filename}:{one.lineno}" for one in caught if "synchroniz" in str(one.message)})
        return f"{len(places)} places", {"host_waits": len(places), "places": places[:20]}
