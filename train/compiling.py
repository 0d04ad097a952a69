"""`torch.compile` by parts: blocks, heads and losses, each small and used many times, so that compiling takes seconds.

A part is compiled for itself since FSDP, activation checkpointing and stochastic depth work between the parts.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util
from typing import Final, TypeVar

import torch
from torch import nn

from train.backbone import TrainBlock
from train.objectives.heads import PrototypeHead
from train.recipe import RunConfig

__all__ = ["Compiled", "Missing", "compile_parts", "find_missing", "wants_compile"]

BACKEND: Final = "inductor"
_PARTS: Final = (TrainBlock, PrototypeHead)
_Function = TypeVar("_Function", bound=Callable[..., object])


def wants_compile(run: RunConfig, device: torch.device) -> bool:
    """Whether a run compiles on a device: as the recipe says, and with `auto` on CUDA."""
    return device.type == "cuda" if run.compile == "auto" else run.compile


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What `torch.compile` needs and this machine does not have.

    Attributes:
        reason: What needs it.
        remedy: What to install or set.
    """

    reason: str
    remedy: str


def find_missing(device: torch.device) -> Missing | None:
    """Look for what `torch.compile` calls where it compiles for a device; None where all is there.

    The search is theirs: Inductor takes the command line in `CXX`, else g++ (clang++ on macOS); Triton takes the
    program in `CC`, else gcc or clang.
    """
    if BACKEND != "inductor":
        return None
    if device.type != "cuda":
        if os.environ.get("TORCH_INDUCTOR_INSTALL_GXX"):  # Inductor installs a compiler itself
            return None
        return _find_compiler("C++", "CXX", ("clang++",) if sys.platform == "darwin" else ("g++",))
    if util.find_spec("triton") is None:
        return Missing(reason="torch.compile needs Triton on a GPU", remedy="pip install triton")
    return _find_compiler("C", "CC", ("gcc", "clang"))


def _find_compiler(language: str, variable: str, names: tuple[str, ...]) -> Missing | None:
    named = os.environ.get(variable)
    programs = names if named is None else (named if variable == "CC" else _first_word(named),)
    if any(map(shutil.which, programs)):
        return None
    looked = " or ".join(names) if named is None else f"{variable}={named}"
    return Missing(
        reason=f"torch.compile needs a {language} compiler, and {looked} is not found",
        remedy=f"install {names[0]} (Debian: apt-get install {names[0]}), or name a compiler in {variable}",
    )


def _first_word(line: str) -> str:
    """The program of a command line such as `ccache g++`; empty where it has none."""
    try:
        return next(iter(shlex.split(line)), "")
    except ValueError:  # a quotation mark without its other one
        return ""


def compile_parts(module: nn.Module) -> None:
    """Compile the blocks and heads in a module, in place."""
    for part in module.modules():
        if isinstance(part, _PARTS):
            part.compile(backend=BACKEND)


class Compiled:
    """Functions in their compiled form, once this is switched on.

    Attributes:
        active: Whether functions are compiled; else they are called as they are.
    """

    def __init__(self) -> None:
        self.active = False
        self._made: dict[Callable[..., object], Callable[..., object]] = {}

    def __call__(self, function: _Function) -> _Function:
        """The function to call; sizes may change from call to call (masked patches do) without compiling again."""
        if not self.active:
            return function
        if function not in self._made:
            self._made[function] = torch.compile(function, dynamic=True, backend=BACKEND)
        return self._made[function]  # type: ignore[return-value]  # it has the function's signature
