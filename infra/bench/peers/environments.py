"""A virtual environment for each peer, made by pip with pinned versions.

Those on torch are layers over one environment that holds it: a path file puts the lower one's packages behind the
layer's own, so that a peer has its own versions and torch lies on the disk once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.bench.peers.contestants import TORCH, Contestant
from shards.files import write_text

_BELOW = "below.pth"


class PeerError(Exception):
    """A peer cannot be installed or run; the message is the row that the table gets."""


def interpreter(contestant: Contestant, folder: Path, *, say: Callable[[str], None]) -> Path:
    """The Python that runs a contestant; makes its environment where it is not there yet.

    Args:
        contestant: The contestant.
        folder: Where environments lie.
        say: Called with what is being done.

    Raises:
        PeerError: It cannot be installed.
    """
    if contestant.requirements is None:
        return Path(sys.executable)
    below = None
    if contestant.base:
        below = folder / contestant.base
        _make(below, TORCH, below=None, say=say)
        if not contestant.requirements:
            return below / "bin" / "python"
    environment = folder / contestant.name
    _make(environment, contestant.requirements, below=below, say=say)
    return environment / "bin" / "python"


def _make(environment: Path, requirements: Sequence[str], *, below: Path | None, say: Callable[[str], None]) -> None:
    marker = environment / "made.json"
    wanted = json.dumps(list(requirements))
    if marker.exists() and marker.read_text() == wanted:
        return
    say(f"installing {' '.join(requirements)}")
    shutil.rmtree(environment, ignore_errors=True)
    _call(sys.executable, "-m", "venv", str(environment))
    if below is not None:
        packages = next(environment.glob("lib/python*/site-packages"))
        write_text(packages / _BELOW, f"{next(below.glob('lib/python*/site-packages'))}\n")
    python = str(environment / "bin" / "python")
    _call(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
    write_text(marker, wanted)


def _call(*command: str) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
    if done.returncode:
        raise PeerError(last_line(done.stderr) or f"{command[0]} ended with {done.returncode}")


def last_line(text: str) -> str:
    """The last line that says something; where pip and Python put their reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("[notice]")]
    return lines[-1] if lines else ""
