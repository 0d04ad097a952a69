"""What `sources check` promises of columns is what a job brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.columns.bringing import type_rows
from ingest.columns.foreseeing import foresee
from ingest.job.list import list_raw
from ingest.job.survey import survey
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec
from tests.ingest.material import encoded, ingest, photo, public_spec, write_folder

TEXT = b"id,age,sex\na,63,w\nb,50,m\nb,51,m\nc,20,w\nc,20,w\nd,,m\nzz,1,w\n,2,w\n"
TABLE: dict[str, Any] = {"path": "t.csv", "key": "id", "match": "stem", "columns": {"age": "age", "sex": "sex"}}


def spec_of(**table: Any) -> SourceSpec:
    return public_spec(layout={"include": ["**/*.png"], "tables": [{**TABLE, **table}]})


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """`a` twice, `b` with rows that contradict each other, `c` with equal ones, `d` without age, `e` without a row."""
    names = ("1/a.png", "2/a.png", "b.png", "c.png", "d.png", "e.png")
    files = {name: encoded(photo(sum(name.encode()))) for name in names}
    return write_folder(tmp_path / "raw", {"t.csv": TEXT, **files})


@pytest.mark.slow
def test_rows_are_settled_as_in_a_job(raw: Path, tmp_path: Path) -> None:
    found = survey(str(raw), spec_of(), IngestSettings())
    assert [(column.name, column.filled, column.missing) for column in found.columns] == [("age", 1, 5), ("sex", 2, 4)]
    [brought] = ingest(raw, tmp_path / "d", spec_of()).columns
    assert found.unfit == {"t.csv": dict(brought.left_out)}
    assert found.unfit["t.csv"] == {
        "contradicts another row": 2,
        "matches nothing": 2,
        "matches several groups or files": 1,
    }
    assert (brought.samples, brought.without) == (2, 4)


def test_a_row_may_be_about_all_files_of_a_pattern(raw: Path) -> None:
    spec = spec_of(match="pattern", pattern="([a-z])[.]png$")
    listing = list_raw(str(raw), spec, IngestSettings())
    [own] = listing.own
    foreseen = foresee(type_rows(own, {}), listing.items)
    assert (foreseen.files, foreseen.filled["age"], foreseen.filled["sex"]) == (6, 3, 4)


def test_rows_by_the_numbers_of_images(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"t.csv": b"age\n1\n\n3\n", "a.png": encoded(photo(0)), "b.png": b""})
    table = {"path": "t.csv", "per_frame": True, "of": ["a.png"], "columns": {"age": "age"}}
    listing = list_raw(str(folder), public_spec(layout={"include": ["*.png"], "tables": [table]}), IngestSettings())
    foreseen = foresee(type_rows(listing.own[0], {}), listing.items)
    assert (foreseen.files, foreseen.filled, foreseen.left_out) == (2, {"age": 2}, {})
