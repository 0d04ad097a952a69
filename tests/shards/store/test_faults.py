"""The fault table: what a client of a store meets when the network or the server misbehaves.

Either the exact bytes arrive, or an error comes within the stated time that names the URL, the path and the offset.
The time limits are shortened here; what is tested is that they hold.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from infra.s3_server import Server
from shards.errors import AlreadyExistsError, StoreError
from shards.store import StoreSettings, open_store
from shards.store.remote import RemoteStore
from tests.faults import Fault, FaultProxy

MIB = 1 << 20
DATA = os.urandom(3 * MIB)
DRIVERS = ("obstore", "fsspec")
LIMITS = {"connect_seconds": 1.0, "read_seconds": 0.7, "request_seconds": 20.0, "backoff_seconds": 0.02}

PATIENT = 90.0
"""A budget in seconds that a refusal leaves unused, also where a busy machine takes long to make a client anew."""

Open = Callable[..., RemoteStore]


@pytest.fixture(scope="module")
def folder(s3_server: Server) -> Iterator[str]:
    """A folder in a bucket of this module, with the object `big`."""
    name = "faults-of-the-store"
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in s3_server.env.items():
            patch.setenv(variable, value)
        url = s3_server.make_bucket(name) + "/d"
        open_store(url).put_if_absent("big", DATA)
    yield url
    s3_server.remove_bucket(name)


@pytest.fixture
def proxy(s3_env: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture(params=DRIVERS)
def opened(request: pytest.FixtureRequest, folder: str, proxy: FaultProxy) -> Open:
    """Opens the folder through the proxy, with both client libraries."""

    def build(**settings: float) -> RemoteStore:
        values = {"budget_seconds": 8.0, "range_bytes": MIB, "readahead": 1, **LIMITS, **settings}
        return cast("RemoteStore", open_store(folder, StoreSettings(driver=request.param, **values)))  # type: ignore[arg-type]

    return build


READS: dict[str, Callable[[RemoteStore], bytes]] = {
    "read": lambda store: store.read("big"),
    "range": lambda store: store.read_range("big", 0, len(DATA)),
    "stream": lambda store: store.open_stream("big").read(),
}

FAULTS: dict[str, tuple[Fault, int]] = {
    "cut twice": (Fault.cut(after=700_000), 2),
    "cut twice by reset": (Fault.cut(after=700_000, reset=True), 2),
    "cut before the first byte": (Fault.cut(), 2),
    "stalls before the head": (Fault.stall(), 1),
    "stalls in the body": (Fault.stall(after=300_000), 1),
    "delayed": (Fault.delay(0.3), 2),
    "truncated, and the length says so": (Fault.truncate(900_000), 2),
    "500 three times": (Fault.answer(500, "InternalError"), 3),
    "503 SlowDown three times": (Fault.answer(503, "SlowDown"), 3),
    "no reply": (Fault.drop_reply(), 2),
}


WAYS = [("obstore", "read"), ("obstore", "range"), ("obstore", "stream"), ("fsspec", "range")]


@pytest.mark.s3
@pytest.mark.parametrize(("opened", "how"), WAYS, indirect=["opened"])
@pytest.mark.parametrize("name", FAULTS)
def test_passing_faults_leave_the_exact_bytes(opened: Open, proxy: FaultProxy, name: str, how: str) -> None:
    fault, times = FAULTS[name]
    proxy.add(fault, times=times, path="big")
    assert READS[how](opened()) == DATA


FOR_EVER = {
    "stalls": Fault.stall(),
    "stalls in the body": Fault.stall(after=1000),
    "cut": Fault.cut(after=1000),
    "500": Fault.answer(500, "InternalError"),
    "503": Fault.answer(503, "SlowDown"),
    "truncated": Fault.truncate(1000),
}


@pytest.mark.s3
@pytest.mark.parametrize("name", FOR_EVER)
def test_lasting_faults_end_in_an_error_within_the_budget(opened: Open, proxy: FaultProxy, name: str) -> None:
    store = opened(budget_seconds=1.5)
    proxy.add(FOR_EVER[name], times=1_000_000, path="big")
    begin = time.monotonic()
    with pytest.raises(StoreError, match=r"s3://.*/d/big at offset 1000000: .* — "):
        store.read_range("big", 1_000_000, 500_000)
    assert time.monotonic() - begin < 1.5 + LIMITS["read_seconds"] + 2.0


@pytest.mark.s3
def test_a_cut_reply_is_taken_up_at_the_byte_where_it_broke(bucket: str, proxy: FaultProxy) -> None:
    store = open_store(bucket, StoreSettings(range_bytes=8 * MIB, **LIMITS))  # type: ignore[arg-type]
    store.put_if_absent("big", DATA)
    proxy.add(Fault.cut(after=2_500_000), path="big")
    proxy.sent = 0
    assert store.read_range("big", 0, len(DATA)) == DATA
    assert proxy.sent < 1.3 * len(DATA)


@pytest.mark.s3
def test_every_attempt_after_a_failed_one_is_counted(opened: Open, proxy: FaultProxy) -> None:
    store = opened(range_bytes=8 * MIB, read_seconds=20.0, budget_seconds=60.0)  # a slow reply is no failed attempt
    assert store.read_range("big", 0, len(DATA)) == DATA
    assert store.retries == 0
    proxy.add(Fault.answer(503, "SlowDown"), times=3, path="big")
    assert store.read_range("big", 0, len(DATA)) == DATA
    assert store.retries == 3
    proxy.add(Fault.answer(500, "InternalError"), path="big")
    assert store.read_ranges("big", [(0, 10), (MIB, 10)]) == [DATA[:10], DATA[MIB : MIB + 10]]
    assert store.retries > 3


@pytest.mark.s3
def test_a_flipped_byte_in_a_whole_read_is_noticed(opened: Open, proxy: FaultProxy) -> None:
    proxy.add(Fault.flip(1_000_000), path="big")
    assert opened().read("big") == DATA


@pytest.mark.s3
def test_bytes_that_are_flipped_in_every_reading_are_refused(opened: Open, proxy: FaultProxy) -> None:
    proxy.add(Fault.flip(10), path="big")
    proxy.add(Fault.flip(11), path="big", times=99)
    with pytest.raises(StoreError, match="entity tag"):
        opened(range_bytes=8 * MIB).read("big")


@pytest.mark.s3
@pytest.mark.parametrize("known", [False, True])
def test_a_byte_that_is_flipped_twice_alike_is_noticed(opened: Open, proxy: FaultProxy, *, known: bool) -> None:
    store = opened(range_bytes=8 * MIB)
    if known:
        assert store.read("big") == DATA
    proxy.add(Fault.flip(1_000_000), path="big", times=3 if known else 2)
    assert store.read("big") == DATA


@pytest.mark.s3
def test_equal_readings_settle_what_an_encrypted_objects_tag_does_not_say(opened: Open, proxy: FaultProxy) -> None:
    store = opened(range_bytes=8 * MIB)
    proxy.add(Fault.flip(10), path="big", times=99)
    wanted = bytearray(DATA)
    wanted[10] = store.read("big")[10]
    assert wanted != DATA
    assert store.read("big") == wanted


@pytest.mark.s3
def test_a_slow_reader_loses_nothing(opened: Open, proxy: FaultProxy) -> None:
    with opened().open_stream("big") as stream:
        first = stream.read(1000)
        time.sleep(4 * LIMITS["read_seconds"])
        assert first + stream.read() == DATA


@pytest.mark.s3
def test_refused_credentials_are_named_at_once(opened: Open, proxy: FaultProxy) -> None:
    for code in ("ExpiredToken", "InvalidAccessKeyId"):
        proxy.add(Fault.answer(403, code), times=9, path="big")
        begin = time.monotonic()
        with pytest.raises(StoreError, match=r"big at offset 7: .*credentials"):
            opened(budget_seconds=PATIENT).read_range("big", 7, 10)
        assert time.monotonic() - begin < PATIENT / 3
        assert 9 - proxy.left() <= 2  # once more with credentials that were fetched anew
        proxy.clear()


@pytest.mark.s3
@pytest.mark.parametrize(("opened", "how"), WAYS, indirect=["opened"])
def test_credentials_that_stay_expired_are_named_at_once(opened: Open, proxy: FaultProxy, how: str) -> None:
    for method in ("GET", "HEAD"):
        proxy.add(Fault.answer(400, "ExpiredToken"), method=method, times=99, path="big")
    begin = time.monotonic()
    with pytest.raises(StoreError, match=r"d/big at offset 0: .*ExpiredToken.*credentials"):
        READS[how](opened(budget_seconds=PATIENT))
    assert time.monotonic() - begin < PATIENT / 3
    assert 2 * 99 - proxy.left() < 10  # each request at most once more


@pytest.mark.s3
def test_expired_credentials_are_fetched_anew(opened: Open, proxy: FaultProxy) -> None:
    store = opened()
    assert store.read_range("big", 0, 10) == DATA[:10]
    proxy.add(Fault.answer(400, "ExpiredToken"), path="big")
    assert store.read_range("big", 7, 10) == DATA[7:17]


@pytest.mark.s3
def test_a_bucket_that_is_gone_is_named(opened: Open, proxy: FaultProxy) -> None:
    store = opened()
    proxy.add(Fault.answer(404, "NoSuchBucket"), times=99, path="big")
    with pytest.raises(StoreError, match=r"big at offset 5: .*bucket"):
        store.read_range("big", 5, 10)


@pytest.mark.s3
@pytest.mark.parametrize("size", [100, MIB])
def test_a_lost_reply_to_a_put_is_not_a_conflict(
    opened: Open, proxy: FaultProxy, size: int, request: pytest.FixtureRequest
) -> None:
    store = opened(read_seconds=10.0)
    for fault in (Fault.drop_reply(), Fault.answer(500, "InternalError"), Fault.cut()):
        proxy.add(fault, method="PUT")
        path = f"{request.node.name}/{fault.kind}"
        assert store.put_if_absent(path, DATA[:size]).size == size
        assert store.read(path) == DATA[:size]


@pytest.mark.s3
def test_a_lost_reply_does_not_hide_a_true_conflict(
    opened: Open, proxy: FaultProxy, request: pytest.FixtureRequest
) -> None:
    store = opened(read_seconds=10.0)
    taken = f"{request.node.name}/taken"
    store.put_if_absent(taken, b"theirs")
    for ours in (b"other!", b"longer than theirs"):
        proxy.add(Fault.drop_reply(), method="PUT")
        with pytest.raises(AlreadyExistsError):
            store.put_if_absent(taken, ours)
    assert store.read(taken) == b"theirs"


@pytest.mark.s3
def test_a_lost_reply_to_a_move_is_not_a_conflict(
    opened: Open, proxy: FaultProxy, request: pytest.FixtureRequest
) -> None:
    store = opened(read_seconds=10.0)
    for method in ("PUT", "POST"):
        folder = f"{request.node.name}/{method}"
        store.put_if_absent(f"{folder}/old", DATA)
        proxy.add(Fault.drop_reply(), method=method, path="/new")
        store.move_if_absent(f"{folder}/old", f"{folder}/new")
        proxy.clear()
        assert store.read(f"{folder}/new") == DATA
        assert [info.path for info in store.list(f"{folder}/")] == [f"{folder}/new"]


@pytest.mark.s3
def test_twenty_writers_of_one_name_have_one_winner(bucket: str) -> None:
    store = open_store(bucket)
    wins: list[int] = []

    def write(number: int) -> None:
        try:
            store.put_if_absent("one", b"%03d" % number)
        except AlreadyExistsError:
            return
        wins.append(number)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [store.read("one")] == [b"%03d" % number for number in wins]


@pytest.mark.s3
def test_an_upload_in_parts_that_dies_leaves_nothing_visible(bucket: str, proxy: FaultProxy) -> None:
    settings = StoreSettings(single_put_bytes=MIB, budget_seconds=1.0, **LIMITS)  # type: ignore[arg-type]
    store = open_store(bucket, settings)
    proxy.add(Fault.answer(500, "InternalError"), method="PUT", times=1_000_000)
    with pytest.raises(StoreError, match="big"):
        store.put_if_absent("big", DATA)
    proxy.clear()
    assert list(store.list()) == []


@pytest.mark.s3
def test_hedging_gets_past_a_straggler(bucket: str, proxy: FaultProxy) -> None:
    settings = StoreSettings(hedge_seconds=0.2, read_seconds=30.0)
    store = open_store(bucket, settings)
    store.put_if_absent("big", DATA)
    proxy.add(Fault.stall(), path="big")
    begin = time.monotonic()
    assert store.read_range("big", 9, 1000) == DATA[9:1009]
    assert time.monotonic() - begin < 10.0


@pytest.mark.s3
def test_gaps_between_ranges_are_not_fetched(bucket: str, proxy: FaultProxy) -> None:
    for driver in DRIVERS:
        store = open_store(f"{bucket}/{driver}", StoreSettings(driver=driver))
        store.put_if_absent("big", DATA)
        proxy.sent = 0
        store.read_ranges("big", [(start, 1000) for start in range(0, 2 * MIB, 100_000)])
        assert proxy.sent < 60_000


@pytest.mark.s3
def test_a_web_page_is_neither_an_object_nor_a_listing(opened: Open, proxy: FaultProxy) -> None:
    proxy.add(Fault.page(), method="HEAD", path="big", times=2)
    proxy.add(Fault.page(), path="list-type")
    store = opened()
    assert store.stat("big").size == len(DATA)
    assert "big" in [info.path for info in store.list()]
    proxy.add(Fault.page(), method="HEAD", path="big", times=1000)
    with pytest.raises(StoreError, match="not from an object store"):
        opened(budget_seconds=0.5).stat("big")


@pytest.mark.s3
def test_a_web_page_in_place_of_the_second_part_of_a_listing(bucket: str, proxy: FaultProxy) -> None:
    store = open_store(f"{bucket}/many", StoreSettings(driver="obstore", **LIMITS))  # type: ignore[arg-type]
    for number in range(1010):
        store.put_if_absent(f"{number:04d}", b"x")
    proxy.add(Fault.page(), path="continuation-token|marker|start-after")
    assert sum(1 for _ in store.list()) == 1010
    assert proxy.left() == 0
