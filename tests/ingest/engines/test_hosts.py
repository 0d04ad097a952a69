"""An ingest job on Ray over several hosts: the bytes of one machine, also when a host is lost on the way."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from ingest.job.run import run_job
from ingest.settings import IngestSettings
from shards.dataset.dataset import Dataset
from shards.store import open_store
from tests.faults import wait_for
from tests.hosts import are_permitted, hosts, s3_on
from tests.ingest.material import encoded, photo, public_spec
from tests.ray_hosts import Cluster, ray_on

pytest.importorskip("ray", reason="Ray is not installed (pip install 'biovfm[ray]')")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not are_permitted(), reason="network namespaces need root and iproute2"),
]

UNITS = 16
SETTINGS = IngestSettings(unit_files=2, shard_bytes=400_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of the command on the head; what it answers and what it says lie in two files."""

    process: Popen[str]
    answer: Path
    log: Path

    def end(self) -> dict[str, Any]:
        """Wait for its end and read the answer, which is strict JSON and nothing else."""
        assert self.process.wait(300) == 0, self.log.read_text()
        found: dict[str, Any] = json.loads(self.answer.read_text())
        return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The hosts, raw files on S3, and the dataset that one machine makes of them."""
    folder = tmp_path_factory.mktemp("hosts")
    with (
        hosts(["s3", "head", "one", "two"]) as (s3, head, *workers),
        s3_on(s3, folder / "s3") as env,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in env.items():
            patch.setenv(name, value)
        store = open_store("s3://data/raw")
        for number in range(2 * UNITS):
            store.put_if_absent(f"{number:03d}.png", encoded(photo(number, height=600, width=800)))
        run_job(public_spec(), "s3://data/raw", "s3://data/one-machine", workers=1, settings=SETTINGS)
        (folder / "settings.yaml").write_text("unit_files: 2\nshard_bytes: 400000\n")
        with ray_on(head, workers, folder=folder, env=env) as made:
            yield made


def start_ingest(cluster: Cluster, dataset: str, *, part: str = "") -> Job:
    name = f"{Path(dataset).name}{part}"
    answer, log = cluster.folder / f"{name}.json", cluster.folder / f"{name}.log"
    command = [
        *(sys.executable, "-m", "infra.cli"),
        *("ingest", "test", "s3://data/raw", dataset, "--modality", "Fundus", "--deidentified", "--json"),
        *("--engine", "ray", "--address", cluster.address),
        *("--settings", str(cluster.folder / "settings.yaml")),
    ]
    shell = ["sh", "-c", 'out=$1; shift; exec "$@" >"$out"', "sh", str(answer)]
    return Job(process=cluster.head.start([*shell, *command], env=cluster.env, log=log), answer=answer, log=log)


def staged(dataset: str) -> dict[str, float]:
    """The marker of each finished unit, and when it was written."""
    found = {item.path: item.modified for item in open_store(dataset).list("staging/")}
    return {path: when or 0.0 for path, when in found.items() if re.fullmatch(r"staging/[^/]+/u\d{6}\.json", path)}


def wait_for_units(job: Job, dataset: str, number: int) -> None:
    wait_for(lambda: job.process.poll() is not None or len(staged(dataset)) >= number, seconds=300)
    assert job.process.poll() is None, job.log.read_text()


def assert_same_as_on_one_machine(dataset: str) -> None:
    first, second = open_store("s3://data/one-machine"), open_store(dataset)
    names = [item.path for item in first.list("shards/")]
    assert [item.path for item in second.list("shards/")] == names
    assert all(first.read(name) == second.read(name) for name in names)
    assert rows_of(dataset) == rows_of("s3://data/one-machine")


def rows_of(url: str) -> list[str]:
    return sorted(map(str, Dataset.open(url).query("SELECT * FROM samples").to_pylist()))


def test_two_worker_hosts_make_the_bytes_of_one_machine(cluster: Cluster) -> None:
    job = start_ingest(cluster, "s3://data/two-hosts")
    assert job.end()["units"] == UNITS
    assert_same_as_on_one_machine("s3://data/two-hosts")
    assert "lost" not in job.log.read_text()


def test_the_host_of_the_job_dies_and_the_same_command_goes_on(cluster: Cluster) -> None:
    dataset = "s3://data/head-lost"
    job = start_ingest(cluster, dataset)
    wait_for_units(job, dataset, 6)
    cluster.power_off()
    done = len(staged(dataset))
    assert 6 <= done < UNITS
    cluster.start()
    again = start_ingest(cluster, dataset, part="-again")
    assert again.end()["resumed_units"] == done
    assert_same_as_on_one_machine(dataset)


def test_a_worker_host_that_is_cut_off_costs_its_unit_in_flight(cluster: Cluster) -> None:
    dataset = "s3://data/one-cut"
    job = start_ingest(cluster, dataset)
    wait_for_units(job, dataset, 6)
    gone = cluster.workers[1]
    gone.cut()
    finished = staged(dataset)
    try:
        wait_for(lambda: "is lost" in job.log.read_text(), seconds=120)
        kept = staged(dataset)
        report = job.end()
    finally:
        gone.join()
        gone.power_off()
    again = {path for path, when in finished.items() if kept.get(path) != when}
    assert len(again) <= 1  # of what had finished, at most the unit whose end was not told yet
    assert (report["kept"], report["units"]) == (2 * UNITS, UNITS)
    assert_same_as_on_one_machine(dataset)
    log = job.log.read_text()
    cut = re.search(rf"node {gone.address} of the Ray cluster is lost; unit (\d+) will be done elsewhere", log)
    assert cut, log
    assert f"unit {cut[1]}, which was lost, is done on node {cluster.workers[0].address}" in log
    assert log.count("is lost") == 1
