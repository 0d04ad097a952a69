"""DuckDB's own reading of the index gives what Arrow's scan gives, and a plain computation; and reads nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.dataset.dataset import Dataset
from shards.dataset.direct import direct_rows, read_by_arrow
from shards.dataset.query import scan
from shards.errors import ConfigError, SampleIndexError
from shards.subset import Selection, create
from shards.subset.chosen import choose, choose_from, run, samples
from tests.shards.builders import commit_rows, small_dataset

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
SOURCES = st.sampled_from(["alpha", "007", "2024-01-01", "true"])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "source": SOURCES,
            "modality": st.sampled_from(["CT", "X-Ray"]),
            "shard": st.integers(0, 3),
            "key": TEXTS,
            "licence": TEXTS,
            "width": st.integers(1, 9),
            "window_center": st.floats(allow_nan=True, width=32),
            "burned_in": st.sampled_from([None, "yes", "no"]),
        }
    ),
    min_size=1,
    max_size=30,
)
PREDICATES = ("TRUE", "source = '007'", "modality IN ('X-Ray')", "md5(key) < '8' AND licence < 'm'")


pytestmark = pytest.mark.slow


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset(tmp_path / "data")


def is_direct(dataset: Dataset) -> bool:
    """Whether DuckDB reads the files of the index itself."""
    with samples(dataset, dataset.version(), quick=True) as database:
        return read_by_arrow(database)


@settings(max_examples=6, deadline=None)
@given(jobs=st.lists(ROWS, min_size=1, max_size=3))
def test_both_readings_give_the_rows_and_digests_of_a_plain_computation(
    jobs: list[list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    dataset = Dataset.create(str(tmp_path_factory.mktemp("direct") / "data"))
    for number, rows in enumerate(jobs):
        commit_rows(dataset, f"job{number}", rows)
    assert is_direct(dataset)
    rows = dataset.query("SELECT key, pixel_sha256, source FROM samples").to_pylist()
    lines = [f"{row['key']} {row['pixel_sha256']}" for row in rows]
    total = sum(int.from_bytes(hashlib.md5(line.encode()).digest(), "little") for line in lines)
    assert choose(dataset, dataset.version(), "TRUE").digest == f"md5sum128:{total % 2**128:032x}"
    for where in PREDICATES:
        found = []
        for quick in (True, False):
            with samples(dataset, dataset.version(), quick=quick) as database:
                chosen = choose_from(database, where)
                found.append((chosen.digest, chosen.order_digest(), chosen.parts, chosen.num_samples))
        assert found[0] == found[1]


def test_a_file_of_an_earlier_release_has_null_in_the_columns_that_came_later(dataset: Dataset) -> None:
    for path in Path(dataset.url, "index").rglob("*.parquet"):
        table = pq.ParquetFile(path).read()
        pq.write_table(table.drop_columns(["burned_in", "burned_in_by"]), path)
    assert is_direct(dataset)
    with samples(dataset, dataset.version(), quick=True) as database:
        assert run(database, "SELECT count(*) FROM samples WHERE burned_in IS NULL") == [(120,)]


@pytest.mark.parametrize("name", ["a[b]*c?", "ä ö#{x}", "it's", "a=b/modality=CT"])
def test_a_dataset_may_lie_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    dataset = small_dataset(tmp_path / name)
    found = []
    for quick in (True, False):
        with samples(dataset, dataset.version(), quick=quick) as database:
            found.append(choose_from(database, "modality = 'CT'"))
    assert found[0].digest == found[1].digest
    assert found[0].num_samples == 60


def test_files_that_are_laid_out_otherwise_are_read_by_arrow(dataset: Dataset) -> None:
    table = dataset.samples_table()
    rows = scan(table)
    assert direct_rows(table, rows) is not None
    log = Path(dataset.url, "index", "_delta_log", "00000000000000000001.json")
    log.write_text(log.read_text().replace('"modality":"US"', '"modality":"MR"'))
    opened = Dataset.open(dataset.url)
    assert not is_direct(opened)
    assert create(opened, Selection(modality=("MR",))).num_samples == 40


def test_a_predicate_of_the_users_own_is_asked_of_arrow(dataset: Dataset) -> None:
    with samples(dataset, dataset.version(), predicate="isnan(window_center)", quick=True) as database:
        assert not read_by_arrow(database)


def test_no_other_file_can_be_read(dataset: Dataset) -> None:
    other = next(Path(dataset.url, "index").rglob("*.parquet"))
    copy = other.with_name("copy.parquet")
    copy.write_bytes(other.read_bytes())
    with samples(dataset, dataset.version(), quick=True) as database:
        assert database.sql(f"SELECT count(*) > 0 FROM read_parquet('{other}')").fetchall() == [(True,)]
        for reading in (f"read_parquet('{copy}')", "read_text('/etc/hostname')", f"glob('{other.parent}/*')"):
            with pytest.raises(duckdb.PermissionException):
                database.sql(f"SELECT * FROM {reading}").fetchall()
    with pytest.raises(ConfigError, match="reads another table than samples"):
        create(dataset, Selection(where=f"key IN (SELECT key FROM read_parquet('{other}'))"))


@pytest.mark.parametrize("damage", ["cut", "zeros", "gone", "no footer"])
def test_a_damaged_file_is_told_as_arrow_tells_it(dataset: Dataset, damage: str) -> None:
    path = next(Path(dataset.url, "index").rglob("*.parquet"))
    data = path.read_bytes()
    half = len(data) // 2
    ruined = {
        "cut": data[:half],
        "zeros": data[:100] + bytes(half) + data[100 + half :],
        "no footer": data[:-8] + b"x" * 8,
    }
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(ruined[damage])
    with pytest.raises(SampleIndexError) as caught:
        choose(dataset, dataset.version(), "TRUE")
    assert "predicate" not in caught.value.message


def test_a_file_that_goes_after_it_was_opened_is_told_as_arrow_tells_it(dataset: Dataset) -> None:
    def chosen() -> None:
        with samples(dataset, dataset.version(), quick=True) as database:
            next(Path(dataset.url, "index").rglob("*.parquet")).unlink()
            choose_from(database, "TRUE")

    with pytest.raises(SampleIndexError):
        chosen()


def test_a_predicate_that_fails_fails_in_both_readings(dataset: Dataset) -> None:
    with samples(dataset, dataset.version(), quick=True) as database:
        with pytest.raises(ConfigError, match="the predicate does not work"):
            run(database, "SELECT count(*) FROM samples WHERE key::INTEGER > 3")
        assert not read_by_arrow(database)
        assert run(database, "SELECT count(*) FROM samples WHERE width > ?", params=[0]) == [(120,)]
