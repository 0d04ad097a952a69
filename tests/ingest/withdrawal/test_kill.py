"""`kill -9` at any moment of a withdrawal with its purge: the same command again ends well."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ingest.withdrawal.journal import open_plans
from shards.dataset.dataset import Dataset
from shards.dataset.verify import verify
from shards.subset.finding import find
from shards.subset.lock import Selection, create
from tests.ingest.withdrawal.material import (
    IMAGES,
    PATIENTS,
    SECRET,
    group_of,
    identifiers_of,
    members_of,
    take_in,
    traces,
    write_patients,
)

pytestmark = [pytest.mark.slow, pytest.mark.process]
KILLS = 6
_SCRIPT = """
import sys
from infra.cli import main
import ingest.withdrawal.purge, ingest.withdrawal.holders, shards.dataset.removal, duckdb, deltalake
print("begin", flush=True)
sys.stdout = open("/dev/null", "w")
sys.exit(main(["withdraw", sys.argv[1], "--group", "patient-1", "--purge", "--grace", "0", "--yes"]))
"""


def start(url: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "BIOVFM_SECRET": SECRET.get_secret_value()}
    command = [sys.executable, "-c", _SCRIPT, url]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    with process.stdout as told:
        assert told.readline() == b"begin\n"
    return process


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_the_same_command_ends_well(tmp_path: Path, place: str, request: pytest.FixtureRequest) -> None:
    url = str(tmp_path / "d") if place == "disk" else f"{request.getfixturevalue('bucket')}/d"
    take_in(write_patients(tmp_path / "raw", range(2)), url)
    take_in(write_patients(tmp_path / "raw"), url)
    dataset = Dataset.open(url)
    theirs = identifiers_of(dataset, group_of(dataset, "patient-1"))
    before = members_of(dataset)
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    killed = 0
    for _ in range(KILLS):
        process = start(url)
        time.sleep(chance.uniform(0, 2.5))
        killed += process.poll() is None
        process.kill()
        process.wait()
    last = start(url)
    assert last.wait(timeout=120) == 0, f"seed {seed}"
    assert killed, f"seed {seed}"
    assert traces(dataset, theirs) == [], f"seed {seed}"
    after = members_of(dataset)
    assert len(after) == 2 * (PATIENTS - 1) * IMAGES
    assert all(before[name] == data for name, data in after.items())
    report = verify(dataset, deep=True)
    assert (report.problems, report.orphans) == ((), ()), f"seed {seed}"
    assert not list(open_plans(dataset))
    assert len(dataset.query("SELECT key FROM fingerprints")) == (PATIENTS - 1) * IMAGES
    find(create(dataset, Selection()), dataset, full=True)
