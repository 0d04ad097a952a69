"""After a purge nothing of what was withdrawn is found in any object, and all else is as it was."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.withdrawal.choose import Asked
from ingest.withdrawal.purge import purge
from ingest.withdrawal.withdraw import withdraw
from shards.dataset.compact import compact
from shards.dataset.dataset import Dataset
from shards.dataset.pins import pins_of, record_pin
from shards.dataset.vacuum import vacuum
from shards.dataset.verify import verify
from shards.errors import SampleIndexError, SubsetError
from shards.stream.stream import Stream
from shards.subset.finding import find
from shards.subset.lock import Lock, Selection, create
from shards.subset.relock import relock
from tests.ingest.material import encoded, photo
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

pytestmark = pytest.mark.slow
NOW = timedelta(0)
PLACES = [pytest.param("disk"), pytest.param("s3", marks=pytest.mark.process)]


@pytest.fixture(params=PLACES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "d") if request.param == "disk" else f"{request.getfixturevalue('bucket')}/d"


def ingest_twice(tmp_path: Path, url: str) -> Dataset:
    take_in(write_patients(tmp_path / "raw", range(2)), url)
    same = {"patient-9/same.png": encoded(photo(100))}
    assert take_in(write_patients(tmp_path / "raw", more=same), url).reasons == {"duplicate": 1}
    return Dataset.open(url)


def keys_in_order(lock: Lock, dataset: Dataset) -> list[str]:
    """What an epoch gives, read to the last byte."""
    with tempfile.TemporaryDirectory() as folder:
        lock.write(Path(folder) / "of.lock.yaml")
        place = str(Path(folder) / "of.lock.yaml")
        with Stream(place, dataset=dataset.url, crops=(), global_batch=1, num_epochs=1, num_threads=1) as stream:
            return [key for batch in stream for key in batch.keys]


def test_nothing_of_a_withdrawn_patient_is_found_anywhere(tmp_path: Path, url: str) -> None:
    dataset = ingest_twice(tmp_path, url)
    group = group_of(dataset, "patient-1")
    theirs, others = identifiers_of(dataset, group), identifiers_of(dataset, group_of(dataset, "patient-3"))
    before, old = members_of(dataset), create(dataset, Selection())
    withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
    after, new = members_of(dataset), create(dataset, Selection())
    order = keys_in_order(new, dataset)
    assert traces(dataset, theirs), "the old version holds them until the purge"
    done = purge(dataset, SECRET, grace=NOW)
    assert (len(done.names), done.first_version, done.young) == (1, new.index_version, ())
    assert traces(dataset, theirs) == []
    assert traces(dataset, others), "the search finds what is there"
    assert members_of(dataset) == after
    assert all(before[name] == data for name, data in after.items())
    assert not verify(dataset, deep=True).problems
    assert not verify(dataset, deep=True).orphans
    assert keys_in_order(new, dataset) == order, "the version of the withdrawal stays"
    assert [job["job_id"] for job in dataset.jobs()][-1] == done.names[0]
    assert len(dataset.jobs()) == 3
    with pytest.raises(SubsetError, match=r"3 withdrawn .*3 samples were withdrawn on \S+ \(consent\)"):
        find(old, dataset)
    with pytest.raises(SampleIndexError, match="version 0 is gone; 3 samples were withdrawn"):
        dataset.samples_table(0)
    again = relock(old, dataset)
    assert again.num_samples == old.num_samples - IMAGES
    assert sorted(keys_in_order(again, dataset)) == sorted(order)
    # a later job goes on, and does not bring the patient back
    more = {"patient-9/new.png": encoded(photo(950)), "patient-9/same.png": encoded(photo(100))}
    report = take_in(write_patients(tmp_path / "grown", more=more), url)
    assert report.kept == 1
    assert traces(dataset, theirs) == []
    assert purge(dataset, SECRET, grace=NOW).first_version == done.first_version
    assert purge(dataset, SECRET, grace=NOW).num_objects == 0


def test_a_lock_of_an_earlier_format_names_the_withdrawal_too(tmp_path: Path) -> None:
    dataset = ingest_twice(tmp_path, str(tmp_path / "d"))
    lock = create(dataset, Selection())
    earlier = lock.model_copy(update={"format": 1, "order": "", "parts": ()})
    withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
    purge(dataset, SECRET, grace=NOW)
    with pytest.raises(SubsetError, match="Fundus: 3 withdrawn"):
        find(earlier, dataset)


def test_compact_and_vacuum_go_on_after_a_purge(tmp_path: Path) -> None:
    dataset = ingest_twice(tmp_path, str(tmp_path / "d"))
    theirs = identifiers_of(dataset, group_of(dataset, "patient-1"))
    record_pin(dataset, dataset.version(), digest="md5sum128:0123456789abcdef")
    withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
    lock = create(dataset, Selection())
    record_pin(dataset, lock.index_version, digest=lock.digest)
    done = purge(dataset, SECRET, grace=NOW)
    assert [pin.version for pin in pins_of(dataset)] == [done.first_version]
    compact(dataset)
    assert vacuum(dataset, keep_days=0, orphan_hours=0).pinned == [lock.index_version]
    find(lock, dataset, full=True)
    assert traces(dataset, theirs) == []
    assert not verify(dataset, deep=True).problems


def test_the_grace_holds_the_purge_back(tmp_path: Path) -> None:
    dataset = ingest_twice(tmp_path, str(tmp_path / "d"))
    theirs = identifiers_of(dataset, group_of(dataset, "patient-1"))
    assert purge(dataset, SECRET, grace=NOW).names == ()
    withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
    week = timedelta(days=7)
    waits = purge(dataset, SECRET, grace=week)
    assert (waits.names, len(waits.waiting), waits.num_objects) == ((), 1, 0)
    assert traces(dataset, theirs)
    tried = purge(dataset, SECRET, grace=week, now=datetime.now(UTC) + timedelta(days=8), dry_run=True)
    assert tried.num_objects > 0
    assert traces(dataset, theirs)
    done = purge(dataset, SECRET, grace=week, now=datetime.now(UTC) + timedelta(days=8))
    assert (done.num_objects, done.num_bytes, done.waiting) == (tried.num_objects, tried.num_bytes, {})
    assert traces(dataset, theirs) == []


def test_later_versions_stay_and_a_second_withdrawal_waits_for_its_own_grace(tmp_path: Path) -> None:
    dataset = ingest_twice(tmp_path, str(tmp_path / "d"))
    first, second = (identifiers_of(dataset, group_of(dataset, f"patient-{number}")) for number in (1, 2))
    withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
    between = create(dataset, Selection())
    order = keys_in_order(between, dataset)
    begun = datetime.now(UTC) + timedelta(seconds=2)
    dataset.query("SELECT 1")
    withdraw(dataset, Asked(groups=("patient-2",)), SECRET)
    _make_older(dataset, 0)
    purge(dataset, SECRET, grace=timedelta(days=1), now=begun + timedelta(hours=12))
    assert traces(dataset, first) == []
    assert traces(dataset, second)
    assert keys_in_order(between, dataset) == order
    purge(dataset, SECRET, grace=NOW)
    assert traces(dataset, second) == []
    assert len(dataset.query("SELECT key FROM samples")) == (PATIENTS - 2) * IMAGES


def _make_older(dataset: Dataset, which: int) -> None:
    """Let a withdrawal lie a day back, by its tombstones."""
    import pyarrow.compute as pc

    from shards.dataset.rewrite import drop_rows

    names = dataset.query("SELECT withdrawal, max(withdrawn_at) AS at FROM withdrawn GROUP BY 1 ORDER BY 2")
    jobs = [job["job_id"] for job in dataset.jobs() if job["job_id"] in names["withdrawal"].to_pylist()]
    earlier = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="seconds")

    def older(batch):  # type: ignore[no-untyped-def]
        ours = pc.equal(batch["withdrawal"], jobs[which])
        at = batch.schema.get_field_index("withdrawn_at")
        return batch.set_column(
            at, batch.schema.field(at), pc.if_else(ours, earlier, batch["withdrawn_at"]).cast("string")
        )

    drop_rows(
        dataset,
        "withdrawn",
        lambda batch: pc.equal(batch["kind"], ""),
        columns=["withdrawal", "withdrawn_at", "kind"],
        transaction=f"older-{which}",
        changed=older,
    )


def test_what_jobs_that_died_have_left_goes_when_it_is_old(tmp_path: Path) -> None:
    dataset = ingest_twice(tmp_path, str(tmp_path / "d"))
    theirs = identifiers_of(dataset, group_of(dataset, "patient-1"))
    shard = dataset.query("SELECT shard FROM samples LIMIT 1")["shard"][0].as_py()
    leftovers = ["staging/dead/u000000-fundus-0000.tar", "shards/ward/fundus/0123.tar", "index/part-dead-00000.parquet"]
    leftovers += ["index/_delta_log/_commit_0.json.tmp", "fingerprints/_delta_log/.partial-1"]
    for path in leftovers:
        dataset.store.put_if_absent(path, dataset.store.read(shard))
    withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
    later = datetime.now(UTC) + timedelta(days=8)
    done = purge(dataset, SECRET, grace=timedelta(days=8), now=later - timedelta(seconds=-5))
    assert done.young == ()
    assert not {info.path for info in dataset.store.list()} & set(leftovers)
    assert traces(dataset, theirs) == []


def test_what_a_job_at_work_has_staged_stays_and_is_named(tmp_path: Path) -> None:
    dataset = ingest_twice(tmp_path, str(tmp_path / "d"))
    withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
    _make_older(dataset, 0)
    dataset.store.put_if_absent("staging/alive/u000000.json", b"{}")
    dataset.store.put_if_absent("staging/alive/promoted/shards/ward/fundus/0123.tar", b"")
    dataset.store.put_if_absent("shards/ward/fundus/0123.tar", b"under way")
    done = purge(dataset, SECRET, grace=timedelta(hours=12))
    assert len(done.names) == 1
    assert set(done.young) == {
        "staging/alive/u000000.json",
        "staging/alive/promoted/shards/ward/fundus/0123.tar",
        "shards/ward/fundus/0123.tar",
    }


STEPS = ("make_first", "shards", "files", "forget_log", "staging")


@pytest.mark.parametrize("step", STEPS)
def test_a_purge_that_was_killed_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    from ingest.withdrawal import purge as module

    dataset = ingest_twice(tmp_path, str(tmp_path / "d"))
    theirs = identifiers_of(dataset, group_of(dataset, "patient-1"))
    withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
    lock = create(dataset, Selection())

    calls = 0
    owner = module if hasattr(module, step) else module._Run
    real = getattr(owner, step)

    def killed(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2 or step in ("shards", "staging"):
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, killed)
        with pytest.raises(KeyboardInterrupt):
            purge(dataset, SECRET, grace=NOW)
    find(lock, dataset, full=True)
    purge(dataset, SECRET, grace=NOW)
    assert traces(dataset, theirs) == []
    assert not verify(dataset, deep=True).problems
    find(lock, dataset, full=True)


def test_who_reads_an_older_version_is_told_of_the_withdrawal(tmp_path: Path) -> None:
    dataset = ingest_twice(tmp_path, str(tmp_path / "d"))
    settings = {"crops": (), "global_batch": 1, "num_epochs": 1, "num_threads": 1}
    with Stream(dataset.url, **settings) as stream, Stream(dataset.url, **settings) as idle:  # type: ignore[arg-type]
        position = stream.state_dict()
        batches = iter(stream)
        keys = [next(batches).keys[0]]
        withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
        keys += [batch.keys[0] for batch in batches]
        assert len(set(keys)) == PATIENTS * IMAGES, "until the purge it reads on"
        purge(dataset, SECRET, grace=NOW)
        with pytest.raises(SampleIndexError, match="the version that is read is gone; 3 samples were withdrawn"):
            list(idle)  # the other one holds the files that it has opened
    with (
        Stream(dataset.url, crops=(), global_batch=1, num_threads=1) as later,
        pytest.raises(SubsetError, match="3 samples were withdrawn on"),
    ):
        later.load_state_dict(position)
