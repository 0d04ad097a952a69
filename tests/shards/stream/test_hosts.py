"""One, two and three hosts stream the same epoch over one slow link: how well it is used, how much is read twice."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.dataset.dataset import Dataset
from tests.hosts import Host, are_permitted, hosts, s3_on
from tests.shards.builders import add_source

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not are_permitted(), reason="network namespaces need root and iproute2"),
]

LINK_BITS = 20_000_000
IMAGES, BATCH = 240, 24


def noise(number: int) -> bytes:
    """A JPEG of about 45 kB that nothing compresses."""
    import io

    pixels = np.random.default_rng(number).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    server: Host
    readers: list[Host]
    env: dict[str, str]
    payload: int


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("hosts")
    with (
        hosts(["s3", "one", "two", "three"]) as (s3, *readers),
        s3_on(s3, folder / "s3") as env,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in env.items():
            patch.setenv(name, value)
        dataset = Dataset.create("s3://data/set")
        images = [noise(number) for number in range(IMAGES)]
        add_source(dataset, "demo", "US", images, per_shard=20)
        s3.limit(LINK_BITS)
        yield Cluster(server=s3, readers=readers, env=env, payload=sum(map(len, images)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """What an epoch took: the share of the link that it used while it read, and each host's bytes and payload."""

    use: float
    received: list[int]
    payload: list[int]
    images: int


def stream(cluster: Cluster, readers: Sequence[Host], folder: Path, *, epoch: int) -> Epoch:
    """All hosts stream their part of the epoch at the same time."""
    before = [host.received_bytes() for host in readers]
    sent = [(time.monotonic(), cluster.server.sent_bytes())]
    running, outputs = [], []
    for rank, host in enumerate(readers):
        output = folder / f"{host.address}-{len(readers)}-{epoch}.json"
        command = [
            *("stream", "s3://data/set", "--workload", "raw", "--json", "--epoch", str(epoch)),
            *("--global-batch", str(BATCH), "--rank", str(rank), "--world-size", str(len(readers))),
            *("--cache", str(folder / f"cache-{host.address}-{len(readers)}")),
        ]
        running.append(host.start([sys.executable, "-m", "infra.cli", *command], env=cluster.env, log=output))
        outputs.append(output)
    while any(process.poll() is None for process in running):
        time.sleep(0.05)
        sent.append((time.monotonic(), cluster.server.sent_bytes()))
    for process, output in zip(running, outputs, strict=True):
        assert process.wait() == 0, output.read_text()
    said = [json.loads(next(line for line in path.read_text().splitlines() if line[0] == "{")) for path in outputs]
    return Epoch(
        use=use_of(sent),
        received=[host.received_bytes() - was for host, was in zip(readers, before, strict=True)],
        payload=[cluster.payload // len(readers)] * len(readers),
        images=sum(one["images"] for one in said),
    )


def use_of(sent: Sequence[tuple[float, int]]) -> float:
    """Share of the link's bandwidth between a fifth and four fifths of the bytes, past the starts of the processes."""
    first, last = sent[0][1], sent[-1][1]
    marks = [next(one for one in sent if one[1] >= first + share * (last - first)) for share in (0.2, 0.8)]
    (began, low), (ended, high) = marks
    return 8 * (high - low) / (ended - began) / LINK_BITS


@pytest.mark.parametrize("number", [1, 2, 3])
def test_hosts_share_a_link_of_20_mbit(number: int, cluster: Cluster, tmp_path: Path) -> None:
    readers = cluster.readers[:number]
    first = stream(cluster, readers, tmp_path, epoch=0)
    second = stream(cluster, readers, tmp_path, epoch=1)
    per_payload = [got / own for got, own in zip(first.received, first.payload, strict=True)]
    again = sum(second.received) / sum(first.received)
    print(
        f"{number} hosts: {first.use:.0%} of the link, bytes ÷ payload "
        f"{', '.join(f'{one:.2f}' for one in per_payload)}, second epoch {again:.0%} of the first's bytes"
    )
    assert first.images == second.images == IMAGES
    assert 0.5 < first.use < 1.1
    assert max(per_payload) < 1.35
    assert max(first.received) < 1.25 * min(first.received)
    assert again < (0.2 if number == 1 else 0.95)  # what is left are the tables
