"""What the tests of Triton's kernels share: where they run, how many examples, what compiles them for a GPU.

`BIOVFM_KERNEL_EXAMPLES` draws more examples than the suite's few; the interpreter takes about a second for each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("BIOVFM_KERNEL_EXAMPLES", "3"))
DRAWN = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES < 10, suppress_health_check=list(HealthCheck)
)
"""For hypothesis."""

_COMPILE = """
from importlib import import_module
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
module = import_module({module!r})
for name, signature, constants in {kernels!r}:
    source = ASTSource(
        fn=getattr(module, name), signature=signature | dict.fromkeys(constants, "constexpr"), constexprs=constants
    )
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]
"""
Kernel = tuple[str, Mapping[str, object], Mapping[str, object]]
"""Name, types of the arguments, constants."""


def need_triton() -> None:
    """Skip a module where kernels cannot run."""
    pytest.importorskip("triton", reason="Triton is not installed")


def compiles_for_a_gpu(module: str, kernels: Sequence[Kernel]) -> None:
    """Compile kernels of a module to machine code of an H100, which needs none.

    In a process of its own: here its functions belong to the interpreter.
    """
    program = _COMPILE.format(module=module, kernels=list(kernels))
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
