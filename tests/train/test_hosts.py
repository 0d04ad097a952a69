"""Pretraining on three hosts without a shared file system: a host is cut off; the rendezvous host dies and returns."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import Popen

import pytest

from shards.dataset.dataset import Dataset
from shards.errors import NotFoundError
from shards.store import open_store
from tests.faults import wait_for
from tests.hosts import Host, are_permitted, hosts, s3_on
from tests.shards.builders import add_source, jpeg
from tests.train.recipes import mae_recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not are_permitted(), reason="network namespaces need root and iproute2"),
]

STEPS = 60
PORT = 29_500


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Host], dict[str, str]]]:
    """Three trainers, and the environment in which they and the test find the S3 server and a dataset there."""
    folder = tmp_path_factory.mktemp("hosts")
    with (
        hosts(["s3", "one", "two", "three"]) as (s3, *trainers),
        s3_on(s3, folder / "s3") as env,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in env.items():
            patch.setenv(name, value)
        dataset = Dataset.create("s3://data/set")
        add_source(dataset, "demo", "US", [jpeg(number) for number in range(60)])
        yield trainers, env


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "nano.yaml"
    run = {"steps": STEPS, "global_batch": 12, "unit_images": 2}
    path.write_text(mae_recipe(run=run, checkpoint={"every": 10}).to_yaml())
    return path


@pytest.fixture(scope="module")
def undisturbed(
    cluster: tuple[list[Host], dict[str, str]], recipe: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[int, int]]:
    """Step and checksum of the keys of a run in one process."""
    trainers, env = cluster
    folder = tmp_path_factory.mktemp("whole")
    command = ["pretrain", "s3://data/set", "--recipe", str(recipe), "--out", str(folder / "run")]
    code = trainers[0].run([sys.executable, "-m", "infra.cli", *command], env=env, log=folder / "log")
    assert code == 0, (folder / "log").read_text()
    return steps_of((folder / "run" / "metrics.jsonl").read_text())


def steps_of(lines: str) -> list[tuple[int, int]]:
    return [(line["step"], line["keys_checksum"]) for line in map(json.loads, lines.splitlines())]


def launch(
    trainers: Sequence[Host], env: Mapping[str, str], recipe: Path, out: str, folder: Path, *, fewest: int
) -> list[Popen[str]]:
    """Torchrun on each host, each with a home of its own."""
    first = trainers[0]
    started = []
    for host in trainers:
        home = folder / host.address
        home.mkdir(parents=True, exist_ok=True)
        conf = f"is_host={int(host is first)},join_timeout=60,last_call_timeout=3,keep_alive_interval=1,timeout=60"
        command = [
            *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={fewest}:{len(trainers)}"),
            *("--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint={first.address}:{PORT}"),
            *(f"--rdzv-id={Path(out).name}", f"--rdzv-conf={conf}", f"--local-addr={host.address}", "--max-restarts=3"),
            *("--no-python", sys.executable, "-m", "infra.cli", "pretrain", "s3://data/set"),
            *("--recipe", str(recipe), "--out", out, "--log-format", "json"),
        ]
        more = {
            "HOME": str(home),
            "TMPDIR": str(home),
            "XDG_CACHE_HOME": str(home / "cache"),
            "GLOO_SOCKET_IFNAME": "eth0",
            "OMP_NUM_THREADS": "1",
            "BIOVFM_COLLECTIVE_SECONDS": "10",
        }
        started.append(host.start(command, env={**env, **more}, log=folder / f"{host.address}.log"))
    return started


def metrics_on(out: str) -> str:
    """The lines that the store has, through the newest checkpoint; a run replaces the object by a newer one."""
    store = open_store(out)
    while True:
        names = sorted(item.path for item in store.list("metrics/"))
        with contextlib.suppress(NotFoundError):
            return store.read(names[-1]).decode() if names else ""


def tell(folder: Path) -> str:
    """The ends of the hosts' logs, for a failure."""
    return "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in sorted(folder.glob("*.log")))


def wait_for_steps(out: str, number: int, folder: Path, running: Sequence[Popen[str]]) -> None:
    def there() -> bool:
        assert any(process.poll() is None for process in running), tell(folder)
        return len(metrics_on(out).splitlines()) >= number

    wait_for(there, seconds=180)


def test_a_host_is_cut_off_and_the_others_go_on(
    cluster: tuple[list[Host], dict[str, str]], recipe: Path, undisturbed: list[tuple[int, int]], tmp_path: Path
) -> None:
    trainers, env = cluster
    out = "s3://data/runs/cut"
    running = launch(trainers, env, recipe, out, tmp_path, fewest=2)
    wait_for_steps(out, 20, tmp_path, running)
    trainers[2].cut()
    cut_at = len(metrics_on(out).splitlines())
    try:
        codes = [process.wait(240) for process in running[:2]]
    finally:
        trainers[2].join()
        trainers[2].power_off()
    assert codes == [0, 0], tell(tmp_path)
    assert cut_at < STEPS
    assert steps_of(metrics_on(out)) == undisturbed
    assert store_has(out, "export/model.safetensors")
    leftovers = [path for path in tmp_path.rglob(".writing-*") if path.is_dir()]
    assert len(leftovers) <= 1  # of the host that was cut off while it wrote


def test_the_rendezvous_host_dies_and_comes_back_empty(
    cluster: tuple[list[Host], dict[str, str]], recipe: Path, undisturbed: list[tuple[int, int]], tmp_path: Path
) -> None:
    trainers, env = cluster
    out = "s3://data/runs/restart"
    running = launch(trainers, env, recipe, out, tmp_path, fewest=3)
    wait_for_steps(out, 20, tmp_path, running)
    trainers[0].power_off()
    shutil.rmtree(tmp_path / trainers[0].address)
    done = metrics_on(out)
    time.sleep(1)
    for host in trainers[1:]:  # as a scheduler ends a job that lost a node
        host.power_off()
    assert 20 <= len(done.splitlines()) < STEPS
    running = launch(trainers, env, recipe, out, tmp_path, fewest=3)
    codes = [process.wait(240) for process in running]
    assert codes == [0, 0, 0], tell(tmp_path)
    assert steps_of(metrics_on(out)) == undisturbed


def store_has(url: str, path: str) -> bool:
    return any(item.path == path for item in open_store(url).list("export/"))
