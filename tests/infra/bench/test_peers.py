"""The peer benchmark: its corpus and formats, a run of those that are installed here, its table."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from infra.bench.peers.__main__ import main
from infra.bench.peers.contestants import CONTESTANTS, WORKLOADS
from infra.bench.peers.corpus import Corpus, corpus
from infra.bench.peers.formats import FORMATS, written
from infra.bench.peers.report import as_json, as_table, best_peer
from infra.bench.peers.run import Row
from shards.stream.stream import Stream

pytestmark = pytest.mark.slow

BY_NAME = {contestant.name: contestant for contestant in CONTESTANTS}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    coarse = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "a.png"), cv2.resize(coarse, (400, 300), interpolation=cv2.INTER_CUBIC))
    return folder


def make(folder: Path, frames: Path, count: int = 40) -> Corpus:
    return corpus(folder, count, frames=frames, workers=1, say=lambda _: None)


def test_every_format_holds_the_same_images_in_the_same_order(tmp_path: Path, frames: Path) -> None:
    images = make(tmp_path / "corpus", frames)
    folders = {name: written(images, name) for name in FORMATS}
    wanted = [image for _, image in images]
    assert len(set(wanted)) == 40
    with tarfile.open(folders["tars"] / "00000.tar") as archive:
        found = [archive.extractfile(member) for member in archive if member.name.endswith(".jpg")]
        assert [stream.read() for stream in found if stream] == wanted
    raw = (folders["tars"] / "00000.tar").read_bytes()
    head, *lines = (folders["tars"] / "00000.idx").read_text().splitlines()
    assert head == "v1.2 40"
    starts = [tuple(int(value) for value in line.split()[1:3]) for line in lines]
    assert [raw[start : start + size] for start, size in starts] == wanted
    rows = pq.read_table(folders["parquet"] / "00000.parquet")["image"].to_pylist()
    assert [row["bytes"] for row in rows] == wanted
    files = sorted(folders["files"].rglob("*.jpg"), key=lambda path: path.stem)
    assert [path.read_bytes() for path in files] == wanted
    batches = list(Stream(str(folders["shards"]), global_batch=8, num_epochs=1))
    assert sorted(bytes(blob) for batch in batches for blob in batch.blobs) == sorted(wanted)


def test_the_corpus_is_the_same_every_time(tmp_path: Path, frames: Path) -> None:
    first, second = make(tmp_path / "one", frames, 6), make(tmp_path / "two", frames, 6)
    assert list(first) == list(second)


def row(name: str, *rates: float, cpu: float = 1.0, failure: str = "") -> Row:
    rounds = tuple(
        {
            "images_per_second": rate,
            "cpu_seconds_per_1000": cpu,
            "first_batch_seconds": 0.5,
            "memory_mb": 100.0,
            "memory_over_imports_mb": 10.0,
        }
        for rate in rates
    )
    return Row(contestant=BY_NAME[name], workload="A", rounds=rounds, failure=failure)


def test_ratios_are_to_the_best_peer_of_the_workload() -> None:
    rows = [
        row("dali", 400, 500, 600, cpu=2.0),
        row("spdl", failure="no FFmpeg | here"),
        row("litdata", 700, 800, 900, cpu=3.0),
        row("ours-fast", 1600, cpu=0.5),
    ]
    assert best_peer(rows, "images_per_second", least=False) == 800
    lines = as_table(rows).splitlines()[4:]
    assert [line.split("|")[1].strip() for line in lines] == [
        "**biovfm, native fast**",
        BY_NAME["litdata"].label,
        BY_NAME["dali"].label,
        BY_NAME["spdl"].label,
    ]
    assert "| 1,600 | 1,600 | 2.00 | 0.500 | 4.00 |" in lines[0]
    assert "| 500 | 600 | 0.62 | 2.000 | 1.00 |" in lines[2]
    assert "no FFmpeg / here" in lines[3]


def test_json_keeps_every_round() -> None:
    result = as_json([row("dali", 400, 500)], images=3)
    assert result["images"] == 3
    assert [figures["images_per_second"] for figures in result["results"][0]["rounds"]] == [400, 500]


def test_every_contestant_has_a_loader_and_pinned_packages() -> None:
    loaders = Path(__file__).parents[3] / "infra/bench/peers/loaders"
    for contestant in CONTESTANTS:
        assert (loaders / f"{contestant.script}.py").is_file()
        assert set(contestant.workloads) <= set(WORKLOADS)
        assert all("==" in package or package == "numpy" for package in contestant.requirements or ())


@pytest.mark.slow
def test_a_run_of_what_is_installed_here(tmp_path: Path, frames: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["ours-library", "pillow", "webdataset", "datasets", "litdata"]
    command = ["--work", str(tmp_path), "--images", "48", "--frames", str(frames), "--batch", "8", "--rounds", "1"]
    command += ["--here", "--workloads", "A", "--json", str(tmp_path / "out.json"), "--peers", *names]
    assert main(command) == 0
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    found = {result["name"]: result for result in results}
    for name in ("ours-library", "pillow", "webdataset", "datasets"):
        (figures,) = found[name]["rounds"]
        assert figures["images"] == 24
        assert all(figures[figure] > 0 for figure in ("images_per_second", "first_batch_seconds", "memory_mb"))
    assert found["litdata"]["rounds"] == []
    assert "litdata" in found["litdata"]["failure"]
    printed = capsys.readouterr().out
    assert "**A**" in printed
    assert "ModuleNotFoundError" in printed
