"""The command line: fast, light, honest exit codes, one-line errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import pytest

from infra.cli import COMMANDS, main
from shards.dataset.query import told_plainly
from tests.shards.builders import small_dataset

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "ray", "duckdb", "pandas", "pyarrow", "deltalake", "cv2", "numpy", "timm", "sklearn", "matplotlib"}
GROUPS = {"subset": "create", "sources": "show", "columns": "add", "secret": "backup", "deploy": "render"}


_INTERRUPTED = """
import sys
import infra.cli

def run(words, is_told):
    exec("raise KeyboardInterrupt")  # as a dataclass is made

infra.cli._run = run
sys.exit(infra.cli.main([]))
"""


@pytest.mark.process
def test_an_interrupt_in_code_made_of_text_is_exit_code_130_under_m(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(_INTERRUPTED)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    done = subprocess.run([sys.executable, "-m", "interrupted"], env=environment, capture_output=True, check=False)
    assert done.returncode == 130


def test_a_question_that_a_signal_ends_is_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), told_plainly("data"):
        raise RuntimeError("Query interrupted")
    with patch("infra.cli.build", side_effect=RuntimeError("Query interrupted")):
        assert main(["stats"]) == 130
    assert "interrupted; nothing is broken" in capsys.readouterr().err


@pytest.mark.process
def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, json; from infra.cli import main; code = main(['--help']); "
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not HEAVY & set(json.loads(done.stderr.splitlines()[-1]))
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    if command in GROUPS:
        assert main([command, GROUPS[command], "--help"]) == 0
        text = capsys.readouterr().out
    assert "Example" in text
    assert f"biovfm {command}" in " ".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["strem"], 2, "Did you mean"),
        (["stats"], 2, "requires an argument"),
        (["stats", "/nowhere/at/all"], 1, "no dataset at /nowhere/at/all"),
        (["subset", "create", "/nowhere", "--out", "x", "--modality", "CTX"], 2, "no modality 'CTX'"),
    ],
)
def test_errors_are_one_line_with_what_to_do_next(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert message in captured.err
    assert " — " in captured.err


@pytest.mark.slow
def test_the_order_is_something_to_look_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = small_dataset(tmp_path / "data")

    def keys(*arguments: str) -> list[list[str]]:
        assert main(["stream", dataset.url, "--keys", "--global-batch", "24", *arguments]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    whole = keys()
    assert len(whole) == 5
    for world_size in (2, 3, 4, 8):
        ranks = [keys("--rank", str(rank), "--world-size", str(world_size)) for rank in range(world_size)]
        assert [list(chain.from_iterable(parts)) for parts in zip(*ranks, strict=True)] == whole
    assert keys("--start-batch", "3") == whole[3:]
    assert keys("--epoch", "1") != whole


@pytest.mark.slow
def test_streams_can_be_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = small_dataset(tmp_path / "data")
    weights = ["--weight", "CT=1", "--weight", "US=1", "--weight", "Fundus=2"]
    assert main(["stream", dataset.url, "--keys", "--global-batch", "24", "--mix", "modality", *weights]) == 0
    for line in capsys.readouterr().out.splitlines():
        assert sum(key.startswith("gamma-") for key in json.loads(line)) == 12
    assert main(["stream", dataset.url, "--keys", "--global-batch", "24", "--mix", "modality", "--weight", "CT=1"]) == 2
    assert "one positive weight for each of" in capsys.readouterr().err
    assert main(["stream", dataset.url, "--keys", "--weight", "CT=1"]) == 2


@pytest.mark.parametrize("number", ["0", "-1"])
def test_a_stream_of_no_batches_is_refused(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stream", "data", "--global-batch", "24", "--keys", f"--num-batches={number}"]) == 2
    assert capsys.readouterr().err == (
        f"biovfm: --num-batches {number} streams nothing — give 1 or more; without it the epoch is streamed\n"
    )


@pytest.mark.slow
def test_stream_measures_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = small_dataset(tmp_path / "data")
    assert main(["stream", dataset.url, "--bench", "--json", "--global-batch", "24", "--size", "32"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["images"] == 120
    assert figures["num_bad"] == 0
    assert {"images_per_second", "cpu_seconds_per_1000_images", "first_batch_seconds", "stall_share"} <= set(figures)


@pytest.mark.slow
def test_a_stream_of_one_batch_claims_no_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = small_dataset(tmp_path / "data")
    arguments = ["stream", dataset.url, "--global-batch", "24", "--size", "32"]
    assert main([*arguments, "--num-batches", "1"]) == 0
    shown = {line[:28].strip(): line[28:].strip() for line in capsys.readouterr().out.splitlines()}
    assert shown["images"] == "24"
    assert shown["images per second"] == "not measured in one batch"
    assert main([*arguments, "--num-batches", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images_per_second"] is None
    assert main([*arguments, "--num-batches", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images_per_second"] > 0


@pytest.mark.slow
def test_subsets_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = small_dataset(tmp_path / "data")
    lock = str(tmp_path / "ct.lock.yaml")
    assert main(["subset", "create", dataset.url, "--modality", "CT", "--count", "10", "--out", lock, "--json"]) == 0
    pinned = json.loads(capsys.readouterr().out)
    assert pinned["num_samples"] == 10
    assert main(["subset", "verify", lock, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == pinned["digest"]
    assert main(["subset", "export", lock]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "file\tsource\traw_path\traw_frame\tpixel_sha256"
    assert len(lines) == 11
    copy = str(tmp_path / "copy")
    assert main(["subset", "materialize", lock, copy, "--json"]) == 0
    capsys.readouterr()
    assert main(["stats", copy, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_samples"] == 10


def test_stats_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = small_dataset(tmp_path / "data")
    assert main(["stats", dataset.url, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["num_samples"] == 120
    assert {row["modality"]: row["samples"] for row in figures["by_modality"]} == {"CT": 60, "US": 40, "Fundus": 20}
    assert all(job["items"] == job["kept"] + job["rejected"] for job in figures["jobs"])
