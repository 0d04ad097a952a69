"""What every store does alike: on disk, in memory, and on S3 through both client libraries."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.errors import AlreadyExistsError, ConfigError, NotFoundError, StoreError
from shards.store import LocalStore, MemoryStore, Store, StoreSettings, join_url, open_store
from tests.shards.store import emulators

STORES = ("local", "memory", "fsspec-memory", "s3-obstore", "s3-fsspec", "az", "gs-fsspec")
MARKS = {name: [pytest.mark.s3 if name.startswith("s3") else pytest.mark.slow] for name in STORES[3:]}
MARKS["gs-fsspec"].append(pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"))  # as gcsfs does
BIG = os.urandom(3 << 20)


@pytest.fixture(scope="session")
def azure_endpoint() -> Iterator[str]:
    with emulators.azurite() as endpoint:
        yield endpoint


@pytest.fixture
def container(azure_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a container of its own for one test."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    emulators.make_container(azure_endpoint, name)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", emulators.ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", emulators.KEY)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", azure_endpoint)
    return f"az://{name}"


@pytest.fixture(scope="session")
def gcs_endpoint() -> Iterator[str]:
    with emulators.fake_gcs() as endpoint:
        yield endpoint


@pytest.fixture
def gcs_bucket(gcs_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a bucket of its own for one test."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    emulators.make_gcs_bucket(gcs_endpoint, name)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_endpoint)
    return f"gs://{name}"


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in STORES])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    name = request.param
    if name == "local":
        return open_store(str(tmp_path / "data"))
    if name == "memory":
        return MemoryStore()
    settings = StoreSettings(range_bytes=1 << 20, budget_seconds=5.0, driver="auto")
    if name == "fsspec-memory":
        return open_store(f"memory://{uuid.uuid4().hex}", settings)
    if name == "az":
        return open_store(f"{request.getfixturevalue('container')}/some/folder", settings)
    if name == "gs-fsspec":  # the emulator does not speak the uploads of obstore
        url = f"{request.getfixturevalue('gcs_bucket')}/some/folder"
        return open_store(url, StoreSettings(range_bytes=1 << 20, budget_seconds=5.0, driver="fsspec"))
    bucket = request.getfixturevalue("bucket")
    driver = name.removeprefix("s3-")
    return open_store(f"{bucket}/some/folder", StoreSettings(range_bytes=1 << 20, budget_seconds=5.0, driver=driver))


def test_round_trip(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "big.bin"
    file.write_bytes(BIG)
    assert store.put_if_absent("a/b.json", b"{}").size == 2
    assert store.put_if_absent("c/big.tar", file).size == len(BIG)
    store.put_if_absent("empty", b"")
    assert store.read("a/b.json") == b"{}"
    assert store.read("c/big.tar") == BIG
    assert store.read("empty") == b""
    assert store.stat("c/big.tar").size == len(BIG)
    assert store.stat("c/big.tar").path == "c/big.tar"


def test_ranges(store: Store) -> None:
    store.put_if_absent("big", BIG)
    ranges = [(10, 20), (2_000_000, 300_000), (0, 1), (15, 5), (len(BIG) - 3, 3), (7, 0)]
    assert store.read_ranges("big", ranges) == [BIG[start : start + length] for start, length in ranges]
    assert store.read_range("big", 5, len(BIG) - 5) == BIG[5:]
    assert store.read_ranges("big", []) == []
    many = [(index * 1000, 37) for index in range(200)]
    assert store.read_ranges("big", many) == [BIG[start : start + length] for start, length in many]


@pytest.mark.parametrize(("start", "length"), [(len(BIG) - 4, 10), (len(BIG) + 4, 10), (5, len(BIG))])
def test_a_range_past_the_end_is_an_error_not_fewer_bytes(store: Store, start: int, length: int) -> None:
    store.put_if_absent("big", BIG)
    with pytest.raises(StoreError, match=rf"big.*{start}"):
        store.read_range("big", start, length)


def test_stream(store: Store) -> None:
    store.put_if_absent("big", BIG)
    store.put_if_absent("empty", b"")
    with store.open_stream("big", 1000) as stream:
        assert stream.read(10) == BIG[1000:1010]
        assert stream.read() == BIG[1010:]
        assert stream.read() == b""
    with store.open_stream("empty") as stream:
        assert stream.read() == b""
    with store.open_stream("big", len(BIG)) as stream:
        assert stream.read() == b""


def test_a_taken_name_stays_as_it_is(store: Store) -> None:
    store.put_if_absent("a", b"one")
    with pytest.raises(AlreadyExistsError, match="a is there already"):
        store.put_if_absent("a", b"two")
    assert store.read("a") == b"one"


def test_replace_puts_over_what_is_there_and_where_nothing_is(store: Store) -> None:
    store.put_if_absent("a/b", b"one")
    store.replace("a/b", b"another")
    store.replace("c", b"")
    assert (store.read("a/b"), store.read("c")) == (b"another", b"")
    assert [info.path for info in store.list(hidden=True)] == ["a/b", "c"]


def test_move(store: Store) -> None:
    store.put_if_absent("old/x", BIG)
    store.put_if_absent("old/y", b"y")
    assert store.move_if_absent("old/x", "new/x").size == len(BIG)
    assert store.read("new/x") == BIG
    with pytest.raises(NotFoundError):
        store.read("old/x")
    with pytest.raises(AlreadyExistsError):
        store.move_if_absent("old/y", "new/x")
    assert store.read("old/y") == b"y"
    with pytest.raises(NotFoundError):
        store.move_if_absent("old/nothing", "new/z")


def test_listing_is_sorted_by_path_and_filtered_by_prefix(store: Store) -> None:
    for path in ("shards/a/1.tar", "shards/a-b/1.tar", "shards/b/2.tar", "staging/x", "shards/.partial-abc"):
        store.put_if_absent(path, b"12")
    assert [info.path for info in store.list("shards/")] == ["shards/a-b/1.tar", "shards/a/1.tar", "shards/b/2.tar"]
    assert [info.path for info in store.list("shards/a")] == ["shards/a-b/1.tar", "shards/a/1.tar"]
    assert [info.path for info in store.list("shards/a/")] == ["shards/a/1.tar"]
    assert [info.size for info in store.list()] == [2, 2, 2, 2]
    assert list(store.list("nothing/here")) == []


def test_delete(store: Store) -> None:
    for path in ("a", "b/c", "b/d"):
        store.put_if_absent(path, b"x")
    store.delete(["a", "b/c", "never/there"])
    store.delete([])
    assert [info.path for info in store.list()] == ["b/d"]


@pytest.mark.parametrize("path", ["nothing", "no/such/thing.tar"])
def test_a_missing_object_is_named(store: Store, path: str) -> None:
    for call in (
        lambda: store.read(path),
        lambda: store.read_range(path, 3, 4),
        lambda: store.read_ranges(path, [(3, 4), (9, 4)]),
        lambda: store.open_stream(path).read(),
        lambda: store.stat(path),
    ):
        with pytest.raises(NotFoundError, match=path):
            call()


def test_names_with_odd_characters(store: Store) -> None:
    for path in ("with space.tar", "prozent%20.tar", "ümlaut/é#1.tar", "a+b=c.tar"):
        store.put_if_absent(path, path.encode())
        assert store.read(path) == path.encode()
        assert path in [info.path for info in store.list()]


def test_stores_pickle(store: Store) -> None:
    if isinstance(store, MemoryStore):
        pytest.skip("lives in one process")
    store.put_if_absent("a", b"one")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.url == store.url
    assert copy.read("a") == b"one"


def test_a_pickled_store_holds_no_secret(bucket: str) -> None:
    for driver in ("obstore", "fsspec"):
        store = open_store(bucket, StoreSettings(driver=driver))
        list(store.list())
        secret = os.environ["AWS_SECRET_ACCESS_KEY"]
        assert secret.encode() not in pickle.dumps(store)
        assert secret not in repr(store) + repr(vars(store))


def test_a_big_object_is_uploaded_in_parts_and_appears_whole(bucket: str) -> None:
    store = open_store(bucket, StoreSettings(single_put_bytes=1 << 20))
    store.put_if_absent("big", BIG)
    assert store.read("big") == BIG
    with pytest.raises(AlreadyExistsError):
        store.put_if_absent("big", BIG[1:])
    assert store.read("big") == BIG
    assert [info.path for info in store.list(hidden=True)] == ["big"]


def test_hedged_reads_give_the_same_bytes(bucket: str) -> None:
    store = open_store(bucket, StoreSettings(hedge_seconds=0.0001, range_bytes=1 << 20))
    store.put_if_absent("big", BIG)
    assert store.read_range("big", 1, len(BIG) - 1) == BIG[1:]


@pytest.mark.parametrize("hedge_seconds", [0.0, 0.0001])
def test_many_long_ranges_at_once_do_not_block_each_other(bucket: str, hedge_seconds: float) -> None:
    store = open_store(bucket, StoreSettings(range_bytes=100_000, concurrency=2, hedge_seconds=hedge_seconds))
    store.put_if_absent("big", BIG)
    ranges = [(number * 1000, 500_000) for number in range(6)]
    assert store.read_ranges("big", ranges) == [BIG[start : start + length] for start, length in ranges]


def test_the_environment_selects_the_driver(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ObstoreDriver" in repr(open_store(bucket))
    monkeypatch.setenv("BIOVFM_STORE", "fsspec")
    assert "FsspecDriver" in repr(open_store(bucket))
    monkeypatch.setenv("BIOVFM_STORE", "rclone")
    with pytest.raises(ConfigError, match="rclone"):
        open_store(bucket)


def test_settings_come_from_the_environment() -> None:
    settings = StoreSettings.from_environment({"BIOVFM_STORE_READ_SECONDS": "1.5", "BIOVFM_STORE_RANGE_BYTES": "1024"})
    assert (settings.read_seconds, settings.range_bytes) == (1.5, 1024)
    with pytest.raises(ConfigError, match="BIOVFM_STORE_READ_SECONDS='soon'"):
        StoreSettings.from_environment({"BIOVFM_STORE_READ_SECONDS": "soon"})
    with pytest.raises(ConfigError, match="range_bytes"):
        StoreSettings(range_bytes=0)


def test_an_unknown_scheme_is_an_error() -> None:
    with pytest.raises(StoreError, match="gopher://"):
        open_store("gopher://x/y")
    with pytest.raises(StoreError, match="memory://"):
        open_store("memory://x/y", StoreSettings(driver="obstore"))


def test_a_password_in_a_url_is_not_shown() -> None:
    store = open_store("http://user:hunter2@127.0.0.1:9/x?sig=abc", StoreSettings(budget_seconds=0.1))
    assert "hunter2" not in store.url + repr(store)
    with pytest.raises(StoreError) as caught:
        store.read("k")
    assert "hunter2" not in str(caught.value)
    assert "sig=abc" not in str(caught.value)


def test_join_url() -> None:
    assert join_url("s3://b/x/", "/y/", "z") == "s3://b/x/y/z"


def test_local_store_refuses_paths_that_leave_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "data")
    for path in ("../outside", "/etc/passwd", "a/../../b"):
        with pytest.raises(StoreError, match="leaves"):
            store.put_if_absent(path, b"x")
        with pytest.raises(StoreError, match="leaves"):
            store.read(path)


FORK = """
import multiprocessing, sys
from shards.store import open_store
store = open_store(sys.argv[1])
if sys.argv[2] == "touched":
    store.read("a")

def child(queue):
    try:
        queue.put(store.read("a").decode())
    except Exception as error:
        queue.put(str(error))

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    print(queue.get(timeout=30))
    process.join(10)
"""


@pytest.mark.process
@pytest.mark.parametrize(("state", "expected"), [("touched", "forkserver"), ("untouched", "content")])
def test_a_forked_process_fails_clearly_and_never_hangs(bucket: str, tmp_path: Path, state: str, expected: str) -> None:
    open_store(bucket).put_if_absent("a", b"content")
    script = tmp_path / "fork.py"
    script.write_text(FORK)
    done = subprocess.run(
        [sys.executable, str(script), bucket, state],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert expected in done.stdout, done.stderr
