"""A Ray cluster of two nodes: the bytes of local processes, and what becomes of units whose node or worker fails."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ingest.engines.base import Supervision, Task
from ingest.engines.load import Load
from ingest.job.run import run_job
from ingest.settings import IngestSettings
from shards.errors import EngineError, MachineError
from tests.ingest.material import encoded, photo, public_spec, shard_bytes, tables, write_folder

ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'biovfm[ray]')")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[3]
SETTINGS = IngestSettings(unit_files=4, shard_bytes=60_000)
RULES = Supervision(task_attempts=1)
TASKS = [Task(index=number, payload=number) for number in range(12)]


def patient(start: Callable[[], Any]) -> Any:
    """Start a node, again where the machine was too busy for Ray's fixed limit of 30 s."""
    for _ in range(3):
        try:
            return start()
        except Exception as error:  # noqa: BLE001 - Ray raises nothing narrower
            last = error
    raise last


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # no token in anybody's home directory
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # the machine's memory is not the test's
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 << 20}
        scratch = tempfile.mkdtemp(prefix="bv-ray-", dir="/tmp")  # the paths of sockets must be short
        (Path(scratch) / "ray").mkdir()
        patch.setenv("RAY_TMPDIR", scratch)
        nodes = patient(lambda: Cluster(initialize_head=True, head_node_args=small))
        patient(lambda: nodes.add_node(**small))
        yield nodes
        ray.shutdown()
        nodes.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)


def node() -> str:
    """What tells the nodes apart in a process of a worker."""
    return os.environ["RAY_RAYLET_PID"]


def is_first(path: Path, text: str) -> bool:
    """Whether this caller is the first of all; then the file holds its text."""
    try:
        with path.open("x") as stream:
            stream.write(text)
    except FileExistsError:
        return False
    return True


def fails_on_one_node(folder: Path, number: int, beat: Callable[[int], None], skip: Mapping[int, str]) -> str:
    del beat, skip
    if is_first(folder / "bad", node()) or (folder / "bad").read_text() == node():
        raise MachineError("its disk is full")
    time.sleep(0.05)
    return f"{number} on {node()}"


def fails(_context: None, number: int, beat: Callable[[int], None], skip: Mapping[int, str]) -> None:
    del beat, skip
    raise MachineError(f"no space for {number}")


def kills_its_worker_once(folder: Path, number: int, beat: Callable[[int], None], skip: Mapping[int, str]) -> int:
    del beat, skip
    if number == 3 and is_first(folder / "killed", ""):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return number


def kills_its_worker(_context: None, _number: int, beat: Callable[[int], None], skip: Mapping[int, str]) -> None:
    del beat, skip
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def kills_its_worker_at_3(_context: None, number: int, beat: Callable[[int], None], skip: Mapping[int, str]) -> int:
    del beat, skip
    if number == 3:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return number


def results(engine: Any, function: Any, context: Any) -> dict[int, Any]:
    try:
        return {event.index: event.result for event in engine.run(function, context, TASKS) if event.done}
    finally:
        engine.release()


def test_two_ray_nodes_make_the_bytes_of_local_processes(cluster: Any, tmp_path: Path) -> None:
    from ingest.engines.ray import RayEngine

    files = {f"{i:02d}.png": encoded(photo(i)) for i in range(16)} | {"bad.jpg": b"\xff\xd8\xff", "empty.png": b""}
    raw = write_folder(tmp_path / "raw", files)
    run_job(public_spec(), str(raw), str(tmp_path / "local"), workers=1, settings=SETTINGS)
    engine = RayEngine(address=cluster.address)
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    report = run_job(public_spec(), str(raw), str(tmp_path / "ray"), settings=SETTINGS, engine=engine)
    assert (report.kept, report.rejected) == (16, 2)
    assert shard_bytes(tmp_path / "ray") == shard_bytes(tmp_path / "local")
    assert str(tables(tmp_path / "ray")) == str(tables(tmp_path / "local"))


def test_a_node_on_which_a_unit_fails_gets_no_more(cluster: Any, tmp_path: Path) -> None:
    from ingest.engines.ray import RayEngine

    said: list[str] = []
    engine = RayEngine(address=cluster.address, rules=RULES, tell=said.append)
    found = results(engine, fails_on_one_node, tmp_path)
    assert sorted(found) == list(range(12))
    (line,) = said
    assert "its disk is full" in line
    assert "another node takes this one" in line
    assert len({text.partition(" on ")[2] for text in found.values()}) == 1


def test_what_fails_on_every_node_ends_the_job(cluster: Any) -> None:
    from ingest.engines.ray import RayEngine

    engine = RayEngine(address=cluster.address, rules=RULES, tell=lambda _: None)
    with pytest.raises(EngineError, match=r"node [\d.]+: unit \d+ failed 1 times: .*no space"):
        results(engine, fails, None)


def test_the_unit_of_a_worker_that_died_is_done_by_another(cluster: Any, tmp_path: Path) -> None:
    from ingest.engines.ray import RayEngine

    said: list[str] = []
    engine = RayEngine(address=cluster.address, rules=RULES, tell=said.append)
    assert results(engine, kills_its_worker_once, tmp_path) == {number: number for number in range(12)}
    assert len(said) == 2
    assert "unit 3 will be done elsewhere" in said[0]
    assert "unit 3, which was lost, is done" in said[1]


def test_a_unit_that_takes_its_worker_down_each_time_ends_the_job(cluster: Any) -> None:
    from ingest.engines.ray import RayEngine

    engine = RayEngine(address=cluster.address, rules=RULES, node_retries=1, tell=lambda _: None)
    with pytest.raises(EngineError, match=r"unit \d+ was lost 2 times with its worker"):
        results(engine, kills_its_worker, None)


def test_a_unit_that_takes_its_worker_down_each_time_may_be_given_up(cluster: Any) -> None:
    from ingest.engines.ray import RayEngine

    said: list[str] = []
    load = Load(noun="run", keeps_workers=False, goes_on=True)
    engine = RayEngine(address=cluster.address, rules=RULES, node_retries=0, load=load, tell=said.append)
    try:
        found = {event.index: event for event in engine.run(kills_its_worker_at_3, None, TASKS)}
        assert not engine._workers
    finally:
        engine.release()
    assert found.keys() == set(range(12))
    assert "run 3 was lost 1 times with its worker" in found.pop(3).lost
    assert all(event.result == index and not event.lost for index, event in found.items())
    assert any("run 3 given up" in line for line in said)


def test_a_job_without_a_free_cpu_says_so_and_ends(cluster: Any) -> None:
    from ingest.engines.ray import RayEngine

    ray.init(address=cluster.address, log_to_driver=False)
    try:
        holder = ray.remote(num_cpus=1)(_Holder)
        held = [holder.remote() for _ in range(2)]
        ray.get([each.ready.remote() for each in held])
        engine = RayEngine(rules=RULES, patience_seconds=4.0)
        with pytest.raises(EngineError, match="no node of the Ray cluster had a free CPU for 4 s"):
            results(engine, fails, None)
    finally:
        ray.shutdown()


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999999"])
def test_no_cluster_is_one_line_soon(address: str) -> None:
    from ingest.engines.ray import RayEngine

    with pytest.raises(EngineError, match=f"no Ray cluster at {address}"):
        RayEngine(address=address)


class _Holder:
    """Holds a CPU."""

    def ready(self) -> bool:
        return True
