"""What a unit test may do, enforced while `make unit` runs: no process, no server, no training library.

`pytest --unit` leaves out every test that carries one of the markers in `HEAVY`, does not even import the modules that
carry `torch` as a whole, and turns a process, a listening socket or an import of torch in what is left into a
failure that names the marker which the test needs.
"""

from __future__ import annotations

import re
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import pytest

HEAVY: Final = {"slow", "s3", "browser", "torch", "process"}
SERVERS: Final = {"s3_server", "bucket"}
_WHOLE_MODULE: Final = re.compile(r"^pytestmark = .*pytest\.mark\.torch\b", re.MULTILINE)
_FORBIDDEN: Final = {
    "subprocess.Popen": "process",
    "os.fork": "process",
    "os.forkpty": "process",
    "os.posix_spawn": "process",
    "socket.bind": "process",
    "multiprocessing.Process.start": "process",
}


class NotAUnitTestError(AssertionError):
    """A unit test does what needs a marker."""


def imports_torch(path: Path) -> bool:
    """Whether a test module carries the marker `torch` as a whole."""
    return bool(_WHOLE_MODULE.search(path.read_text(encoding="utf-8")))


def is_heavy(item: pytest.Item) -> bool:
    """Whether a marker, or a fixture that starts a server, keeps a test out of the unit suite."""
    fixtures = set(getattr(item, "fixturenames", ()))
    return bool(fixtures & SERVERS) or any(mark.name in HEAVY for mark in item.iter_markers())


class Guard:
    """Refuses processes and listening sockets while a test runs, its fixtures included.

    Attributes:
        active: Whether it refuses now. An audit hook cannot be removed, so it is switched.
    """

    def __init__(self) -> None:
        self.active = False
        sys.addaudithook(self._audit)
        sys.meta_path.insert(0, self)
        start = BaseProcess.start

        def guarded(process: BaseProcess) -> None:
            self._audit("multiprocessing.Process.start", ())
            start(process)

        BaseProcess.start = guarded  # type: ignore[method-assign]

    def _audit(self, event: str, _arguments: tuple[Any, ...]) -> None:
        if self.active and event in _FORBIDDEN:
            raise NotAUnitTestError(f"{event}: mark the test with pytest.mark.{_FORBIDDEN[event]}")

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        """Refuse the import of torch, at collection too; an import hook's answer None means: ask the next one."""
        if name == "torch":
            raise NotAUnitTestError("import torch: mark the test, or its module, with pytest.mark.torch")
