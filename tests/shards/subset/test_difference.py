"""How two subsets differ, and why."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from shards.dataset.dataset import Dataset
from shards.errors import SampleIndexError
from shards.schema import index_schema, rejects_schema
from shards.subset import Selection, create
from shards.subset.difference import diff
from tests.shards.builders import add_source, jpeg, small_dataset


def counted(a: str, b: str) -> dict[tuple[str, str, str], int]:
    return {(row.where, row.source, row.reason): row.num_samples for row in diff(a, b).rows}


@pytest.mark.slow
def test_locks_of_one_dataset_differ_by_what_they_select(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    for name, selection in (("ct", Selection(modality=("CT",))), ("half", Selection(where="shard_row < 8"))):
        create(dataset, selection).write(tmp_path / f"{name}.lock.yaml")
    found = diff(tmp_path / "ct.lock.yaml", tmp_path / "half.lock.yaml", with_keys=True)
    assert (found.num_a, found.num_b, found.num_same) == (60, 68, 32)
    assert {(row.where, row.source, row.reason, row.num_samples) for row in found.rows} == {
        ("only in A", "alpha", "not selected", 28),
        ("only in B", "beta", "not selected", 24),
        ("only in B", "gamma", "not selected", 12),
    }
    assert len(found.keys) == 64
    assert [row[0] for row in found.keys] == sorted(row[0] for row in found.keys)


@pytest.mark.slow
def test_versions_of_a_dataset(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    add_source(dataset, "late", "CT", [jpeg(900 + n) for n in range(3)])
    assert counted(f"{dataset.url}@2", dataset.url) == {("only in B", "late", "not there"): 3}
    assert diff(dataset.url, dataset.url).rows == []
    with pytest.raises(SampleIndexError):
        diff(f"{dataset.url}@9", dataset.url)


def test_the_reason_of_a_reject_is_the_reason(tmp_path: Path) -> None:
    one, two = Dataset.create(str(tmp_path / "one")), Dataset.create(str(tmp_path / "two"))
    add_source(one, "alpha", "CT", [jpeg(n) for n in range(4)])
    table = one.table("index")
    assert table is not None
    rows = sorted(table.to_pyarrow_table().to_pylist(), key=lambda row: row["raw_path"])
    changed = [{**rows[0], "pixel_sha256": "0" * 64}, rows[1]]
    reject = {name: rows[2][name] for name in ("source", "modality", "raw_path", "raw_frame", "job_id")}
    rejects = [{**reject, "reason": "blank", "detail": ""}]
    two.commit(
        job_id="x",
        rows=pa.Table.from_pylist(changed, schema=index_schema()),
        rejects=pa.Table.from_pylist(rejects, schema=rejects_schema()),
    )
    assert counted(one.url, two.url) == {
        ("changed", "alpha", "other pixels"): 1,
        ("only in A", "alpha", "blank"): 1,
        ("only in A", "alpha", "not there"): 1,
    }
