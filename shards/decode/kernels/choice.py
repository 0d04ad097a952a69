"""Whether a device's work is done by Triton kernels or by torch: decided once, with the reason."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from importlib import util
from typing import TYPE_CHECKING, Final, Literal, get_args

from shards.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["KernelName", "Kernels", "kernels_for"]

KernelName = Literal["torch", "triton"]
_SETTING: Final = "BIOVFM_KERNELS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """What does the work.

    Attributes:
        name: `triton` on a GPU where Triton compiles, else `torch`, the reference.
        reason: For the user.
        is_demanded: Whether the user asks for these and no others.
    """

    name: KernelName
    reason: str
    is_demanded: bool = False

    @property
    def line(self) -> str:
        """A line for the user."""
        return f"crops and augmentation on the device by {self.name}: {self.reason}"


def kernels_for(device: torch.device) -> Kernels:
    """What crops and augments on a device, as far as this process knows.

    `BIOVFM_KERNELS=torch` takes the reference everywhere. A run on several ranks has one answer for all
    (`train.choice.choose_kernels`).

    Raises:
        ConfigError: The setting is another word, or asks for Triton where it cannot be used.
    """
    wanted = os.environ.get(_SETTING, "auto")
    if wanted not in {"auto", *get_args(KernelName)}:
        raise ConfigError(f"{_SETTING}={wanted!r} is no choice of kernels", hint="use auto, torch or triton")
    if wanted == "torch":
        return Kernels(name="torch", reason=f"{_SETTING}=torch")
    found = _found(device)
    if wanted == "triton" and found.name != "triton":
        raise ConfigError(f"{_SETTING}=triton: {found.reason}", hint=f"use {_SETTING}=auto")
    return replace(found, is_demanded=wanted == "triton")


@cache
def _found(device: torch.device) -> Kernels:
    if device.type != "cuda":
        return Kernels(name="torch", reason=f"{device.type} is no GPU")
    if util.find_spec("triton") is None:
        return Kernels(name="torch", reason="Triton is not installed (pip install triton)")
    import triton

    if triton.knobs.runtime.interpret:
        return Kernels(name="torch", reason="TRITON_INTERPRET is set")
    from shards.decode.kernels.triton_crop import try_on

    try:
        try_on(device)
    except Exception as error:  # noqa: BLE001 - a missing compiler, header or driver shows in many ways
        lines = str(error).splitlines()
        detail = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        return Kernels(name="torch", reason=f"Triton does not work here ({detail})")
    return Kernels(name="triton", reason=f"Triton {triton.__version__}")
