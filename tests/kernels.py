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
kernel = getattr(import_module({module!r}), {kernel!r})
for constants in {constants!r}:
    signature = {signature!r} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    for architecture in (80, 90):
        made = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
        assert made.asm["cubin"]
"""


def need_triton() -> None:
    """Skip a module where kernels cannot run."""
    pytest.importorskip("triton", reason="Triton is not installed")


def compiles_for_gpus(
    module: str, kernel: str, *, signature: Mapping[str, object], constants: Sequence[Mapping[str, object]]
) -> None:
    """Compile a kernel to machine code of an A100 and an H100, which needs neither of them.

    In a process of its own: here its functions belong to the interpreter.
    """
    program = _COMPILE.format(module=module, kernel=kernel, signature=signature, constants=constants)
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
