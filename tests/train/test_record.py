"""The lines of a run: written beside the step, in order, before the checkpoint; those that count stay on resume."""

from __future__ import annotations

import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from shards.errors import StoreError
from tests.train.recipes import mae_recipe
from tests.train.streams import MemoryStream
from train.checkpoint import Checkpoints
from train.record import Recorder, StepReport, _keep_lines
from train.run import pretrain

pytestmark = pytest.mark.torch


def report(step: int) -> StepReport:
    return StepReport(
        step=step,
        steps=9,
        epoch=0,
        batch=step - 1,
        keys_checksum=1,
        loss=1.0,
        losses={"mae": 1.0},
        lr=0.1,
        weight_decay=0.0,
        images_per_second=1.0,
        stall_share=0.0,
        seconds=1.0,
        memory_bytes=1,
    )


def steps_in(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def slow_writes(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    original = Recorder._write

    def write(self: Recorder, one: StepReport) -> None:
        time.sleep(seconds)
        original(self, one)

    monkeypatch.setattr(Recorder, "_write", write)


def test_damaged_lines_are_dropped_and_the_others_kept_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [b'{"step": 1, "loss": null}', b"\xff\xfe", b"[1]", b'{"loss": 2}', b'{"step": 2}', b"[" * 99_999]
    path.write_bytes(b"\n".join([*lines, b'{"step": 3}', b'{"step": 1']))
    _keep_lines(path, 2)
    assert path.read_bytes() == b'{"step": 1, "loss": null}\n{"step": 2}\n'


def test_a_step_does_not_wait_for_its_line_and_flush_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()
    original = Recorder._write

    def write(self: Recorder, one: StepReport) -> None:
        assert held.wait(60)
        original(self, one)

    monkeypatch.setattr(Recorder, "_write", write)
    recorder = Recorder(tmp_path, mae_recipe(), start=0)
    for step in (1, 2, 3):
        recorder.write(report(step))
    assert steps_in(tmp_path) == []
    held.set()
    recorder.flush()
    assert steps_in(tmp_path) == [1, 2, 3]
    recorder.close()


def test_closing_writes_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_writes(monkeypatch, 0.02)
    recorder = Recorder(tmp_path, mae_recipe(), start=0)
    for step in (1, 2, 3):
        recorder.write(report(step))
    recorder.close()
    assert steps_in(tmp_path) == [1, 2, 3]


def test_all_lines_are_there_when_a_checkpoint_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_writes(monkeypatch, 0.05)
    found: list[tuple[int, list[int]]] = []
    original = Checkpoints.save

    def save(self: Checkpoints, checkpoint: Any, *rest: Any) -> None:
        found.append((checkpoint.step, steps_in(tmp_path)))
        original(self, checkpoint, *rest)

    monkeypatch.setattr(Checkpoints, "save", save)
    recipe = mae_recipe(run={"steps": 6}, checkpoint={"every": 4})
    pretrain(recipe, data="memory", out=tmp_path, stream=MemoryStream)
    assert found == [(4, [1, 2, 3, 4]), (6, [1, 2, 3, 4, 5, 6])]


class FullDisk(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_told_by_the_next_step_or_by_flush(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, mae_recipe(), start=0)
    recorder._lines.close()
    recorder._lines = FullDisk()  # type: ignore[assignment]  # a stand-in for a file
    recorder.write(report(1))
    with pytest.raises(StoreError, match=r"cannot write .*metrics\.jsonl: No space left"):
        recorder.flush()
    recorder.write(report(2))
    assert recorder._coming[0].exception(60) is not None
    with pytest.raises(StoreError, match="No space left"):
        recorder.write(report(3))
    recorder.write(report(4))
    with pytest.raises(StoreError, match="No space left"):
        recorder.close()
