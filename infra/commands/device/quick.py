"""The quick check: devices, libraries, and whether decoding beside queued work corrupts memory."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from infra.commands.device.images import drawn_jpegs
from infra.commands.device.parts import Part, Skipped
from shards.decode import Crops, open_decoder
from shards.decode.device import DeviceDecoder
from shards.decode.engines import EngineName, engine_names, open_engine

__all__ = ["card_of", "device_here", "quick_parts"]

Answer = tuple[str, Mapping[str, Any]]
TRIALS = 200
"""Of the corruption test."""


def device_here() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def card_of(device: torch.device) -> str:
    """Name of a GPU; empty for the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def quick_parts(device: torch.device) -> list[Part]:
    """What `biovfm doctor --device` looks at."""
    parts = [
        Part(name="devices", run=_devices),
        Part(name="video engine", run=_video_engine),
        Part(name="bf16", run=lambda: _bf16(device)),
        Part(name="triton", run=_triton),
    ]
    for name in engine_names() or ["torchcodec"]:
        parts += [
            Part(name=f"decode {name}", run=lambda name=name: decode_check(device, name), good=_is_close),  # type: ignore[misc]
            Part(
                name=f"corruption {name}",
                run=lambda name=name: corruption(device, name),  # type: ignore[misc]
                good=lambda figures: figures["corrupt"] == 0,
            ),
        ]
    return parts


def _devices() -> Answer:
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    figures = {"devices": names, "torch": torch.__version__, "cuda": torch.version.cuda or ""}
    return f"{', '.join(names) or 'no GPU: the CPU is used'} (torch {torch.__version__})", figures


def _video_engine() -> Answer:
    if not torch.cuda.is_available():
        raise Skipped("no GPU")
    command = ["nvidia-smi", "--query-gpu=driver_version,utilization.decoder", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603 - the driver's
    answer = done.stdout.strip()
    found = "N/A" not in answer
    detail = "seen" if found else "not seen: give the container NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
    return f"{detail} ({answer.splitlines()[0]})", {"driver_and_use": answer, "seen": found}


def _bf16(device: torch.device) -> Answer:
    values = torch.randn(64, 64, device=device, dtype=torch.bfloat16)
    error = float((values @ values - (values.float() @ values.float())).abs().max())
    return f"matrix product within {error:.2g}", {"largest_error": error}


def _triton() -> Answer:
    if not torch.cuda.is_available():
        raise Skipped("no GPU")
    compiled = torch.compile(lambda x: (x * 2 + 1).sum())
    value = float(compiled(torch.ones(1000, device="cuda")))
    return f"a compiled kernel gives {value:g} of 3000", {"value": value}


def _is_close(figures: Mapping[str, Any]) -> bool:
    return bool(figures["psnr_444_db"] >= 48)


def decode_check(device: torch.device, name: EngineName) -> Answer:
    """Crops by a library against those of the host, in dB; higher is closer."""
    figures = {}
    crops = [Crops(size_px=224)]
    for chroma, label in ((0, "444"), (2, "420")):
        blobs = drawn_jpegs(8, side=320, subsampling=chroma)
        seeds = np.arange(len(blobs), dtype=np.uint64)
        want = np.empty((len(blobs), 1, 224, 224, 3), np.uint8)
        open_decoder("auto", "exact").decode(blobs, seeds, crops, [want])
        got = torch.empty(want.shape, dtype=torch.uint8, device=device)
        status = DeviceDecoder(device=device, engine=name).decode(blobs, seeds, crops, [got])
        if status.any():
            raise RuntimeError(f"{int((status != 0).sum())} of {len(blobs)} images were not decoded")
        error = float(((got.cpu().numpy().astype(float) - want) ** 2).mean())
        figures[f"psnr_{label}_db"] = round(10 * float(np.log10(255**2 / max(error, 1e-9))), 1)
    return f"PSNR {figures['psnr_444_db']} dB at 4:4:4, {figures['psnr_420_db']} dB at 4:2:0", figures


def corruption(device: torch.device, name: EngineName) -> Answer:
    """Queue work that reads a block, free the block, decode; whether the work still saw its own bytes."""
    if device.type != "cuda":
        raise Skipped("no GPU: nothing is queued on the CPU")
    blobs = drawn_jpegs(32, side=256)
    engine = open_engine(device, name)
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's stub
    corrupt = 0
    with torch.cuda.stream(side):
        for _ in range(TRIALS):
            block = torch.full((32, 3, 256, 256), 7, dtype=torch.uint8, device=device)
            busy = torch.randn(2048, 2048, device=device)
            for _ in range(4):
                busy = busy @ busy / 2048
            total = block.sum(dtype=torch.int64) + (busy.sum() * 0).long()
            del block
            side.synchronize()  # the drain that the feeder does before each decode
            engine.decode(blobs, 3)
            corrupt += int(total) != 7 * 32 * 3 * 256 * 256
    return f"{corrupt} of {TRIALS} trials", {"corrupt": corrupt, "trials": TRIALS}
