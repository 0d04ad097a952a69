"""The ingest benchmarks compare like with like."""

from __future__ import annotations

import io
import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infra.bench.img2dataset import RESAMPLERS, num_written, ours, served, theirs
from infra.bench.ingest_loops import LOOPS, encode, encode_natively
from infra.bench.near_duplicates import synthetic
from ingest.duplicates.pairs import distance, near_pairs
from ingest.job.run import run_job
from ingest.source.spec import from_flags
from shards.dataset.shard_file import read_samples
from shards.decode import describe_decoder

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("name", "num_files"), [("photographs", 3), ("photographs-native", 3), ("dicom", 2)])
def test_ingest_stores_what_the_bare_loop_makes(name: str, num_files: int, tmp_path: Path) -> None:
    loop = LOOPS[name]
    if loop.resampler == "native" and describe_decoder().name != "native":
        pytest.skip("the extension is not built")
    raw = tmp_path / "raw"
    raw.mkdir()
    loop.make(raw, num_files)
    files = sorted(raw.iterdir())
    assert len(files) == num_files
    assert all(loop(file) >= 0 for file in files)
    spec = from_flags(name="bench", modality=loop.modality, deidentified=True)
    report = run_job(spec, str(raw), str(tmp_path / "d"), encoding={"resampler": loop.resampler}, workers=0)
    assert report.kept == num_files * loop.per_file
    (shard,) = (tmp_path / "d" / "shards").rglob("*.tar")
    with shard.open("rb") as stream:
        stored = {sample.meta["raw_path"]: sample.image for sample in read_samples(stream)}
    assert {min(Image.open(io.BytesIO(data)).size) for data in stored.values()} == {512}
    if name == "photographs":
        for file in files:
            assert encode(Image.open(file)) == stored[file.name]
    if name == "photographs-native":
        for file in files:
            assert encode_natively(file.read_bytes()) == stored[file.name]


def test_synthetic_hashes_hold_what_they_promise() -> None:
    material = synthetic(40_000)
    first, second = material.planted.T
    np.testing.assert_array_equal(distance(material.hashes[first], material.hashes[second]), material.bits)
    found = near_pairs(material.hashes, np.arange(40_000), radius=16, bucket_cap=1000)
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    exact = material.bits <= 7
    assert pairs.issuperset(zip(first[exact].tolist(), second[exact].tolist(), strict=True))
    assert found.skipped_buckets > 0
    assert found.skipped_rows > 2000


def test_both_resamplers_meet_img2dataset(tmp_path: Path) -> None:
    commands = [ours(tmp_path / "raw", tmp_path / "out", resampler) for resampler in RESAMPLERS]
    assert [command[-2:] for command in commands] == [["--encoding", f"resampler={name}"] for name in RESAMPLERS]
    assert commands[0][:-1] == commands[1][:-1]


@pytest.mark.process
def test_img2dataset_is_given_urls_and_asked_what_it_wrote(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    with served(tmp_path) as base, urllib.request.urlopen(f"{base}/a.jpg") as answer:
        assert base.startswith("http://127.0.0.1:")
        assert answer.read() == b"picture"
    out = tmp_path / "out"
    command = theirs(tmp_path / "bin" / "python", [f"{base}/a.jpg"], out)
    assert command[0] == str(tmp_path / "bin" / "img2dataset")
    assert (tmp_path / "out.txt").read_text() == f"{base}/a.jpg\n"
    out.mkdir()
    (out / "00000_stats.json").write_text(json.dumps({"successes": 3}))
    (out / "00001_stats.json").write_text(json.dumps({"successes": 4}))
    assert num_written(out) == 7
