"""The report of an ingest job, in a real browser."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infra.cli import main
from tests.browser import open_page
from tests.ingest.duplicates.test_near import detailed
from tests.ingest.material import encoded, photo, shard_bytes, tables, tar_of, write_folder, zip_of

WORDS = ["--modality", "Fundus", "--workers", "0", "--json"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Kept, blank, tiny, equal and nearly equal pictures; some in archives, some broken."""
    good = {f"{i}.png": encoded(detailed(i)) for i in range(6)}
    packed = {"copy.png": good["0.png"], "near.jpg": encoded(detailed(1), "JPEG", quality=60)}
    bad = {"blank.png": encoded(np.full((64, 64), 9, np.uint8)), "tiny.png": encoded(photo(3)[:12, :12])}
    files = good | {"z.zip": zip_of(packed), "y.tar.gz": tar_of(bad, "w:gz"), "bad.png": b"x", "labels.csv": b"a,b"}
    return write_folder(tmp_path / "raw", files)


def run(raw: Path, tmp_path: Path, *more: str) -> int:
    return main(["ingest", "mine", str(raw), str(tmp_path / "d"), *WORDS, *more])


@pytest.mark.browser
def test_the_page_shows_counts_times_and_pictures_of_kept_and_rejected(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "out" / "job.html"
    assert run(raw, tmp_path, "--deidentified", "--report", str(page)) == 0
    printed = json.loads(capsys.readouterr().out)
    facts = json.loads(page.with_suffix(".json").read_text())
    assert {name: facts[name] for name in printed} == printed
    assert facts["reasons"] == {"blank": 1, "duplicate": 1, "near_duplicate": 1, "too_small": 1, "unreadable": 1}
    assert list(facts["stage_seconds"]) == ["list", "series", "map", "resolve", "promote", "commit"]
    assert facts["images_per_second"] > 0
    assert facts["stored_bytes"] == sum(row["byte_length"] for row in tables(tmp_path / "d")["index"])
    seen = open_page(page)
    assert seen.errors == []
    assert seen.requests == []
    for word in ("6 of 6 images", "near_duplicate: 1 of 1", "blank: 1 of 1", "csv", "min_side_px", "images a second"):
        assert word in seen.text
    assert sorted(seen.picture_widths) == [96, 96, 96, 192, 576]


@pytest.mark.slow
def test_a_report_is_beside_the_dataset_and_a_second_run_changes_neither(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "job.html"
    assert run(raw, tmp_path, "--deidentified", "--report", str(page)) == 0
    first = (page.read_bytes(), page.with_suffix(".json").read_bytes(), shard_bytes(tmp_path / "d"))
    files = sorted(tmp_path.rglob("d/**/*"))
    assert run(raw, tmp_path, "--deidentified", "--report", str(page)) == 0
    assert (page.read_bytes(), page.with_suffix(".json").read_bytes(), shard_bytes(tmp_path / "d")) == first
    assert sorted(tmp_path.rglob("d/**/*")) == files
    page.unlink()
    assert run(raw, tmp_path, "--deidentified", "--report", str(page)) == 0
    assert "committed before" in page.read_text()


@pytest.mark.slow
def test_a_page_of_a_private_source_names_no_file(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOVFM_SECRET", "s" * 32)
    (raw / "Doe_John.png").write_bytes((raw / "0.png").read_bytes())
    page = tmp_path / "job.html"
    assert run(raw, tmp_path, "--report", str(page)) == 0
    text = page.read_text() + page.with_suffix(".json").read_text()
    assert "Doe" not in text
    assert "s" * 32 not in text
    assert "duplicate: 2 of 2" in text


@pytest.mark.slow
def test_glimpses_of_a_series_are_found_by_their_file(tmp_path: Path) -> None:
    from infra.reports.rejected_pictures import look_at_rejects, tile_of
    from ingest.job.list import list_raw
    from ingest.job.run import run_job
    from ingest.settings import IngestSettings
    from shards.dataset.dataset import Dataset
    from tests.ingest.job.test_place import SPEC, dicom

    flat = np.full((64, 64), 500, np.int16)
    slices = [(detailed(z)[:64, :64]).astype(np.int16) * 8 for z in range(4)] + [flat]
    raw = write_folder(tmp_path / "raw", {f"{z}.dcm": dicom(s, z=2.0 * z) for z, s in enumerate(slices)})
    report = run_job(SPEC, str(raw), str(tmp_path / "d"), workers=0)
    assert report.reasons == {"empty_slice": 1}
    listing = list_raw(str(raw), SPEC, IngestSettings())
    (glimpse,) = look_at_rejects(
        Dataset.open(str(tmp_path / "d")),
        report.job_id,
        spec=SPEC,
        listing=listing,
        raw_url=str(raw),
        settings=IngestSettings(),
        num=5,
    )
    assert (glimpse.raw_path, glimpse.raw_frame) == ("4.dcm", "z0004")
    assert tile_of(np.asarray(Image.new("RGB", (10, 40), "red"))).shape == (96, 96, 3)
