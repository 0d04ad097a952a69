"""The bitmap of a selection and its digests, against a plain computation."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.dataset.dataset import Dataset
from shards.errors import ConfigError
from shards.subset import chosen as module
from shards.subset.chosen import Chosen, choose, choose_from
from tests.shards.builders import add_source, jpeg, small_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("chosen") / "data")


def rows_of(dataset: Dataset) -> list[dict[str, object]]:
    table = dataset.table("index")
    assert table is not None
    rows: list[dict[str, object]] = table.to_pyarrow_table().to_pylist()
    return rows


def test_the_digest_is_the_sum_of_the_lines(dataset: Dataset) -> None:
    total = sum(
        int.from_bytes(hashlib.md5(f"{row['key']} {row['pixel_sha256']}".encode()).digest(), "little")
        for row in rows_of(dataset)
    )
    found = choose(dataset, dataset.version(), "TRUE")
    assert found.digest == f"md5sum128:{total % 2**128:032x}"
    parts = sum(int(part.digest.partition(":")[2], 16) for part in found.parts)
    assert parts % 2**128 == total % 2**128
    assert [(part.source, part.modality, part.num_samples) for part in found.parts] == [
        ("alpha", "CT", 60),
        ("beta", "US", 40),
        ("gamma", "Fundus", 20),
    ]


def test_the_order_is_the_shards_and_a_bit_per_row(dataset: Dataset) -> None:
    found = choose(dataset, dataset.version(), "shard_row % 3 = 1")
    digest = hashlib.sha256()
    shards = sorted({str(row["shard"]) for row in rows_of(dataset)})
    for shard in shards:
        rows = [int(str(row["shard_row"])) for row in rows_of(dataset) if row["shard"] == shard]
        wanted = [row for row in rows if row % 3 == 1]
        bits = sum(1 << row for row in wanted)
        digest.update(f"{shard} {len(wanted)}\n".encode() + bits.to_bytes(8 * (max(wanted) // 64 + 1), "little"))
    assert found.order_digest() == f"sha256:{digest.hexdigest()}"


def test_a_dense_shard_keeps_no_words_and_has_the_digest_of_its_bits(dataset: Dataset) -> None:
    whole = choose(dataset, dataset.version(), "TRUE")
    assert len(whole.words) == 0
    numbers = range(len(whole.counts))
    words = [module._dense_words(int(count)) for count in whole.counts]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in words])])
    spelled = Chosen(
        shards=whole.shards, counts=whole.counts, words=np.concatenate(words), starts=starts, parts=whole.parts
    )
    assert spelled.order_digest() == whole.order_digest()
    for number in numbers:
        rows = np.arange(200)
        assert np.array_equal(spelled.contains(number, rows), whole.contains(number, rows))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.integers(0, 400), min_size=1, max_size=150), min_size=1, max_size=4))
def test_exactly_the_selected_rows_are_in(shards: list[set[int]]) -> None:
    import duckdb

    with duckdb.connect() as database:
        database.execute("CREATE TABLE samples (shard VARCHAR, source VARCHAR, modality VARCHAR, shard_row INTEGER)")
        for number, rows in enumerate(shards):
            for row in sorted(rows, reverse=True):
                database.execute("INSERT INTO samples VALUES (?, 's', 'CT', ?)", [f"{number:03}", row])
        found = choose_from(database, "TRUE", with_samples=False)
    assert found.counts.tolist() == [len(rows) for rows in shards]
    for number, rows in enumerate(shards):
        every = np.arange(500)
        assert set(every[found.contains(number, every)].tolist()) == rows


def test_what_is_not_selected_does_not_change_the_order(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    before = choose(dataset, dataset.version(), "modality = 'CT'").order_digest()
    add_source(dataset, "more", "CT", [jpeg(n) for n in range(500, 510)])
    assert choose(dataset, dataset.version(), "source = 'alpha'").order_digest() == before


def test_a_selection_has_a_limit_on_time(dataset: Dataset) -> None:
    tables = ", ".join(f"samples {name}" for name in "abcde")
    heavy = f"(SELECT count(*) FROM {tables} WHERE a.key || b.key > c.key || d.key || e.key) > 0"
    with pytest.raises(ConfigError, match=r"takes longer than 0\.2 seconds"):
        choose(dataset, dataset.version(), heavy, seconds=0.2)


def test_a_selection_has_a_limit_on_memory(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY", "2MB")
    tables = ", ".join(f"samples {name}" for name in "abc")
    with pytest.raises(ConfigError, match="needs more memory than 2MB"):
        choose(dataset, dataset.version(), f"(SELECT median(a.key || b.key || c.key) FROM {tables}) > ''")
