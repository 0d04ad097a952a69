"""`biovfm serve` names the port that it listens on, and refuses one that it cannot have in one line."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from infra.cli import main
from tests.shards.builders import small_dataset

pytestmark = pytest.mark.process


@pytest.mark.slow
def test_port_0_is_a_free_port_that_is_named(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data[1]")
    command = [sys.executable, "-m", "infra.cli", "serve", dataset.url, "--port", "0"]
    job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "60"})
    try:
        assert job.stderr is not None
        line = job.stderr.readline()
        port = re.match(r"http://127\.0\.0\.1:(\d+) shows ", line)
        assert port, line
        assert dataset.url in line
        with urlopen(f"http://127.0.0.1:{port[1]}/", timeout=60) as page:
            assert page.status == 200
    finally:
        job.send_signal(signal.SIGINT)
        job.communicate(timeout=60)


@pytest.mark.slow
def test_others_open_the_pages_under_the_names_that_are_allowed(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    command = [sys.executable, "-m", "infra.cli", "serve", dataset.url, "--port", "0", "--host", "0.0.0.0"]
    job = subprocess.Popen([*command, "--allow-host", "a.example"], stderr=subprocess.PIPE, text=True)

    def status(host: str) -> int:
        try:
            with urlopen(Request(f"http://127.0.0.1:{port}/", headers={"Host": host}), timeout=60) as page:
                return int(page.status)
        except HTTPError as error:
            return error.code

    try:
        assert job.stderr is not None
        port = job.stderr.readline().split(" ")[0].rpartition(":")[2]
        assert [status(host) for host in (f"a.example:{port}", "localhost", "b.example")] == [200, 200, 400]
    finally:
        job.send_signal(signal.SIGINT)
        job.communicate(timeout=60)


def test_a_name_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = small_dataset(tmp_path / "data")
    assert main(["serve", dataset.url, "--port", "0", "--allow-host", "serve:8080"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "'serve:8080' is no host name" in said


@pytest.mark.parametrize("port", ["taken", "99999", "-1"])
def test_a_port_that_cannot_be_had_is_one_line(tmp_path: Path, port: str, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = small_dataset(tmp_path / "data")
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = str(other.getsockname()[1]) if port == "taken" else port
        assert main(["serve", dataset.url, "--port", number]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert number in said
    assert "--port" in said
