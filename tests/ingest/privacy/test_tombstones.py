"""Tombstones know withdrawn images again, and say nothing to who has no secret."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import SecretStr

from ingest.picture.quality import REASONS
from ingest.privacy.tombstones import COLUMNS, WITHDRAWN, Marker, Tombstones, has_tombstones, tombstones_of
from shards.dataset.dataset import Dataset
from shards.schema import withdrawn_schema

SECRET = SecretStr("s")
MARKER = Marker(SECRET)


def row(**other: str) -> dict[str, str]:
    return {"source": "a", "pixel_sha256": "0" * 64, "group_id": "g", "raw_path": "x/1.png", "raw_frame": "", **other}


@pytest.mark.parametrize(
    ("kind", "mark"),
    [
        ("pixels", MARKER.pixels("0" * 64)),
        ("group", MARKER.group("a", "g")),
        ("origin", MARKER.origin("a", "x/1.png", "")),
    ],
)
def test_each_kind_of_mark_knows_its_own(kind: str, mark: str) -> None:
    marks = {name: frozenset({mark} if name == kind else ()) for name in ("pixels", "origin", "group", "asked")}
    other = row(pixel_sha256="1" * 64, group_id="h", raw_path="x/2.png")
    rows = [row(), other, row(source="b")]
    found = Tombstones(marker=MARKER, marks=marks).of_table(pa.Table.from_pylist(rows).select(list(COLUMNS)))
    assert found == [True, False, kind == "pixels"], "pixels are known whatever source they come from"


def test_marks_depend_on_secret_and_kind_and_hold_nothing_of_the_text() -> None:
    digest = "0123456789abcdef" * 4
    marks = {MARKER.pixels(digest), MARKER.group("", digest), Marker(SecretStr("t")).pixels(digest)}
    assert len(marks) == 3
    assert all(len(mark) == 32 and digest[:16] not in mark for mark in marks)
    assert MARKER.origin("a", "b/c", "") != MARKER.origin("a", "b", "c")


def test_marks_are_read_from_the_dataset(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "d"))
    assert not has_tombstones(dataset)
    assert tombstones_of(dataset, SECRET) is None
    same = {"withdrawal": "withdraw-1", "source": "a", "withdrawn_at": "2026-01-01T00:00:00+00:00", "reason": "rights"}
    marks = [{"kind": "pixels", "mark": MARKER.pixels("0" * 64), **same}, {"kind": "later kind", "mark": "m", **same}]
    dataset.append("withdrawn", "withdraw-1", pa.Table.from_pylist(marks, schema=withdrawn_schema()))
    found = tombstones_of(dataset, SECRET)
    assert found is not None
    assert found.of_table(pa.Table.from_pylist([row(), row(pixel_sha256="1")])) == [True, False]


def test_the_reason_of_its_rejects_has_a_meaning() -> None:
    assert "stays out" in REASONS[WITHDRAWN]
