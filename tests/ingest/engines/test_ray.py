"""The same job on local processes and on a Ray cluster of two nodes: identical bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.job.run import run_job
from ingest.settings import IngestSettings
from tests.ingest.material import encoded, photo, public_spec, shard_bytes, tables, write_folder

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SETTINGS = IngestSettings(unit_files=4, shard_bytes=60_000)


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
    nodes.add_node(num_cpus=1, object_store_memory=100 << 20)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


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
