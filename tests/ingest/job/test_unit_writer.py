"""What a unit notes of the raw files that it read."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.job.run import run_job
from ingest.job.sift import Mode
from ingest.job.unit_writer import UnitWriter
from ingest.picture.encoding import Encoding
from ingest.raw.items import RawItem
from ingest.settings import IngestSettings
from ingest.staging.context import MapContext
from shards.dataset.dataset import Dataset
from tests.ingest.material import encoded, ingest, photo, public_spec, write_folder


@pytest.mark.slow
def test_a_file_that_is_read_for_a_revived_duplicate_alone_is_noted_as_such(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", {f"{n}.png": encoded(photo(n)) for n in range(3)})
    write_folder(raw, {"copy.bmp": encoded(photo(1), "BMP")})
    ingest(raw, tmp_path / "d")
    (raw / "1.png").unlink()
    run_job(public_spec(), str(raw), str(tmp_path / "d"), workers=0, mode=Mode(prune=True))
    rows = Dataset.open(str(tmp_path / "d")).query(
        "SELECT raw_path, state, stamp FROM raw_files ORDER BY raw_path, state"
    )
    assert [(row["raw_path"], row["state"]) for row in rows.to_pylist()] == [
        ("0.png", "read"),
        ("2.png", "read"),
        ("copy.bmp", "read"),
        ("copy.bmp", "revived"),
    ]
    assert all(rows["stamp"].to_pylist())


def test_a_file_that_is_withheld_leaves_no_reject(tmp_path: Path) -> None:
    context = MapContext(
        spec=public_spec(),
        settings=IngestSettings(),
        encoding=Encoding(),
        raw_url=str(tmp_path),
        dataset_url=str(tmp_path / "d"),
        job_id="job",
    )
    with UnitWriter(context, 0, tmp_path, durable=False) as writer:
        for path in ("a.png", "b.png"):
            writer.begin(RawItem(path=path))
            writer.reject("too_small")
            writer.withhold() if path == "b.png" else writer.end()
    report = writer.report()
    assert (report.files, report.pending, report.items, report.rejected) == (1, 1, 1, {"too_small": 1})
