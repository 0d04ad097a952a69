"""`biovfm probe` and `biovfm knn` as people and programs meet them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eval.probes.results import read_results
from infra.cli import main
from tests.eval.builders import write_archive

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[3]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("breastmnist", "retinamnist"):
        write_archive(tmp_path / "data", name)
    return tmp_path / "data"


def arguments(data: Path, *more: str) -> list[str]:
    return [*more, "--data", str(data), "--cache", str(data.parent / "cache"), "--resamples", "20", "--device", "cpu"]


def test_two_models_in_one_table(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, out = data.parent / "probe.html", data.parent / "results.jsonl"
    line = arguments(data, "probe", "pixels", "random:test_vit", "--tasks", "breast,retina", "--image-size", "32")
    assert main([*line, "--out", str(out), "--page", str(page)]) == 0
    text = capsys.readouterr().out
    for expected in ("AUC", "ACC", "BreastMNIST", "RetinaMNIST", "mean", "random:test_vit − pixels"):
        assert expected in text
    assert len(read_results(out)) == 4
    html = page.read_text()
    for expected in ("Paired differences", "balanced accuracy", "macro F1", "Matthews correlation"):
        assert expected in html
    assert "http" not in html.replace("http-equiv", "")


def test_one_json_object_on_standard_output(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = arguments(data, "probe", "pixels", "--tasks", "breast,oct", "--skip-missing", "--json")
    assert main(line) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["missing_tasks"] == ["octmnist"]
    assert [item["task"] for item in result["results"]] == ["breastmnist"]
    assert "skipped: octmnist.npz" in captured.err


def test_knn(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = arguments(data, "knn", "pixels", "--tasks", "breast", "--k", "3", "--k", "7", "--json")
    assert main(line) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["protocol"] == "knn"
    assert result["settings"]["k"] in {3, 7}


def test_the_paper_protocol(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = arguments(data, "probe", "random:test_vit", "--tasks", "breast", "--image-size", "32", "--json")
    line += ["--paper-protocol", "--epochs", "2", "--train-mode-backbone"]
    assert main(line) == 1
    assert "breastmnist_224.npz" in (said := capsys.readouterr().err)
    assert "--size 28" in said
    assert main([*line, "--size", "28"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["protocol"] == "paper"
    assert result["seed"] == 42
    assert result["provenance"]["train_mode_backbone"] is True
    assert any("the paper's protocol is at 224 px" in note for note in result["notes"])
    write_archive(data, "breastmnist", size=224, counts=(8, 6, 6))
    assert main([*line, "--seed", "3"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["seed"], result["provenance"]["image_size_px"]) == (3, 224)


def test_seeds_are_shown_as_mean_and_deviation_and_compared_as_such(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = arguments(data, "probe", "pixels", "random:test_vit", "--tasks", "breast", "--image-size", "32")
    assert main([*line, "--seeds", "3", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["results"]) == 6
    (compared,) = shown["comparisons"]
    assert compared["num_seeds"] == [3, 3]
    assert compared["method"] == "bootstrap+seeds"
    assert main([*line, "--seeds", "3"]) == 0
    assert "(3 seeds)" in capsys.readouterr().out


def test_published_figures_stand_beside_the_results(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = data.parent / "page.html"
    line = arguments(data, "probe", "pixels", "--tasks", "breast", "--published")
    assert main([*line, "--page", str(page)]) == 0
    shown = capsys.readouterr()
    assert "DINO ViT-B/16 (ImageNet)" in shown.out
    assert "published, other protocol" in shown.out
    assert "published figures of frozen backbones are at 224 px" in shown.err
    assert "Doerrich et al." in page.read_text()


def test_an_archive_that_is_not_the_published_one_is_said(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(data, "probe", "pixels", "--tasks", "breast")) == 0
    said = capsys.readouterr().err
    assert "60 / 24 / 36 images (train / val / test), MedMNIST publishes 546 / 78 / 156" in said


def test_a_file_that_cannot_be_written_is_said_before_the_work(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "file").write_text("")
    line = arguments(data, "probe", "pixels", "--tasks", "breast", "--out", str(data / "file" / "results.jsonl"))
    assert main(line) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (data.parent / "cache").exists()


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["probe", "--tasks", "breast"], 2, "no checkpoint given"),
        (["probe", "pixels", "--tasks", "octmnist"], 1, "octmnist.npz is not in"),
        (["probe", "pixels", "--tasks", "oct,blood", "--skip-missing"], 2, "none of the tasks could be found"),
        (["probe", "pixels", "--tasks", "brest"], 2, "did you mean breastmnist"),
        (["probe", "pixels", "--tasks", "breast", "--train-mode-backbone"], 2, "belongs to --paper-protocol"),
        (["probe", "pixels", "--tasks", "breast", "--paper-protocol", "--shots", "3"], 2, "leave out --shots"),
        (["probe", "random:test_vit", "--tasks", "breast", "--image-size", "28"], 2, "use --image-size 32"),
        (["probe", "./nowhere", "--tasks", "breast"], 1, "there is no ./nowhere"),
        (["knn", "pixels", "--tasks", "breast", "--k", "0"], 2, "positive"),
        (["knn", "pixels", "--tasks", "breast", "--temperature", "0"], 2, "positive"),
        (["probe", "pixels", "--tasks", "breast", "--seeds", "0"], 2, "pass --seeds 1 or more"),
        (["probe", "pixels", "--tasks", "breast", "--shots", "-1"], 2, "pass --shots 1 or more"),
        (["probe", "pixels", "--tasks", "breast", "--batch-size", "0"], 2, "pass --batch-size 1 or more"),
        (["knn", "--tasks", "breast"], 2, "no checkpoint given"),
    ],
)
def test_mistakes_are_one_line(
    data: Path, more: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments(data, *more), "--json"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err.splitlines()[-1]


STOPS_AFTER_A_BATCH = """
import sys, time
from eval.probes import features
from infra.cli import main
write = features._write_atomically

def write_and_wait(path, text):
    write(path, text)
    time.sleep(600)

features._write_atomically = write_and_wait
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_killed_probe_goes_on_from_its_cached_features(tmp_path: Path) -> None:
    write_archive(tmp_path / "data", "breastmnist", counts=(600, 30, 30))
    line = arguments(tmp_path / "data", "probe", "random:test_vit", "--tasks", "breast", "--batch-size", "16", "--json")
    words = [*line, "--image-size", "64"]
    command = [sys.executable, "-m", "infra.cli", *words]
    stops = [sys.executable, "-c", STOPS_AFTER_A_BATCH, *words]
    process = subprocess.Popen(stops, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (markers := list((tmp_path / "cache").glob("*/train.done"))):
        assert process.poll() is None, "the probe ended before it was killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    rows = int(markers[0].read_text())
    assert 0 < rows < 600
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (result,) = json.loads(done.stdout)["results"]
    assert result["num_train"] == 600
    assert not list((tmp_path / "cache").rglob("*.partial.npy"))
