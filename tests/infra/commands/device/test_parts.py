"""A check in parts goes on after one that fails, and ends in time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from infra.commands.device.parts import Part, Skipped, run_parts


def raising(error: Exception) -> Any:
    def run() -> tuple[str, Mapping[str, Any]]:
        raise error

    return run


def test_every_part_has_a_verdict_and_the_next_one_runs() -> None:
    parts = [
        Part(name="good", run=lambda: ("fine", {"rate": 3})),
        Part(name="slow", run=lambda: ("slow", {"rate": 1}), good=lambda figures: figures["rate"] > 2),
        Part(name="broken", run=raising(RuntimeError("no driver\nat all"))),
        Part(name="elsewhere", run=raising(Skipped("no GPU"))),
        Part(name="last", run=lambda: ("fine", {})),
    ]
    found = {one.name: (one.verdict, one.detail) for one in run_parts(parts, seconds=60)}
    assert found == {
        "good": ("ok", "fine"),
        "slow": ("bad", "slow"),
        "broken": ("failed", "RuntimeError: no driver"),
        "elsewhere": ("skipped", "no GPU"),
        "last": ("ok", "fine"),
    }


def test_no_part_is_begun_when_the_time_is_over() -> None:
    parts = [Part(name="any", run=lambda: ("fine", {}))]
    assert [one.verdict for one in run_parts(parts, seconds=0)] == ["skipped"]


def test_a_part_that_takes_too_long_is_broken_off_and_said() -> None:
    def endless() -> tuple[str, Mapping[str, Any]]:
        while True:
            time.sleep(0.01)

    began = time.monotonic()
    found = [
        (one.name, one.verdict, one.detail)
        for one in run_parts([Part(name="long", run=endless), Part(name="next", run=endless)], seconds=0.2)
    ]
    assert time.monotonic() - began < 5
    assert found[0] == ("long", "failed", "broken off: the 0 seconds were over")
    assert found[1][:2] == ("next", "skipped")
