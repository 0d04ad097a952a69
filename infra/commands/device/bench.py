"""The benchmark of a device: decode rates, copies, and steps fed by the stream against steps on a resident batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from infra.commands.device.kernels import kernel_parts
from infra.commands.device.parts import Part
from infra.commands.device.quick import quick_parts
from infra.commands.device.rates import comparison_parts, copy_part, decode_parts
from infra.commands.device.steps import Method, step_parts

__all__ = ["BENCH_SECONDS", "bench_parts"]

BENCH_SECONDS = 480.0
MODELS: dict[str, list[tuple[Method, str, int]]] = {
    "cuda": [
        ("dinov2", "small", 256),
        ("dinov2", "base", 128),
        ("dinov2", "large", 64),
        ("mae", "base", 512),
        ("mae", "large", 256),
    ],
    "cpu": [("mae", "nano", 8), ("dinov2", "nano", 8)],
}
"""Device type → method, model size and images per step: as many as keep a GPU longer than the host needs to launch."""


def bench_parts(device: torch.device, images: Sequence[bytes]) -> list[Part]:
    """What `biovfm doctor --device --bench` runs, the quick check first, what may be left out at the end.

    Args:
        device: To be measured.
        images: Real images, which steps are fed with.
    """
    parts = [*quick_parts(device), *decode_parts(device, images), copy_part(device), *kernel_parts(device)]
    for method, size, batch in MODELS[device.type]:
        parts += step_parts(device, images, method, size, batch)
    return parts + comparison_parts(device)
