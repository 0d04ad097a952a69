from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from shards.errors import CheckpointError
from shards.store import LocalStore, MemoryStore, Store, open_store
from tests.faults import wait_for
from train.checkpoint.lease import Lease, Owner, hold_folder

pytestmark = pytest.mark.torch

BEAT, EXPIRES = 0.05, 0.6
LONG = 60.0
"""For a lease that must not expire in its test, however busy the machine is."""


def lease(
    store: Store, said: list[str] | None = None, *, elsewhere: bool = False, expires_seconds: float = EXPIRES
) -> Lease:
    words = said if said is not None else []
    made = Lease(store, say=words.append, beat_seconds=BEAT, expires_seconds=expires_seconds)
    if elsewhere:
        made._owner = replace(made._owner, host="node7", machine="another boot", pid=1234)
    return made


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return LocalStore(tmp_path) if request.param == "local" else MemoryStore()


def stop_beating(held: Lease) -> None:
    """Let a lease give no more heartbeats, and none be under way."""
    held._ended.set()
    assert held._thread is not None
    held._thread.join()


def names(store: Store) -> list[str]:
    return [item.path for item in store.list(".lease/")]


def test_a_lease_beats_and_leaves_nothing_behind(store: Store) -> None:
    held = lease(store)
    held.acquire()
    first = names(store)
    wait_for(lambda: names(store)[-1] > first[-1])
    later = names(store)
    # while a heartbeat takes the place of the one before, both are there
    assert len(first) in {1, 2}
    assert len(later) in {1, 2}
    held.check()
    held.release()
    assert names(store) == []


def test_a_second_process_on_this_machine_is_refused_at_once(store: Store) -> None:
    held = lease(store)
    held.acquire()
    began = time.monotonic()
    with pytest.raises(CheckpointError, match=rf"is in use by process {os.getpid()} on "):
        lease(store, expires_seconds=LONG).acquire()
    assert time.monotonic() - began < LONG / 2
    held.release()
    lease(store).acquire()


def test_a_live_process_on_another_machine_is_refused_after_its_next_heartbeat(store: Store) -> None:
    held = lease(store, elsewhere=True)
    held.acquire()
    said: list[str] = []
    with pytest.raises(CheckpointError, match="is in use by process 1234 on node7"):
        lease(store, said, expires_seconds=LONG).acquire()
    assert "waiting up to" in said[0]
    held.check()
    held.release()


def test_a_silent_lease_is_taken_over_and_said_so(store: Store) -> None:
    held = lease(store, elsewhere=True)
    began = time.monotonic()
    held.acquire()
    stop_beating(held)  # its machine went away
    said: list[str] = []
    taker = lease(store, said)
    taker.acquire()
    assert EXPIRES * 0.7 < time.monotonic() - began < EXPIRES + 20
    assert "taking the run over from process 1234 on node7, which gave no heartbeat" in said[-1]
    taker.check()
    taker.release()


def test_a_holder_that_was_only_suspended_finds_that_it_lost(store: Store) -> None:
    suspended = lease(store, elsewhere=True)
    suspended.acquire()
    stop_beating(suspended)
    taker = lease(store)
    taker.acquire()
    wait_for(lambda: names(store)[0] > f".lease/{suspended._number + 1:08d}")  # which is free again
    suspended._ended.clear()
    suspended._keep_alive()
    assert suspended.lost
    with pytest.raises(CheckpointError, match=rf"was taken over by process {os.getpid()}"):
        suspended.check()
    suspended.release()
    taker.check()
    stop_beating(taker)
    assert len(names(store)) == 1
    taker.release()


def test_of_two_takers_one_wins(store: Store) -> None:
    first, second = lease(store), lease(store, elsewhere=True)
    number = first._free_number()
    assert number == second._free_number()
    assert first._claim(number)
    assert not second._claim(number)


def test_a_process_that_was_killed_here_is_no_obstacle(tmp_path: Path) -> None:
    code = (
        "import sys, time; from shards.store import LocalStore; from train.checkpoint.lease import Lease\n"
        f"Lease(LocalStore({str(tmp_path)!r}), say=print).acquire(); print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(CheckpointError, match=f"in use by process {process.pid}"):
        lease(LocalStore(tmp_path)).acquire()
    process.kill()
    process.wait()
    process.stdout.close()
    said: list[str] = []
    held = lease(LocalStore(tmp_path), said, expires_seconds=LONG)
    began = time.monotonic()
    held.acquire()
    assert time.monotonic() - began < LONG / 2
    assert f"from process {process.pid} on" in said[0]
    assert "which has ended" in said[0]
    held.release()


def test_a_process_id_that_is_used_again_is_another_process() -> None:
    owner = Owner.this_process()
    assert owner.has_ended() is False
    assert replace(owner, started="1").has_ended() is True
    assert replace(owner, machine="another").has_ended() is None
    assert json.loads(json.dumps(asdict(owner)))["pid"] == os.getpid()


def test_an_unreadable_lease_expires_like_any_other(store: Store) -> None:
    store.put_if_absent(".lease/00000004", b"{")
    held = lease(store)
    held.acquire()
    assert names(store)[-1] >= ".lease/00000005"
    held.release()


def test_folder_and_mirror_are_held_together(tmp_path: Path) -> None:
    out, mirror = LocalStore(tmp_path / "out"), LocalStore(tmp_path / "mirror")
    with (
        hold_folder([mirror], say=print),
        pytest.raises(CheckpointError, match="mirror is in use"),
        hold_folder([out, mirror], say=print),
    ):
        pytest.fail("held twice")
    with hold_folder([out, mirror], say=print) as leases:
        assert [one.lost for one in leases] == [False, False]
    assert not list(tmp_path.rglob(".lease"))


@pytest.mark.s3
def test_on_object_storage(bucket: str) -> None:
    """Its times are whole seconds, so the lease is a longer one."""
    store = open_store(f"{bucket}/runs/a")
    said: list[str] = []
    held, other = (Lease(store, say=said.append, beat_seconds=0.5, expires_seconds=4) for _ in range(2))
    held._owner = replace(held._owner, host="node7", machine="another boot", pid=1234)
    held.acquire()
    with pytest.raises(CheckpointError, match="is in use by process 1234 on node7"):
        other.acquire()
    assert "waiting up to" in said[0]
    stop_beating(held)  # its machine went away
    began = time.monotonic()
    other.acquire()
    assert 1 < time.monotonic() - began < 30
    assert said[-1].startswith(f"{store.url}: taking the run over from process 1234 on node7, which gave no heartbeat")
    other.check()
    other.release()
    assert names(store) == []
