"""The lines of a run that goes on: those of the steps that count, whatever a crash has left among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from train.record import _keep_lines

pytestmark = pytest.mark.torch


def test_damaged_lines_are_dropped_and_the_others_kept_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [b'{"step": 1, "loss": null}', b"\xff\xfe", b"[1]", b'{"loss": 2}', b'{"step": 2}', b"[" * 99_999]
    path.write_bytes(b"\n".join([*lines, b'{"step": 3}', b'{"step": 1']))
    _keep_lines(path, 2)
    assert path.read_bytes() == b'{"step": 1, "loss": null}\n{"step": 2}\n'
