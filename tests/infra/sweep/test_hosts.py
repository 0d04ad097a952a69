"""A sweep on Ray over several hosts: the run of a host that is lost is done by another one."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import wait_for
from tests.hosts import are_permitted, hosts
from tests.infra.sweep.grids import seeds_in, small_grid
from tests.ray_hosts import Cluster, ray_on

pytest.importorskip("ray", reason="Ray is not installed (pip install 'biovfm[ray]')")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.torch,
    pytest.mark.skipif(not are_permitted(), reason="network namespaces need root and iproute2"),
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with hosts(["head", "one", "two"]) as (head, *workers), ray_on(head, workers, folder=tmp_path) as made:
        yield made


def test_the_run_of_a_host_that_is_cut_off_is_done_by_another(cluster: Cluster, tmp_path: Path) -> None:
    out, log, answer = tmp_path / "out", tmp_path / "sweep.log", tmp_path / "answer.json"
    words = ["sweep", str(small_grid(tmp_path)), "--out", str(out), "--ray", cluster.address, "--json"]
    shell = ["sh", "-c", 'out=$1; shift; exec "$@" >"$out"', "sh", str(answer)]
    job = cluster.head.start([*shell, sys.executable, "-m", "infra.cli", *words], env=cluster.env, log=log)
    wait_for(lambda: job.poll() is not None or len(list(out.glob("runs/*/pretrain.log"))) == 2, seconds=300)
    assert job.poll() is None, log.read_text()
    gone = cluster.workers[1]
    gone.cut()  # nobody is told that its processes end
    gone.power_off()
    try:
        wait_for(lambda: "is lost" in log.read_text(), seconds=120)  # Ray's own tasks: seven minutes
        assert job.wait(300) == 0, log.read_text()
    finally:
        gone.join()
    said = re.sub(r"\s+", " ", log.read_text())
    lost = re.search(rf"node {gone.address} of the Ray cluster is lost; run (\d) will be done elsewhere", said)
    assert lost, said
    assert f"run {lost[1]}, which was lost, is done on node {cluster.workers[0].address}" in said
    assert len(json.loads(answer.read_text())["finished"]) == 2
    assert seeds_in(out / "results.csv") == {"0", "1"}
