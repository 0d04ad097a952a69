"""A minute of the soak, and that it would see what must not be."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from infra.bench.soak import changing
from infra.bench.soak import session as sessions
from infra.bench.soak.__main__ import PLACES, soak, table
from infra.bench.soak.attempts import Attempt, undisturbed
from infra.bench.soak.compare import differences
from infra.bench.soak.faults import NO_FAULT, Scene, faults_for
from infra.bench.soak.material import files_of
from infra.bench.soak.places import Place, disk_place
from infra.bench.soak.session import Session
from infra.s3_server import find_program
from ingest.duplicates.audit import audit
from shards.dataset.dataset import Dataset
from shards.errors import ConfigError
from shards.schema import fingerprint_schema, raw_files_schema
from tests.ingest.material import encoded, ingest, photo, public_spec, write_folder


def available() -> Sequence[str]:
    try:
        find_program()
    except ConfigError:
        return ["disk"]
    return sorted(PLACES)


@pytest.mark.slow
def test_a_round_at_each_place_finds_nothing() -> None:
    attempts = soak(minutes=0.01, seed=11, places=available(), most_faults=1, verbose=False)
    assert [finding for one in attempts for finding in one.findings] == []
    disk = {"ingest", "withdraw", "stream", "subset", "pretrain", "purge", "verify at the end"}
    assert disk <= {one.action for one in attempts if one.place == "disk"}
    if "s3" in available():
        assert {"ingest", "compact"} <= {one.action for one in attempts if one.place == "S3"}
    assert {one.fault for one in attempts} - {"none"}
    assert "| disk | ingest |" in table(attempts)


def test_the_same_seed_makes_the_same_files() -> None:
    assert files_of("beta", range(3), seed=4) == files_of("beta", range(3), seed=4)
    assert files_of("alpha", range(12), seed=4) != files_of("alpha", range(12), seed=5)
    assert b"no image" in files_of("alpha", range(12), seed=4)["patient-002/0008.jpg"]


@pytest.mark.slow
def test_a_lost_image_and_another_byte_are_differences(tmp_path: Path) -> None:
    files = {f"{number}.png": encoded(photo(number)) for number in range(4)}
    ingest(write_folder(tmp_path / "raw", files), tmp_path / "whole")
    fewer = write_folder(tmp_path / "fewer", dict(list(files.items())[:3]))
    ingest(fewer, tmp_path / "short")
    whole, short = str(tmp_path / "whole"), str(tmp_path / "short")
    assert differences(whole, whole, same_history=True) == []
    assert any("images: 1 of 4 missing" in line for line in differences(short, whole, same_history=False))
    assert any("index: " in line for line in differences(short, whole, same_history=True))
    (name,) = Dataset.open(short).query("SELECT DISTINCT shard FROM samples").column(0).to_pylist()
    path = tmp_path / "short" / name
    ingest(fewer, tmp_path / "again")
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    found = differences(short, str(tmp_path / "again"), same_history=True)
    assert [line.partition(":")[0] for line in found] == ["shards", "shards"]


@pytest.mark.slow
def test_what_a_job_left_that_died_in_its_commit_counts_for_nothing(tmp_path: Path) -> None:
    files = {f"{number}.png": encoded(photo(number)) for number in range(2)}
    raw, found, whole = write_folder(tmp_path / "raw", files), str(tmp_path / "found"), str(tmp_path / "whole")
    for place in (found, whole):
        ingest(raw, Path(place), public_spec("alpha"))
    dataset = Dataset.open(found)
    prints, read = (
        dataset.table(name).to_pyarrow_table().cast(schema())  # type: ignore[union-attr]
        for name, schema in (("fingerprints", fingerprint_schema), ("raw_files", raw_files_schema))
    )
    dead = "alpha-0123456789abcdef"
    place, of_job = read.schema.get_field_index("job_id"), read.schema.field("job_id")
    dataset.append("fingerprints", dead, prints.slice(0, 1))
    dataset.append("raw_files", dead, read.set_column(place, of_job, pa.array([dead] * 2, of_job.type)))
    assert differences(found, whole, same_history=True) == []
    dataset.append("fingerprints", "another", prints.slice(0, 1))
    assert audit(dataset).num_samples == 2, "a fingerprint that is there twice is one image"
    dataset.append("raw_files", "more", read.slice(0, 1))
    assert differences(found, whole, same_history=True) == ["raw_files: 3 instead of 2"]


@pytest.mark.slow
def test_a_store_and_a_disk_have_faults_of_their_own(tmp_path: Path) -> None:
    disk = Place(name="disk", root=str(tmp_path), work=tmp_path, disk=tmp_path)
    assert {"full disk", "bit rot", "kill -9"} <= set(faults_for(disk, reads_only=True))
    assert "bit rot" not in faults_for(disk, reads_only=False)
    assert "outage" not in faults_for(disk, reads_only=True)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A session whose dataset holds a first ingest."""
    with disk_place(tmp_path) as place:
        place.work.mkdir(parents=True)
        session = Session(place=place, rng=random.Random(1), seed=1, show=lambda _: None)
        session.grow("alpha")
        for dataset in (place.dataset, place.reference):
            undisturbed(changing.ingest_command(session, "alpha", dataset, workers=0))
        assert session.differences() == []
        yield session


def do_nothing(monkeypatch: pytest.MonkeyPatch, exit_code: int = 0) -> None:
    """Let commands leave the dataset as it is, and end with this exit code."""

    def idle(place: Place, action: str, _arguments: Sequence[str], **more: object) -> Attempt:
        return Attempt(place=place.name, action=action, fault=NO_FAULT[0], exit_code=exit_code)

    monkeypatch.setattr(sessions, "attempt", idle)


@pytest.mark.slow
@pytest.mark.parametrize(("exit_code", "finding"), [(0, "missing"), (1, "not done although nothing disturbed it")])
def test_an_ingest_that_does_nothing_is_found(
    exit_code: int, finding: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.grow("alpha")
    do_nothing(monkeypatch, exit_code)
    changing.ingest(session, "alpha")
    assert any(finding in line for line in session.attempts[-1].findings)


@pytest.mark.slow
def test_a_withdrawal_and_a_purge_that_do_nothing_are_found(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    do_nothing(monkeypatch)
    changing.withdraw(session)
    assert any("should not be there" in line for line in session.attempts[-1].findings)
    changing.purge(session)
    assert any(line.startswith("after the purge: key in ") for line in session.attempts[-1].findings)


@pytest.mark.slow
def test_a_group_that_is_withdrawn_meanwhile_goes_from_the_reference_too(session: Session) -> None:
    scene = Scene(place=session.place, rng=session.rng, seconds=0.0)
    session.withdraw_meanwhile(scene)
    assert scene.failures == []
    assert session.differences()
    session.catch_up()
    assert session.differences() == []
    assert len(session.withdrawn) == 1
