"""Figures as Prometheus reads them, on a port and in a file."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from infra.metrics.exporter import Outlet, exporting, new_registry
from shards.errors import ConfigError, StoreError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.process
def test_a_scrape_gets_openmetrics_and_the_port_is_free_afterwards() -> None:
    registry = new_registry()
    Counter("biovfm_test_things", "Things.", registry=registry).inc(3)
    port = free_port()
    for _ in range(2):
        with exporting(registry, Outlet(port=port)):
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                families = {family.name: family for family in parse_openmetrics(answer.read().decode())}
        assert families["biovfm_test_things"].samples[0].value == 3
        assert families["biovfm_build"].samples[0].labels["version"]
        assert families["process_resident_memory_bytes"].samples[0].value > 0


@pytest.mark.process
def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}.*--metrics-port"):
            exporting(new_registry(), Outlet(port=port)).__enter__()


def test_the_file_holds_the_last_figures(tmp_path: Path) -> None:
    registry = new_registry()
    counter = Counter("biovfm_test_things", "Things.", registry=registry)
    path = tmp_path / "new" / "job.prom"
    with exporting(registry, Outlet(file=path)):
        counter.inc(5)
    families = {family.name: family for family in parse_text(path.read_text())}
    assert families["biovfm_test_things"].samples[0].value == 5
    assert [file.name for file in path.parent.iterdir()] == ["job.prom"]
    assert not [name for name in families if name.startswith("process_")]  # node_exporter has figures of that name


def test_processes_of_a_node_take_ports_and_files_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    outlet = Outlet(port=9400, file=Path("run.prom"))
    assert (outlet.port, outlet.file) == (9403, Path("run-rank3.prom"))


def test_a_place_in_the_node_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "x")
    with pytest.raises(ConfigError, match="LOCAL_RANK is 'x'"):
        Outlet(port=9400)


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not end in \.prom"):
        Outlet(file=tmp_path / "run.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*job\.prom"):
        exporting(new_registry(), Outlet(file=tmp_path / "file" / "job.prom")).__enter__()


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_port_that_nobody_can_be_told_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match=f"no --metrics-port {port}"):
        Outlet(port=port)
