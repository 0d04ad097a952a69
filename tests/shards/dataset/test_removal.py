"""Samples taken out: out of shard, index and fingerprints at once, and never out of an older version."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pytest

from shards.dataset import removal as removals
from shards.dataset.dataset import Dataset
from shards.dataset.removal import drop_prints, remove_samples
from shards.dataset.shard_file import read_samples
from shards.dataset.verify import verify
from shards.errors import ShardError
from shards.schema import fingerprint_schema, rejects_schema
from tests.shards.builders import add_source, jpeg, small_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    made = small_dataset(tmp_path / "d")
    rows = made.query("SELECT key, source, group_id, pixel_sha256 FROM samples ORDER BY key").to_pylist()
    prints = [{**row, "phash": b"a" * 32, "phash_centre": b"b" * 32, "thumb": b"c" * 4096} for row in rows]
    none = rejects_schema().empty_table()
    index = made.query("SELECT * FROM samples LIMIT 0")
    made.commit(
        job_id="prints",
        rows=index,
        rejects=none,
        fingerprints=pa.Table.from_pylist(prints, schema=fingerprint_schema()),
    )
    return made


def keys_of(dataset: Dataset, where: str = "true", table: str = "samples", version: int | None = None) -> list[str]:
    found = dataset.query(f"SELECT key FROM {table} WHERE {where} ORDER BY key", version=version)
    return [str(key) for key in found["key"].to_pylist()]


def in_tars(dataset: Dataset) -> set[str]:
    shards = dataset.query("SELECT DISTINCT shard FROM samples")["shard"].to_pylist()
    return {sample.key for shard in shards for sample in read_samples(io.BytesIO(dataset.store.read(shard)))}


@pytest.mark.slow
def test_they_leave_index_shards_and_fingerprints(dataset: Dataset) -> None:
    everything = keys_of(dataset)
    gone = [keys_of(dataset, "source = 'alpha'")[n] for n in (0, 7, 31)] + keys_of(dataset, "source = 'gamma'")
    done = remove_samples(dataset, [*gone, "nowhere-1"], transaction="t", summary={"source": "alpha"})
    stays = sorted(set(everything) - set(gone))
    assert (done.num_samples, done.version) == (23, 4)
    assert keys_of(dataset) == stays == keys_of(dataset, table="fingerprints")
    assert in_tars(dataset) == set(stays)
    report = verify(dataset, deep=True)
    assert (report.problems, report.num_samples) == ((), 97)
    assert dataset.jobs()[-1] == {"job_id": "t", "version": 4, "removed": 23, "source": "alpha"}
    assert {new is None for old, new in done.shards.items() if "/gamma/" in old} == {True}


@pytest.mark.slow
def test_an_older_version_keeps_its_samples_and_shards(dataset: Dataset) -> None:
    shards = dataset.query("SELECT DISTINCT shard FROM samples ORDER BY shard")["shard"].to_pylist()
    remove_samples(dataset, keys_of(dataset)[:50], transaction="t")
    assert len(keys_of(dataset, version=3)) == 120
    assert [dataset.store.stat(shard).path for shard in shards] == shards


@pytest.mark.slow
def test_a_repeated_call_changes_nothing(dataset: Dataset) -> None:
    first, second = keys_of(dataset)[:2]
    remove_samples(dataset, [first], transaction="t")
    again = remove_samples(dataset, [second], transaction="t")
    assert (again.num_samples, again.version) == (0, 4)
    assert second in keys_of(dataset)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["put_shard", "write_files", "replace_files", "drop_prints"])
def test_what_is_cut_short_is_completed(dataset: Dataset, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kill before each step would leave it."""
    gone = keys_of(dataset)[::5]

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(removals, step, killed)
        with pytest.raises(KeyboardInterrupt):
            remove_samples(dataset, gone, transaction="t")
    remove_samples(dataset, gone, transaction="t")
    stays = [key for key in keys_of(dataset, version=3) if key not in gone]
    assert keys_of(dataset) == stays == keys_of(dataset, table="fingerprints")
    assert in_tars(dataset) == set(stays)
    assert not verify(dataset, deep=True).problems


@pytest.mark.slow
def test_members_that_no_row_names_leave_with_their_shard(dataset: Dataset) -> None:
    """Bytes that a job gave up after its commit lie in a shard without a row."""
    shard = dataset.query("SELECT shard FROM samples WHERE source = 'alpha' LIMIT 1")["shard"][0].as_py()
    inside = keys_of(dataset, f"shard = '{shard}'")
    table = dataset.samples_table()
    table.delete(f"key = '{inside[3]}'")
    assert inside[3] in in_tars(dataset)
    done = remove_samples(dataset, [], transaction="t", shards=[shard])
    assert (done.num_samples, list(done.shards)) == (0, [shard])
    assert inside[3] not in in_tars(dataset)
    assert set(inside) - {inside[3]} <= in_tars(dataset)


@pytest.mark.slow
def test_a_shard_is_noted_before_it_appears(dataset: Dataset) -> None:
    noted: list[str] = []

    def note(shard: str) -> None:
        assert shard not in {info.path for info in dataset.store.list("shards/")}
        noted.append(shard)

    done = remove_samples(dataset, keys_of(dataset)[:1], transaction="t", note=note)
    assert noted == [new for new in done.shards.values() if new]


@pytest.mark.slow
def test_a_damaged_shard_is_not_passed_on(dataset: Dataset, tmp_path: Path) -> None:
    row = dataset.query("SELECT * FROM samples WHERE source = 'alpha' ORDER BY shard, shard_row LIMIT 2").to_pylist()
    file = tmp_path / "d" / row[1]["shard"]
    data = bytearray(file.read_bytes())
    data[row[1]["byte_offset"] + 100] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ShardError, match=f"does not hold {row[1]['key']}"):
        remove_samples(dataset, [row[0]["key"]], transaction="t")
    assert row[0]["key"] in keys_of(dataset)


@pytest.mark.slow
def test_another_commit_in_between_is_seen(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = keys_of(dataset)[:3]
    plan, once = removals.Removal.plan, []

    def late(self: removals.Removal, table: object) -> object:
        found = plan(self, table)  # type: ignore[arg-type]
        if not once:
            once.append(add_source(Dataset.open(dataset.url), "delta", "MR", [jpeg(700), jpeg(701)]))
        return found

    monkeypatch.setattr(removals.Removal, "plan", late)
    assert remove_samples(dataset, gone, transaction="t").version == 5
    assert set(once[0]) <= set(keys_of(dataset))
    assert not set(gone) & set(keys_of(dataset))


def test_no_removal_has_no_fingerprints_to_take(dataset: Dataset) -> None:
    assert drop_prints(dataset, "nobody") == drop_prints(dataset, "prints") == 0
