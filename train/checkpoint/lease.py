"""One process at a time writes into a run's folder: a lease with a heartbeat, on any store.

    .lease/00000007   {"token": ..., "host": ..., "pid": ..., ...}

The object with the highest number is the lease. Its holder creates the next number every `BEAT_SECONDS` and deletes the
one before. Another process takes a lease over by creating the next number as well: a name can be created only once, so
one of two takers wins, and a holder that was only suspended finds its own next number taken and stops. A lease
without a heartbeat for `EXPIRES_SECONDS` may be taken over; at once, where its process ran on this machine and ended.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from shards.errors import AlreadyExistsError, CheckpointError, NotFoundError, StoreError
from shards.store import Store
from shards.store.clock import store_time

__all__ = ["BEAT_SECONDS", "EXPIRES_SECONDS", "Lease", "hold_folder"]

BEAT_SECONDS = 10.0
EXPIRES_SECONDS = 60.0
_PREFIX = ".lease/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process that holds a lease.

    Attributes:
        token: Random, one per lease.
        host: Name of the machine.
        machine: Boot and process namespace: two processes that share it can see each other; empty where unknown.
        pid: Process id in that namespace.
        started: When the process started, by the machine's clock ticks: process ids are used again.
    """

    token: str
    host: str
    machine: str
    pid: int
    started: str

    @classmethod
    def this_process(cls) -> Owner:
        """The process that calls."""
        return cls(
            token=secrets.token_hex(8),
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            started=_start_of(os.getpid()),
        )

    def has_ended(self) -> bool | None:
        """Whether the process is gone; None where that cannot be seen from here."""
        if not self.machine or self.machine != _machine():
            return None
        return not self.started or _start_of(self.pid) != self.started


@dataclass(frozen=True, slots=True)
class _Held:
    """The lease as it lies on the store: its number, its owner, the store's time of the last heartbeat."""

    number: int
    owner: Owner
    modified: float


class Lease:
    """The right to write into a run's folder.

    Args:
        store: Of the folder.
        say: Takes one line for the user.
        beat_seconds: Time between two heartbeats.
        expires_seconds: Time without a heartbeat after which another process may take over.
    """

    def __init__(
        self,
        store: Store,
        *,
        say: Callable[[str], None],
        beat_seconds: float = BEAT_SECONDS,
        expires_seconds: float = EXPIRES_SECONDS,
    ) -> None:
        self._store = store
        self._say = say
        self._beat_seconds = beat_seconds
        self._expires_seconds = expires_seconds
        self._owner = Owner.this_process()
        self._number = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = False

    def acquire(self) -> None:
        """Take the lease and start its heartbeat.

        Raises:
            CheckpointError: A live process holds it.
            StoreError: The folder cannot be written.
        """
        while not self._claim(self._free_number()):
            pass
        self._thread = threading.Thread(target=self._keep_alive, name="run-lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Stop the heartbeat and give the lease back."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if not self.lost:
            with suppress(StoreError):  # it expires by itself
                self._store.delete([_name(self._number)])

    def check(self) -> None:
        """Refuse to go on where another process took the folder over.

        Raises:
            CheckpointError: With the other process.
        """
        if self.lost:
            held = self._newest()
            who = _described(held.owner) if held else "another process"
            raise CheckpointError(
                f"{self._store.url} was taken over by {who}, since this process gave no heartbeat for "
                f"{self._expires_seconds:.0f} s",
                hint="leave the run to that process, or stop it and run the same command again",
            )

    def _free_number(self) -> int:
        """The number to claim, once nobody alive holds the lease."""
        held = self._newest()
        if held is None:
            return 1
        ended = held.owner.has_ended()
        if ended is False:
            raise self._refusal(held.owner)
        if ended is None and not self._falls_silent(held):
            raise self._refusal(held.owner)
        why = "which has ended" if ended else f"which gave no heartbeat for {self._expires_seconds:.0f} s"
        self._say(f"{self._store.url}: taking the run over from {_described(held.owner)}, {why}")
        return held.number + 1

    def _falls_silent(self, held: _Held) -> bool:
        """Wait until the lease has expired or gone; False as soon as its holder gives a heartbeat."""
        left = self._expires_seconds - self._age(held)
        if left > 0:
            self._say(
                f"{self._store.url} is held by {_described(held.owner)}; waiting up to {left:.0f} s for its heartbeat"
            )
        deadline = time.monotonic() + left
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 1.0, self._beat_seconds))
            now = self._newest()
            if now is None:
                return True
            if now.number != held.number:
                return False
        return True

    def _age(self, held: _Held) -> float:
        """Seconds since the last heartbeat, both times by the store's clock; 0 where it tells none."""
        return max(store_time(self._store, _PREFIX.rstrip("/")) - held.modified, 0.0) if held.modified else 0.0

    def _claim(self, number: int) -> bool:
        """Create a number; whether it is ours and the highest."""
        document = json.dumps(asdict(self._owner)).encode()
        try:
            self._store.put_if_absent(_name(number), document)
        except AlreadyExistsError:
            return False
        held = self._newest()
        if held is None or held.owner.token != self._owner.token:
            self._store.delete([_name(number)])
            return False
        before, self._number = self._number, number
        old = [item.path for item in self._store.list(_PREFIX) if _number(item.path) in range(1, number)]
        self._store.delete(old if before == 0 else [_name(before)])
        return True

    def _keep_alive(self) -> None:
        while not self._ended.wait(self._beat_seconds):
            try:
                if not self._claim(self._number + 1):
                    self.lost = True
                    return
            except StoreError:  # the store is away for a while: the next beat tries again
                continue

    def _newest(self) -> _Held | None:
        """The lease as it lies on the store now."""
        while True:
            items = [item for item in self._store.list(_PREFIX) if _number(item.path)]
            if not items:
                return None
            with suppress(NotFoundError):  # its holder moved on in between
                data = self._store.read(items[-1].path)
                return _Held(_number(items[-1].path), _read_owner(data), items[-1].modified)

    def _refusal(self, owner: Owner) -> CheckpointError:
        return CheckpointError(
            f"{self._store.url} is in use by {_described(owner)}",
            hint="wait until that run ends, stop it, or choose another output folder",
        )


@contextmanager
def hold_folder(stores: list[Store], *, say: Callable[[str], None]) -> Iterator[list[Lease]]:
    """Hold the leases of a run's folder and of its mirror.

    Raises:
        CheckpointError: A live process holds one of them.
    """
    with ExitStack() as stack:
        leases = []
        for store in stores:
            lease = Lease(store, say=say)
            lease.acquire()
            stack.callback(lease.release)
            leases.append(lease)
        yield leases


def _name(number: int) -> str:
    return f"{_PREFIX}{number:08d}"


def _number(path: str) -> int:
    """The number in a lease's path; 0 for other objects."""
    last = path.removeprefix(_PREFIX)
    return int(last) if last.isdecimal() else 0


def _read_owner(data: bytes) -> Owner:
    try:
        return Owner(**json.loads(data))
    except (ValueError, TypeError):
        return Owner(token="", host="an unknown machine", machine="", pid=0, started="")


def _described(owner: Owner) -> str:
    return f"process {owner.pid} on {owner.host}"


def _machine() -> str:
    """What tells this machine's process table from all others; empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """Start time of a running process in clock ticks; empty for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]
