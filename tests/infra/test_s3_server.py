"""The local S3 server: closed to others, gone with its parent, back with its data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra import s3_server
from infra.s3_server import Server
from shards.errors import ConfigError, StoreError
from shards.store import StoreSettings, open_store
from tests.faults import wait_for

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.s3
def test_it_lets_nobody_in_without_its_credentials(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(bucket).put_if_absent("a", b"mine")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    with pytest.raises(StoreError, match="403"):
        open_store(bucket, StoreSettings(budget_seconds=0.1)).read_range("a", 0, 4)


@pytest.mark.s3
def test_a_bucket_from_an_earlier_start_is_kept(bucket: str, s3_server: Server) -> None:
    open_store(bucket).put_if_absent("a", b"mine")
    assert s3_server.make_bucket(bucket.removeprefix("s3://")) == bucket
    assert open_store(bucket).read("a") == b"mine"


@pytest.mark.s3
def test_it_listens_on_loopback_alone(s3_server: Server) -> None:
    listening = {line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if " 0A " in line}
    for port in s3_server.ports.values():
        hosts = {address.partition(":")[0] for address in listening if int(address.partition(":")[2], 16) == port}
        assert hosts == {"0100007F"}


@pytest.mark.process
def test_its_secret_is_not_shown() -> None:
    server = Server(Path("nowhere"))
    assert server.env["AWS_SECRET_ACCESS_KEY"] not in repr(server)


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigError, match="s3-server"):
        s3_server.find_program()


@pytest.mark.s3
@pytest.mark.slow
def test_the_command_prints_what_clients_need_and_ends_with_its_data_kept(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infra.cli", "s3-server", str(tmp_path / "s3"), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["url"] == "s3://biovfm"
        assert told["env"]["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert any((tmp_path / "s3").iterdir())


@pytest.mark.s3
@pytest.mark.slow
def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = "import sys, infra.s3_server as s; print(s.start(sys.argv[1]).ports['s3'], flush=True); input()"
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        process.kill()
    wait_for(lambda: s3_server.is_free(port))
