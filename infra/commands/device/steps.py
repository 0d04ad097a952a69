"""Training steps of one model on a device: on a batch that stays there, and fed by the stream."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import islice, pairwise, repeat
from typing import Any, ClassVar, Final, Literal

import torch

from infra.commands.device.images import TarStream
from infra.commands.device.parts import Part, Skipped
from infra.commands.device.quick import Answer
from infra.estimate.operations import PEAK_BF16, operations
from shards.decode import Decoder, open_decoder
from shards.decode.device import DeferringDecoder
from shards.decode.engines import engine_names
from shards.decode.kernels.choice import kernels_for
from shards.stream.cores import usable_cores
from train.choice import choose_compile
from train.data import decode_threads, stream_crops
from train.distributed import World, distribute
from train.feed.device_stream import DeviceBatch, DeviceStream
from train.loop import Loop
from train.methods import build_method
from train.optim import build_optimizer
from train.recipe import Recipe
from train.recipe_files import load_recipe
from train.schedules import schedule

__all__ = ["Steps", "step_parts", "thread_counts"]

Method = Literal["dinov2", "mae"]
GOALS: Final[dict[tuple[Method, str], float]] = {
    ("dinov2", "small"): 1700,
    ("dinov2", "base"): 600,
    ("dinov2", "large"): 200,
    ("mae", "base"): 4000,
    ("mae", "large"): 2000,
}
"""Images per second on an H100 or H200, on a batch that stays there."""
LEAST_FED: Final = {("mae", "base"): 0.95}
"""Of the rate on a resident batch, what a fed step must keep; 0.97 for the others."""
MOST_WAITED: Final = 0.02
"""Share of the time in which the device may wait for a batch."""
WARM_UP: Final = 3
"""Steps before the rate of a resident batch is measured: what is compiled is compiled then."""
_SHOWN: Final = 20
_SMALL: Final[dict[Method, dict[str, Any]]] = {
    "mae": {"method.decoder_width": 64, "method.decoder_depth": 1, "method.decoder_heads": 4},
    "dinov2": {"method.head": {"prototypes": 256, "hidden": 64, "bottleneck": 32}, "method.local_crops.num": 2},
}
"""Changes for a dry run on a CPU."""


def thread_counts() -> list[int]:
    """Powers of two up to the cores that this process may use, and all of them."""
    cores = usable_cores()
    return sorted({1 << power for power in range(cores.bit_length())} | {cores})


def step_parts(device: torch.device, images: Sequence[bytes], method: Method, size: str, batch: int) -> list[Part]:
    """What is measured of one model; the last part frees its memory."""
    cuda = device.type == "cuda"
    steps, name = Steps(device, images, method, size, batch), f"{method} {size}"
    eager = Steps(device, images, method, size, batch, changes={"run.compile": False})

    def is_fed(figures: Mapping[str, Any]) -> bool:
        return not cuda or (
            figures["fed_over_resident"] >= LEAST_FED.get((method, size), 0.97)
            and figures["consumer_wait"] < MOST_WAITED
        )

    def reaches_goal(figures: Mapping[str, Any]) -> bool:
        goal = GOALS.get((method, size), 0.0) if cuda and _is_hopper(device) else 0.0
        return bool(figures["images_per_second"] >= goal)

    return [
        Part(name=f"{name}, resident", run=steps.resident, good=reaches_goal),
        Part(name=f"{name}, host waits", run=steps.host_waits, good=lambda figures: figures["host_waits"] == 0),
        Part(name=f"{name}, fed (host decode)", run=lambda: steps.fed("host"), good=is_fed),
        Part(name=f"{name}, fed (device decode)", run=lambda: steps.fed("device"), good=is_fed),
        Part(name=f"{name}, top kernels", run=lambda: _then(steps.top_kernels, steps.release)),
        Part(name=f"{name}, resident, eager", run=lambda: _then(eager.eager, eager.release)),
    ]


def _then(measure: Callable[[], Answer], release: Callable[[], None]) -> Answer:
    try:
        return measure()
    finally:
        release()


def _is_hopper(device: torch.device) -> bool:
    return any(card in torch.cuda.get_device_name(device) for card in ("H100", "H200"))


class Steps:
    """Training steps of one model, built when the first part asks for them.

    Args:
        device: Where to train.
        images: Compressed images to feed.
        method: Objective.
        size: Of the backbone.
        batch: Images per step.
        changes: Of the method's shipped recipe.
    """

    _open: ClassVar[Steps | None] = None
    """Whose model is in memory; there is one at a time."""

    def __init__(
        self,
        device: torch.device,
        images: Sequence[bytes],
        method: Method,
        size: str,
        batch: int,
        *,
        changes: Mapping[str, Any] | None = None,
    ) -> None:
        self._device, self._images, self._method, self._size, self._batch = device, list(images), method, size, batch
        self._changes = dict(changes or {})
        self._cuda = device.type == "cuda"
        self._num = 20 if self._cuda else 2
        self._loop: Loop | None = None
        self._uncompiled = ""
        self._is_broken = False
        self._resident_rate = 0.0

    def _recipe(self) -> Recipe:
        name = {"dinov2": "dinov2-short", "mae": "mae-default"}[self._method]
        changes: dict[str, Any] = {
            "model.size": self._size,
            "run.epochs": None,
            "run.steps": 1000,
            "run.global_batch": self._batch,
            "run.unit_images": min(self._batch, 32),
        }
        if not self._cuda:
            changes |= {"run.precision": "fp32"}
            changes |= _SMALL[self._method]
        return load_recipe(name, changes | self._changes)

    def _built(self) -> Loop:
        if self._loop is None:
            if Steps._open is not None:
                Steps._open.release()  # where only some parts are asked for, its last one may not have run
            Steps._open, self._is_broken = self, True
            recipe, world = self._recipe(), World(0, 1, self._device)
            method = build_method(recipe)
            compiles, self._uncompiled = choose_compile(recipe, world)
            kernels = kernels_for(self._device).name
            network = distribute(method, recipe, world, kernels=kernels, compiles=compiles)
            self._loop = Loop(
                recipe=recipe,
                world=world,
                method=method,
                network=network,
                optimizer=build_optimizer(method.network, method.multipliers, recipe.optim),
                stream=self._stream("host"),
                checkpoints=None,  # type: ignore[arg-type]  # nothing is saved
            )
            self._is_broken = False
        return self._loop

    def release(self) -> None:
        """Free the model's memory."""
        self._loop = None
        if Steps._open is self:
            Steps._open = None
        if self._cuda:
            torch.cuda.empty_cache()

    def _stream(self, decode: Literal["host", "device"]) -> TarStream:
        decoder: Decoder = open_decoder("auto")
        if decode == "device":
            decoder = DeferringDecoder(open_decoder("auto", "exact"))
        return TarStream(
            self._images,
            crops=stream_crops(self._recipe()),
            global_batch=self._batch,
            decoder=decoder,
            threads=decode_threads(self._device),
        )

    @contextmanager
    def _fed(self, decode: Literal["host", "device"]) -> Iterator[Iterator[DeviceBatch]]:
        """Batches as a run has them."""
        loop = self._built()
        feed = DeviceStream(self._stream(decode), self._device, draw=loop.draw_from(loop.step))
        with closing(iter(feed)) as batches:
            yield batches

    @contextmanager
    def _resident(self) -> Iterator[Iterator[DeviceBatch]]:
        """One batch that stays on the device, over and over."""
        with self._fed("host") as batches:
            yield repeat(next(batches))

    def _run(self, batches: Iterator[DeviceBatch], num: int) -> tuple[float, float]:
        """Seconds that `num` steps take, and those in which the device (on a CPU: the thread) waits for its batch.

        On a GPU the wait is the time between the end of a step and the moment when the next batch is there and its
        step begins, by events on the stream that computes.
        """
        loop, waited = self._built(), 0.0
        marks: list[tuple[Any, Any]] = []
        self._synchronize()
        began = time.perf_counter()
        for _ in range(num):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            ready = self._mark()
            loop.submit(batch.views, schedule(loop.recipe, loop.step), {"stop": 0.0}, batch.drawn)
            loop.step += 1
            marks.append((ready, self._mark()))
        self._synchronize()
        seconds = time.perf_counter() - began
        if self._cuda:
            waited = sum(end.elapsed_time(ready) for (_, end), (ready, _) in pairwise(marks)) / 1000
        return seconds, waited

    def _mark(self) -> Any:
        if not self._cuda:
            return None
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's stub
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _synchronize(self) -> None:
        if self._cuda:
            torch.cuda.synchronize(self._device)

    def resident(self) -> Answer:
        """Steps on one batch that stays on the device."""
        with self._resident() as batches:
            first, _ = self._run(batches, WARM_UP)
            if self._cuda:
                torch.cuda.reset_peak_memory_stats(self._device)
            seconds, _ = self._run(batches, self._num)
        self._resident_rate = self._num * self._batch / seconds
        figures = {
            "batch": self._batch,
            "images_per_second": round(self._resident_rate, 1),
            "warm_up_s": round(first, 2),
        }
        if self._cuda:
            figures["peak_memory_gib"] = round(torch.cuda.max_memory_allocated(self._device) / 2**30, 2)
            figures |= self._utilisation()
        parts = [f"{self._resident_rate:,.0f} images/s in batches of {self._batch}"]
        parts += [f"MFU {figures['mfu']:.1%}"] if "mfu" in figures else []
        parts += [f"{figures['peak_memory_gib']} GiB"] if self._cuda else []
        parts += [self._uncompiled] if self._uncompiled else []
        return ", ".join(parts), figures

    def eager(self) -> Answer:
        """The same without compiling."""
        if not self._cuda:
            raise Skipped("no GPU: nothing is compiled")
        return self.resident()

    def _utilisation(self) -> dict[str, float]:
        name = torch.cuda.get_device_name(self._device)
        peak = next((value for card, value in PEAK_BF16.items() if card in name), None)
        if peak is None:
            return {}
        needed = operations(self._method, self._size, image_px=224, patch_px=16)
        return {"mfu": round(self._resident_rate * needed / peak, 3)}

    def fed(self, decode: Literal["host", "device"]) -> Answer:
        """Steps fed by the stream, as a run has them, between steps on a resident batch to compare with."""
        if self._is_broken:
            raise Skipped("the model could not be built")
        if decode == "device" and not engine_names():
            raise Skipped("no library that decodes on devices is installed: pip install 'biovfm[gpu]'")
        resident = self._resident_seconds()
        with self._fed(decode) as batches:
            self._run(batches, 2)
            seconds, waited = self._run(batches, self._num)
        resident = (resident + self._resident_seconds()) / 2
        rate = self._num * self._batch / seconds
        share, wait = resident * self._num / seconds, waited / seconds
        figures = {
            "images_per_second": round(rate, 1),
            "fed_over_resident": round(share, 3),
            "consumer_wait": round(wait, 4),
        }
        return f"{rate:,.0f} images/s, {share:.3f} of resident, {wait:.1%} waiting", figures

    def _resident_seconds(self) -> float:
        """Of a step."""
        num = max(self._num // 2, 1)
        with self._resident() as batches:
            self._run(batches, 1)
            return self._run(batches, num)[0] / num

    def host_waits(self) -> Answer:
        """Calls for which the training thread waits in fed steps, once they are under way."""
        if not self._cuda:
            raise Skipped("no GPU")
        with self._fed("host") as batches:
            self._run(batches, 4)
            loop = self._built()
            with _sync_warnings() as places:
                for batch in islice(batches, 16):
                    loop.submit(batch.views, schedule(loop.recipe, loop.step), {"stop": 0.0}, batch.drawn)
                    loop.step += 1
        found = sorted(set(places))
        return f"{len(found)} places", {"host_waits": len(found), "places": found[:_SHOWN]}

    def top_kernels(self) -> Answer:
        """What steps on a resident batch spend the device's time on, by PyTorch's profiler."""
        activity, steps = torch.profiler.ProfilerActivity, 3 if self._cuda else 1
        kinds = [activity.CUDA] if self._cuda else [activity.CPU]
        with self._resident() as batches:
            self._run(batches, 1)
            with torch.profiler.profile(activities=kinds) as profile:
                seconds, _ = self._run(batches, steps)
        rows = [(row.key, float(self._own_time(row)), int(row.count)) for row in profile.key_averages()]
        rows = sorted((row for row in rows if row[1] > 0), key=lambda row: -row[1])
        total = sum(time_us for _, time_us, _ in rows)
        kernels = [
            {"name": name[:120], "share": round(time_us / total, 4), "calls_per_step": round(count / steps, 1)}
            for name, time_us, count in rows[:_SHOWN]
        ]
        figures = {
            "calls_per_step": round(sum(count for *_, count in rows) / steps, 1),
            "busy_ms_per_step": round(total / steps / 1000, 2),
            "ms_per_step": round(seconds / steps * 1000, 2),
        }
        shown = "; ".join(f"{one['share']:.0%} {str(one['name'])[:40]}" for one in kernels[:3])
        detail = f"{figures['calls_per_step']:,.0f} calls and {figures['busy_ms_per_step']} of "
        return f"{detail}{figures['ms_per_step']} ms per step: {shown}", figures | {"kernels": kernels}

    def _own_time(self, row: Any) -> float:
        return float(row.self_device_time_total if self._cuda else row.self_cpu_time_total)


@contextmanager
def _sync_warnings() -> Iterator[list[str]]:
    """The places of this thread, and of no other, at which PyTorch waits for the GPU."""
    places: list[str] = []
    here = threading.current_thread()

    def note(message: Warning | str, _: type[Warning], filename: str, lineno: int, *_rest: Any) -> None:
        if threading.current_thread() is here and "called a synchronizing" in str(message):
            places.append(f"{filename}:{lineno}")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]  # it is called with these by position
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode("default")
