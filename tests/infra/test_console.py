"""Answers go to standard output whole, remarks to standard error; texts are shown as they are."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import pytest

from infra import cli
from infra.cli import main
from infra.console import answer_table, log_as, log_step, stderr
from ingest.source.spec import catalogue_ids
from shards.dataset.dataset import Dataset
from shards.files import write_bytes
from shards.subset.lock import Selection, create
from tests.shards.builders import small_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset(tmp_path / "data [bold]")


@pytest.mark.slow
def test_answers_are_on_standard_output(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "all.lock.yaml"
    create(dataset, Selection()).write(lock)
    for words, expected in {
        ("stats", dataset.url): "samples by modality",
        ("subset", "show", str(lock)): "120 samples",
        ("sources", "list"): "images in all",
        ("sources", "show", catalogue_ids()[0]): "Licence",
        ("verify", dataset.url): "sound",
    }.items():
        assert main(words) == 0
        shown = capsys.readouterr()
        assert expected in shown.out
        assert not shown.err


def test_paths_keep_their_brackets(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    main(["stats", dataset.url])
    assert f"{dataset.url}: version 2" in capsys.readouterr().out
    stderr().print("[red]a[/red] :smile:", soft_wrap=True)
    assert capsys.readouterr().err == "[red]a[/red] :smile:\n"


def test_a_table_in_a_pipe_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    answer_table("long", [{"path": "x" * 500, "images": 12345}])
    shown = capsys.readouterr().out
    assert "x" * 500 in shown
    assert "12,345" in shown
    assert max(map(len, shown.splitlines())) < 600


def test_what_the_system_refuses_is_one_line(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["subset", "create", dataset.url, "--out", "/proc/x.lock.yaml"],
        ["subset", "export", dataset.url, "--out", "/proc/x.tsv"],
    ):
        assert main(words) in {1, 2}
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "/proc/x" in said


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.EACCES, "Permission denied", "/x/y"), 1, "/x/y: Permission denied"),
        (OSError("odd"), 1, "odd"),
        (OSError("Generic error \x1b[31m↳\x1b[0m No space"), 1, "biovfm: Generic error No space — check"),
        (ModuleNotFoundError("no", name="torch.nn"), 1, "torch is not installed — pip install 'biovfm[train]'"),
        (ModuleNotFoundError("no", name="uvicorn"), 1, "biovfm[serve]"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_errors_of_every_kind_end_in_a_line_and_a_known_exit_code(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "build", fail)
    monkeypatch.setattr(cli, "reader_has_left", lambda: True)
    monkeypatch.setattr(cli, "drop_answer", lambda: None)
    assert main(["stats", "x"]) == code
    told = capfd.readouterr().err
    assert said in told
    assert told.count("\n") == (1 if said else 0)


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_be_written_is_named_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(OSError, match="directory") as caught:
        write_bytes(tmp_path / "folder", b"x")
    assert caught.value.filename == str(tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_a_modality_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "list", "--modality", "Fundos"]) == 2
    assert "no modality 'Fundos'" in capsys.readouterr().err


def test_exported_lines_are_strict_json(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["subset", "export", dataset.url, "--format", "jsonl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert len(rows) == 120
    assert all(row["window_center"] is None for row in rows)


def test_in_json_logs_every_line_is_an_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_as("json", run="a")
    sys.stderr.write("biovfm: waiting for a store")  # as libraries write, in pieces
    sys.stderr.write(" for 5 s\nwarning: slow\n\n")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["message"], line["run"]) for line in lines] == [
        ("info", "biovfm: waiting for a store for 5 s", "a"),
        ("warning", "warning: slow", "a"),
    ]
    log_step(7)
    sys.stderr.write("warning: slow\n")
    assert [line["step"] for line in lines] == [None] * 2
    assert json.loads(capsys.readouterr().err)["step"] == 7
    assert main(["ingest", "nosuch", str(tmp_path), str(tmp_path / "data"), "--log-format", "json"]) == 1
    assert main(["ingest", "nosuch", "--bogus", "1", "--log-format=json"]) == 2
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["level"] for line in lines] == ["error", "error"]
    assert main(["ingest", "nosuch", str(tmp_path), str(tmp_path / "data")]) == 1
    assert capsys.readouterr().err.startswith("biovfm: no source 'nosuch'")


def test_a_bar_leaves_no_line_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    from infra.console import progress

    with progress() as bar:
        bar.update(bar.add_task("commit", total=2, note=""), advance=1)
    assert capsys.readouterr().err == ""
