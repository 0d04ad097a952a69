"""What a listing holds that is new, known, changed or gone, and which rejects come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.job import sift as sifting
from ingest.job.list import list_raw
from ingest.job.sift import KnownFiles, Mode, Sifted, frames_by_path, rejects_to_revive, sift
from ingest.privacy.pseudonyms import Pseudonyms
from ingest.raw.items import RawItem
from ingest.settings import IngestSettings
from shards.dataset.dataset import Dataset
from shards.dataset.removal import remove_samples
from shards.errors import SourceError
from tests.ingest.material import encoded, ingest, photo, public_spec, write_folder

pytestmark = pytest.mark.slow

SPEC = public_spec()
NAMES = Pseudonyms(SPEC, IngestSettings())


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    files = {f"{n}.png": encoded(photo(n)) for n in range(6)}
    return write_folder(tmp_path / "raw", files | {"z/copy.bmp": encoded(photo(2), "BMP")})


def sifted(raw: Path, dataset: Path, mode: Mode = Mode(), *, rules: str = "") -> Sifted:  # noqa: B008 - frozen
    found = Dataset.open(str(dataset))
    listing = list_raw(str(raw), SPEC, IngestSettings())
    rules = rules or str(found.jobs()[-1]["rules"])
    return sift(found, listing.items, NAMES, source=SPEC.id, rules=rules, mode=mode)


def test_known_files_are_neither_read_nor_lost(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "d")
    assert sifted(raw, tmp_path / "d").is_idle
    write_folder(raw, {"new.png": encoded(photo(9)), "3.png": encoded(photo(8, height=100))})
    (raw / "5.png").unlink()
    found = sifted(raw, tmp_path / "d")
    assert [item.path for item in found.items] == ["3.png", "new.png"]
    assert (found.known, found.changed, found.vanished, list(found.again)) == (5, 1, 1, ["3.png"])
    assert not found.gone


def test_a_time_of_change_alone_makes_a_file_one_to_look_at(raw: Path, tmp_path: Path) -> None:
    import os

    ingest(raw, tmp_path / "d")
    os.utime(raw / "1.png", (1e9, 1e9))
    assert [item.path for item in sifted(raw, tmp_path / "d").items] == ["1.png"]


def test_other_rules_know_nothing(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "d")
    assert len(sifted(raw, tmp_path / "d", rules="f" * 16).items) == 7


def test_rehash_reads_all_and_prune_names_what_is_gone(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "d")
    (raw / "5.png").unlink()
    assert len(sifted(raw, tmp_path / "d", Mode(rehash=True)).again) == 6
    found = sifted(raw, tmp_path / "d", Mode(prune=True))
    assert (list(found.gone), found.vanished, found.is_idle) == (["5.png"], 1, False)


def test_nothing_is_pruned_where_a_part_cannot_be_listed(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "d")
    write_folder(raw, {"broken.zip": b"PK\x03\x04 cut off"})
    (raw / "5.png").unlink()
    assert sifted(raw, tmp_path / "d").vanished == 0
    with pytest.raises(SourceError, match="cannot be listed now"):
        sifted(raw, tmp_path / "d", Mode(prune=True))


def test_the_duplicate_of_what_goes_comes_back(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "d")
    (raw / "2.png").unlink()
    assert not sifted(raw, tmp_path / "d").items
    found = sifted(raw, tmp_path / "d", Mode(prune=True))
    assert [item.path for item in found.items] == ["z/copy.bmp"]
    assert (found.known, found.revive.wanted) == (5, {"z/copy.bmp": frozenset({""})})
    assert found.revive.revives("z/copy.bmp")
    assert not found.revive.revives("1.png")
    assert found.revive.takes("1.png", "any")


def test_the_duplicate_of_another_source_that_went_comes_back(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "d", public_spec("first"))
    ingest(raw, tmp_path / "d")
    dataset = Dataset.open(str(tmp_path / "d"))
    assert not rejects_to_revive(dataset, SPEC.id).wanted
    (key,) = dataset.query("SELECT key FROM samples WHERE raw_path = '4.png'")["key"].to_pylist()
    remove_samples(dataset, [key], transaction="t", summary={"source": "first"})
    assert rejects_to_revive(dataset, SPEC.id).wanted == {"4.png": frozenset({""})}
    assert ingest(raw, tmp_path / "d").revived == 1
    assert not rejects_to_revive(dataset, SPEC.id).wanted
    assert ingest(raw, tmp_path / "d").repeated


def test_what_an_earlier_release_rejected_counts_once_anything_left(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(raw, tmp_path / "d", public_spec("first"))
    ingest(raw, tmp_path / "d")
    dataset = Dataset.open(str(tmp_path / "d"))
    monkeypatch.setattr(sifting, "_HASH", "^no name$")  # so that no detail names anything
    assert not rejects_to_revive(dataset, SPEC.id).wanted
    remove_samples(dataset, ["first-0"], transaction="nothing", summary={"source": "first"})
    assert not rejects_to_revive(dataset, SPEC.id).wanted
    (key,) = dataset.query("SELECT key FROM samples WHERE raw_path = '4.png'")["key"].to_pylist()
    remove_samples(dataset, [key], transaction="t", summary={"source": "first"})
    assert len(rejects_to_revive(dataset, SPEC.id).wanted) == 7


def test_the_last_record_of_a_file_counts(raw: Path, tmp_path: Path) -> None:
    first = (raw / "1.png").read_bytes()
    ingest(raw, tmp_path / "d")
    write_folder(raw, {"1.png": encoded(photo(30, height=90))})
    ingest(raw, tmp_path / "d")
    write_folder(raw, {"1.png": first})
    assert [item.path for item in sifted(raw, tmp_path / "d").items] == ["1.png"]


def test_a_stamp_that_one_side_does_not_know_decides_nothing(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "d")
    known = KnownFiles.of(
        Dataset.open(str(tmp_path / "d")), SPEC.id, Dataset.open(str(tmp_path / "d")).jobs()[0]["rules"]
    )
    (item,) = [item for item in list_raw(str(raw), SPEC, IngestSettings()).items if item.path == "1.png"]
    place = int(known.find(sifting._hashes(["1.png"]))[0])
    assert known.is_same(place, item.size, NAMES.stamp(item))
    assert known.is_same(place, item.size, "")
    assert not known.is_same(place, item.size, "another")
    assert not known.is_same(place, item.size + 1, "")
    assert known.num_unseen == len(known) - 1 == 6


def test_stamps_leave_as_keyed_hashes() -> None:
    stamped = NAMES.stamp(RawItem(path="a.png", stamp="17a2b3"))
    assert len(stamped) == 12
    assert "17a2b3" not in stamped
    assert stamped != NAMES.stamp(RawItem(path="b.png", stamp="17a2b3"))
    assert NAMES.stamp(RawItem(path="a.png")) == ""
    assert NAMES.stamp(RawItem(path="a.zip", member="a.png", check=0xAB, stamp="1")) == "000000ab"


def test_frames_are_gathered_by_path() -> None:
    import pyarrow as pa

    rows = pa.table({"raw_path": ["a", "b", "a"], "raw_frame": ["1", "", "2"]})
    assert frames_by_path(rows) == {"a": frozenset({"1", "2"}), "b": frozenset({""})}
