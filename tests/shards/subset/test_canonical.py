"""The canonical form: the same bytes from any packing and secret, nothing doubled, nothing lost."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ingest.job.run import run_job
from ingest.settings import IngestSettings
from ingest.source.spec import from_flags
from shards.dataset.dataset import Dataset
from shards.dataset.left_out import left_out
from shards.dataset.verify import verify as verify_dataset
from shards.errors import ConfigError, ShardError, SubsetError
from shards.stream import Stream
from shards.subset import Selection, canonical, create, materialize
from tests.ingest.material import encoded, photo, public_spec, shard_bytes, tables, write_folder
from tests.shards.builders import add_source, jpeg, small_dataset


def ingested(folder: Path, name: str, halves: tuple[range, ...], secret: str) -> Dataset:
    """A dataset of 12 pictures, a reject and a file of another kind, ingested file by file in several jobs."""
    spec = from_flags(name="site", modality="US")
    raw = folder / f"raw-{name}"
    for numbers in halves:
        write_folder(raw, {f"p{n // 3}/{n:02d}.png": encoded(photo(n)) for n in numbers})
        write_folder(raw, {"p0/tiny.png": encoded(photo(99, height=10, width=10))})
        settings = IngestSettings(secret=SecretStr(secret))
        run_job(spec, str(raw), str(folder / name), workers=0, settings=settings)
    return Dataset.open(str(folder / name))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    """The same twelve pictures, packed as 8 + 4 under one secret and as 4 + 8 under another."""
    folder = tmp_path_factory.mktemp("canonical")
    one = ingested(folder, "one", (range(8), range(12)), "first secret")
    two = ingested(folder, "two", (range(4), range(12)), "second secret")
    return one, two


@pytest.mark.slow
def test_copies_of_two_packings_and_secrets_have_the_same_bytes_and_order(
    pair: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canonical, "SHARD_BYTES", 30_000)
    orders = []
    for number, (origin, workers) in enumerate(zip(pair, (1, 4), strict=True)):
        lock = create(origin, Selection())
        copy = materialize(lock, str(tmp_path / f"copy{number}"), workers=workers)
        pinned = create(copy, Selection())
        pinned.write(tmp_path / f"{number}.lock.yaml")
        assert pinned.digest == lock.digest
        orders.append((pinned.order, [keys for _, _, keys in zip_epoch(tmp_path / f"{number}.lock.yaml")]))
    assert create(pair[0], Selection()).order != create(pair[1], Selection()).order
    assert orders[0] == orders[1]
    assert shard_bytes(tmp_path / "copy0") == shard_bytes(tmp_path / "copy1")
    assert len(shard_bytes(tmp_path / "copy0")) > 1


def zip_epoch(lock: Path) -> list[tuple[int, int, list[str]]]:
    return list(Stream(lock, global_batch=4, num_epochs=1).walk_keys())


@pytest.mark.slow
def test_nothing_that_hangs_on_a_secret_is_in_the_tars(pair: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    copy = materialize(create(pair[0], Selection()), str(tmp_path / "copy"))
    rows = {row["key"]: row for row in tables(tmp_path / "copy")["index"]}
    for data in shard_bytes(tmp_path / "copy").values():
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar.getmembers()[1::2]:
                file = tar.extractfile(member)
                assert file is not None
                meta: dict[str, Any] = json.load(file)
                assert {"group_id", "raw_path", "job_id"} & set(meta) == set()
                assert meta["phash"]
                assert rows[meta["key"]]["group_id"]
    assert copy.version() == 0


@pytest.mark.slow
def test_fingerprints_travel_and_of_rejects_their_counts_alone(pair: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    copy = materialize(create(pair[0], Selection()), str(tmp_path / "copy"))
    again = materialize(create(copy, Selection()), str(tmp_path / "again"))
    before, after = tables(Path(pair[0].url)), tables(tmp_path / "copy")
    assert after["fingerprints"] == before["fingerprints"]
    assert {row["reason"] for row in before["rejects"]} == {"too_small"}
    assert after["rejects"] == []
    for dataset in (copy, again):
        (job,) = dataset.jobs()
        assert (job["items"], job["kept"], job["rejected"]) == (12, 12, 0)
        assert left_out(dataset, dataset.version()) == {"site": {"too_small": len(before["rejects"])}}


@pytest.mark.slow
def test_a_copy_does_not_depend_on_what_came_after_the_lock(tmp_path: Path) -> None:
    origin = ingested(tmp_path, "one", (range(4),), "secret")
    lock = create(origin, Selection())
    one = materialize(lock, str(tmp_path / "before"))
    raw = write_folder(tmp_path / "more", {f"{n}.png": encoded(photo(n)) for n in range(4)})
    run_job(public_spec("site", "CT"), str(raw), origin.url, workers=0)
    assert left_out(origin, origin.version())["site"] == {"too_small": 1, "duplicate": 4}
    two = materialize(lock, str(tmp_path / "after"))
    assert one.jobs() == two.jobs()
    assert repr(tables(tmp_path / "before")) == repr(tables(tmp_path / "after"))  # NaN equals nothing
    assert left_out(two, two.version()) == left_out(origin, lock.index_version) == {"site": {"too_small": 1}}


@pytest.mark.slow
def test_the_statement_on_identifiers_travels(pair: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    copy = materialize(create(pair[0], Selection()), str(tmp_path / "copy"))
    assert copy.settings["deidentification"] == pair[0].settings["deidentification"]
    old = Dataset.create(str(tmp_path / "old"))
    add_source(old, "alpha", "CT", [jpeg(1)])
    assert "deidentification" not in materialize(create(old, Selection()), str(tmp_path / "older")).settings


@pytest.mark.slow
def test_a_copy_is_sound_in_depth(pair: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    copy = materialize(create(pair[0], Selection()), str(tmp_path / "copy"))
    report = verify_dataset(copy, deep=True)
    assert not report.problems
    assert not report.orphans
    (shard,) = (tmp_path / "copy" / "shards").rglob("*.tar")
    shard.rename(shard.with_name("000000-0123456789abcdef0123.tar"))
    assert verify_dataset(copy, deep=True).problems


@pytest.mark.slow
def test_a_target_gets_what_it_does_not_hold_and_nothing_twice(tmp_path: Path) -> None:
    origin = small_dataset(tmp_path / "data")
    target = str(tmp_path / "copy")
    assert materialize(create(origin, Selection(modality=("CT",))), target).version() == 0
    assert materialize(create(origin, Selection(modality=("CT",))), target).version() == 0
    assert materialize(create(origin, Selection(modality=("CT", "US"))), target).version() == 1
    assert len(tables(Path(target))["index"]) == 100
    assert materialize(create(origin, Selection()), origin.url).version() == 2
    assert not verify_dataset(Dataset.open(target), deep=True).problems


def test_the_same_keys_with_other_pixels_are_refused(tmp_path: Path) -> None:
    origin, other = Dataset.create(str(tmp_path / "one")), Dataset.create(str(tmp_path / "two"))
    add_source(origin, "alpha", "CT", [jpeg(1)])
    add_source(other, "alpha", "CT", [jpeg(1)])
    import pyarrow as pa

    from shards.schema import index_schema, rejects_schema

    (row,) = tables(tmp_path / "one")["index"]
    changed = pa.Table.from_pylist([{**row, "pixel_sha256": "0" * 64}], schema=index_schema())
    third = Dataset.create(str(tmp_path / "three"))
    third.commit(job_id="x", rows=changed, rejects=rejects_schema().empty_table())
    with pytest.raises(SubsetError, match="1 samples of the same keys and other pixels"):
        materialize(create(origin, Selection()), third.url)


def test_a_target_of_another_encoding_is_refused(tmp_path: Path) -> None:
    origin = Dataset.create(str(tmp_path / "one"), encoding={"jpeg_quality": 95})
    add_source(origin, "alpha", "CT", [jpeg(1)])
    Dataset.create(str(tmp_path / "two"), encoding={"jpeg_quality": 80})
    with pytest.raises(ConfigError, match="jpeg_quality=80, the subset with jpeg_quality=95"):
        materialize(create(origin, Selection()), str(tmp_path / "two"))


def test_a_sample_that_is_not_what_the_index_says_stops_the_copy(tmp_path: Path) -> None:
    origin = Dataset.create(str(tmp_path / "one"))
    add_source(origin, "alpha", "CT", [jpeg(n) for n in range(4)])
    lock = create(origin, Selection())
    (shard,) = (tmp_path / "one" / "shards").rglob("*.tar")
    data = bytearray(shard.read_bytes())
    data[512 + 200] ^= 0xFF
    shard.write_bytes(data)
    with pytest.raises(ShardError, match="fails its checksum"):
        materialize(lock, str(tmp_path / "copy"))
    assert Dataset.open(str(tmp_path / "copy")).version() == -1


@pytest.mark.slow
def test_an_interrupted_copy_is_completed_by_the_same_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = small_dataset(tmp_path / "data")
    lock = create(origin, Selection())

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(canonical, "_commit", killed)
        with pytest.raises(KeyboardInterrupt):
            materialize(lock, str(tmp_path / "copy"))
    left = shard_bytes(tmp_path / "copy")
    assert left
    copy = materialize(lock, str(tmp_path / "copy"))
    assert shard_bytes(tmp_path / "copy") == left
    assert create(copy, Selection()).digest == lock.digest
    assert not verify_dataset(copy, deep=True).problems
