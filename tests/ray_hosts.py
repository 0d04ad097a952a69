"""A Ray cluster over hosts of their own: `tests.hosts` with Ray on each.

with hosts(["head", "one", "two"]) as (head, *workers), ray_on(head, workers, folder=tmp_path) as cluster:
    head.start(["biovfm", ..., "--address", cluster.address], env=cluster.env, log=log)
    workers[1].cut()

The head gives a node up that has been silent for some 15 seconds, not for a minute as is Ray's habit.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults import wait_for
from tests.hosts import Host

_PORT = 6379
_QUICK = {"health_check_period_ms": 1000, "health_check_timeout_ms": 3000, "health_check_failure_threshold": 4}
_RAY = (sys.executable, "-m", "ray.scripts.scripts", "start")
_SMALL = ("--object-store-memory=100000000", "--disable-usage-stats", "--block")
_ENV = {
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",  # otherwise a token in the home directory of whoever runs the tests is asked for
    "RAY_NUM_REDIS_GET_RETRIES": "120",
    "RAY_memory_monitor_refresh_ms": "0",
}
_TRIES = 3
"""Times that Ray is started on a host: it gives its own processes 30 seconds, which a busy machine may not have."""


@dataclass(slots=True, kw_only=True)
class Cluster:
    """A head that does no work itself, and worker hosts of one CPU each.

    Attributes:
        head: Where commands are to be started.
        workers: The other hosts.
        env: Environment of all processes.
        folder: For logs.
        scratch: Ray's own folder; short, since the paths of sockets must be.
        starts: Times that Ray was started on a host.
    """

    head: Host
    workers: Sequence[Host]
    env: Mapping[str, str]
    folder: Path
    scratch: Path
    starts: int = field(default=0)

    @property
    def address(self) -> str:
        """For `--address` and `--ray`."""
        return f"{self.head.address}:{_PORT}"

    def start(self) -> None:
        """Start Ray on each host."""
        words = ["--head", f"--node-ip-address={self.head.address}", f"--port={_PORT}", "--num-cpus=0"]
        more = ["--include-dashboard=false", f"--system-config={json.dumps(_QUICK)}", f"--temp-dir={self.scratch}"]
        self._start(self.head, [*words, *more])
        for host in self.workers:  # one after the other: they share a disk, and with it the names of their sockets
            self._start(host, [f"--address={self.address}", f"--node-ip-address={host.address}", "--num-cpus=1"])

    def power_off(self) -> None:
        """End every process of all hosts."""
        for host in (self.head, *self.workers):
            host.power_off()

    def _start(self, host: Host, words: Sequence[str]) -> None:
        for _ in range(_TRIES):
            self.starts += 1
            log = self.folder / f"{host.name}-{self.starts}.log"
            process = host.start([*_RAY, *words, *_SMALL], env=self.env, log=log)
            wait_for(lambda: process.poll() is not None or "Ray runtime started" in log.read_text(), seconds=240)  # noqa: B023 - awaited here
            if process.poll() is None:
                return
            host.power_off()
        pytest.fail(log.read_text())


@contextmanager
def ray_on(
    head: Host, workers: Sequence[Host], *, folder: Path, env: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A running cluster; `env` goes to Ray and to what is started with the cluster's environment."""
    scratch = Path(f"/tmp/bv-ray-{head.name[2:6]}")
    made = Cluster(head=head, workers=workers, env={**(env or {}), **_ENV}, folder=folder, scratch=scratch)
    try:
        made.start()
        yield made
    finally:
        made.power_off()
        shutil.rmtree(scratch, ignore_errors=True)
