"""The past of a table goes, and later versions, transactions and history stay."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.dataset.dataset import Dataset
from shards.dataset.forget import first_version, forget_log, make_first, past_of, table_folders
from shards.dataset.removal import remove_samples
from shards.errors import SampleIndexError, StoreError
from shards.store import Store
from tests.shards.builders import add_source, jpeg


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    made = Dataset.create(str(tmp_path / "d"))
    keys = add_source(made, "a", "CT", [jpeg(number) for number in range(6)], job_id="one")
    remove_samples(made, keys[:2], transaction="withdraw-x")
    add_source(made, "b", "US", [jpeg(number) for number in range(6, 9)], job_id="two")
    return made


def forget(dataset: Dataset, version: int) -> None:
    past = past_of(dataset, "index", version)
    make_first(dataset, past)
    dataset.store.delete([f"index/{path}" for path in past.old])
    forget_log(dataset, past)


@pytest.mark.slow
def test_older_versions_are_gone_and_later_ones_read(dataset: Dataset) -> None:
    assert first_version(dataset, "index", ["withdraw-x", "other"]) == 1
    assert first_version(dataset, "index", ["other"]) is None
    later = [
        dataset.query("SELECT key, shard, byte_offset FROM samples ORDER BY key", version=version) for version in (1, 2)
    ]
    forget(dataset, 1)
    assert [
        dataset.query("SELECT key, shard, byte_offset FROM samples ORDER BY key", version=version) for version in (1, 2)
    ] == later
    with pytest.raises(SampleIndexError):
        dataset.samples_table(0)
    assert [job["job_id"] for job in dataset.jobs()] == ["one", "withdraw-x", "two"]
    assert all(dataset.has_job(job) for job in ("one", "withdraw-x", "two"))


def test_the_log_holds_nothing_but_who_committed_when(dataset: Dataset) -> None:
    first = dataset.query("SELECT min(key) AS key FROM samples", version=0)["key"][0].as_py()
    path = "index/_delta_log/00000000000000000000.json"
    assert first in dataset.store.read(path).decode()
    forget(dataset, 1)
    text = dataset.store.read(path).decode()
    assert first not in text
    assert len(text.splitlines()) == 1
    assert '"biovfm.job":"one"' in text


def test_forgetting_twice_and_further_changes_nothing_else(dataset: Dataset) -> None:
    forget(dataset, 1)
    objects = {info.path: dataset.store.read(info.path) for info in dataset.store.list()}
    past = past_of(dataset, "index", 1)
    assert past.old == frozenset()
    assert forget_log(dataset, past) == 0
    assert {info.path: dataset.store.read(info.path) for info in dataset.store.list()} == objects
    forget(dataset, 2)
    assert len(dataset.query("SELECT key FROM samples")) == 7
    with pytest.raises(SampleIndexError):
        dataset.samples_table(1)


@pytest.mark.slow
def test_a_writer_that_began_before_commits_behind_what_stays(dataset: Dataset) -> None:
    stale = dataset.table("index", version=0)
    assert stale is not None
    forget(dataset, 2)
    add_source(dataset, "c", "MR", [jpeg(20)], job_id="three")
    assert dataset.version() == 3
    assert len(dataset.query("SELECT key FROM samples")) == 8
    stale.delete("source = 'nobody'")  # reads nothing that is left, and may not land under a name of the past
    assert len(dataset.query("SELECT key FROM samples")) == 8


def test_a_later_checkpoint_stays_the_one_that_readers_begin_with(dataset: Dataset) -> None:
    table = dataset.table("index")
    assert table is not None
    table.create_checkpoint()
    forget(dataset, 1)
    assert b'"version":2' in dataset.store.read("index/_delta_log/_last_checkpoint").replace(b" ", b"")
    assert [len(dataset.query("SELECT key FROM samples", version=version)) for version in (1, 2)] == [4, 7]


def lost(dataset: Dataset, path: str, _data: bytes) -> None:
    """A store that deletes what did not arrive as it was sent."""
    dataset.store.delete([path])
    raise StoreError("the store holds other bytes than were sent", hint="run it again")


def altered(dataset: Dataset, path: str, data: bytes) -> None:
    """A checkpoint in which a file has another name."""
    table = pq.read_table(io.BytesIO(data))
    rows = table.to_pylist()
    next(row["add"] for row in rows if row["add"])["path"] += "x"
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), Path(dataset.url) / path)


@pytest.mark.parametrize("damage", [lost, altered])
def test_a_checkpoint_that_does_not_arrive_leaves_the_table_as_it_was(
    dataset: Dataset, damage: Callable[[Dataset, str, bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = dataset.query("SELECT key FROM samples ORDER BY key")
    past = past_of(dataset, "index", 1)
    replace = type(dataset.store).replace

    def replaced(store: Store, path: str, data: bytes) -> None:
        if path.endswith(".parquet"):
            damage(dataset, path, data)
        else:
            replace(store, path, data)

    with monkeypatch.context() as broken:
        broken.setattr(type(dataset.store), "replace", replaced)
        with pytest.raises(StoreError, match="run"):
            make_first(dataset, past)
    assert Dataset.open(dataset.url).query("SELECT key FROM samples ORDER BY key") == rows
    forget(dataset, 1)
    assert Dataset.open(dataset.url).query("SELECT key FROM samples ORDER BY key") == rows


def test_all_delta_tables_are_found(dataset: Dataset) -> None:
    rows = pa.table({name: ["x"] for name in ("withdrawal", "kind", "mark", "source", "withdrawn_at", "reason")})
    dataset.append("withdrawn", "t", rows)
    assert table_folders(dataset) == ["index", "rejects", "withdrawn"]
