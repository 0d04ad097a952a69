"""The storage benchmarks' own parts: the link delays and limits, the fault table tells good from wrong."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from infra.bench.link import Wire, behind_link
from infra.bench.store_faults import CASES, DATA, Case, try_case
from infra.bench.store_stream import _stalls
from infra.s3_server import Server
from shards.store import StoreSettings
from shards.store.obstore_driver import ObstoreDriver
from shards.store.remote import RemoteStore
from tests.faults import Fault, FaultProxy

LIMITS = StoreSettings(connect_seconds=1.0, read_seconds=0.5, budget_seconds=0.5, backoff_seconds=0.02)


def test_a_wire_sends_one_after_the_other_and_delivers_later() -> None:
    wire = Wire(0.5, 100.0)
    assert wire.send(100, now=10.0) == pytest.approx((10.98, 11.48))
    assert wire.send(100, now=10.0) == pytest.approx((11.98, 12.48))
    assert wire.send(100, now=20.0) == pytest.approx((20.98, 21.48))


def test_a_wire_without_a_limit_only_delays() -> None:
    assert Wire(0.5, 0.0).send(1 << 30, now=1.0) == (1.0, 1.5)


@pytest.mark.process
def test_a_link_changes_no_byte() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def echo() -> None:
            client, _ = server.accept()
            with client:
                while data := client.recv(65536):
                    client.sendall(data)

        thread = threading.Thread(target=echo)
        thread.start()
        with behind_link(f"http://127.0.0.1:{server.getsockname()[1]}", latency_ms=1, gbit=1) as url:
            link = urlsplit(url)
            with socket.create_connection((str(link.hostname), int(link.port or 0))) as client:
                writer = threading.Thread(target=client.sendall, args=(DATA,))
                writer.start()
                got = b""
                while len(got) < len(DATA):
                    got += client.recv(65536)
                writer.join()
        thread.join()
    assert got == DATA


def test_stalls_are_shares_of_the_consumers_time() -> None:
    assert _stalls([(1.0, 3.0), (0.0, 6.0)]) == {"batches": 2, "waited_seconds": 1.0, "stall_share": 0.1}
    assert _stalls([]) == {"batches": 0, "waited_seconds": 0, "stall_share": 0.0}


@pytest.mark.s3
def test_the_fault_table_tells_good_from_wrong(bucket: str, s3_env: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultProxy(s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        store = RemoteStore(bucket, ObstoreDriver(bucket, LIMITS), LIMITS)
        patient = replace(LIMITS, budget_seconds=20.0, read_seconds=5.0)
        store.put_if_absent("big", DATA)
        cut = next(case for case in CASES if case.name == "cut twice in the body")
        row = try_case(cut, RemoteStore(bucket, ObstoreDriver(bucket, patient), patient), proxy, limit_seconds=30)
        assert (row["good"], row["ended"], row["requests"]) == (True, "exact bytes", 3)
        for_ever = [(Fault.answer(503, "SlowDown"), 1000, "GET")]
        hopeless = Case(name="503", faults=for_ever, act=cut.act, ends="error", says="SlowDown")
        assert try_case(hopeless, store, proxy, limit_seconds=10)["good"]
        hoped = Case(name="503", faults=for_ever, act=cut.act)
        assert not try_case(hoped, store, proxy, limit_seconds=10)["good"]
        assert not try_case(Case(name="none", faults=[], act=lambda _: b"?"), store, proxy, limit_seconds=10)["good"]
