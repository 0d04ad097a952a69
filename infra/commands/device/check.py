"""Runs the device's check or benchmark: a table as it goes, and JSON at the end where it is wanted."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from infra.commands.device.parts import Outcome, run_parts
from shards.errors import ConfigError

__all__ = ["check_device"]

QUICK_SECONDS = 120.0


def check_device(*, bench: bool, data: Path | None, images: int | None, json_: bool, only: Sequence[str] = ()) -> int:
    """Check this machine's device.

    Args:
        bench: The benchmark too.
        data: A shard or a dataset's folder with the images to feed; drawn ones where None.
        images: At most so many of them.
        json_: One JSON object on stdout; the table goes to stderr.
        only: Parts whose name contains one of these; all of them where there is none.

    Raises:
        ConfigError: No part has such a name.

    Returns:
        Exit code: 0 where every part is `ok` or `skipped`, else 1.
    """
    from infra.commands.device.bench import BENCH_SECONDS, bench_parts
    from infra.commands.device.images import drawn_jpegs, read_tar
    from infra.commands.device.pack import shard_of
    from infra.commands.device.quick import card_of, device_here, quick_parts

    device = device_here()
    if bench:
        pictures = drawn_jpegs(images or 256, side=384) if data is None else read_tar(shard_of(data), images)
        parts, seconds = bench_parts(device, pictures), BENCH_SECONDS
    else:
        parts, seconds = quick_parts(device), QUICK_SECONDS
    wanted = [part for part in parts if not only or any(text in part.name for text in only)]
    if not wanted:
        names = ", ".join(part.name for part in parts)
        raise ConfigError(f"no part is called {' or '.join(only)}", hint=f"the parts: {names}")
    outcomes = []
    for outcome in run_parts(wanted, seconds=seconds):
        outcomes.append(outcome)
        _show(outcome, sys.stderr if json_ else sys.stdout)
    good = all(outcome.verdict in {"ok", "skipped"} for outcome in outcomes)
    if json_:
        report: dict[str, Any] = {
            "ok": good,
            "device": str(device),
            "card": card_of(device),
            "parts": [asdict(one) for one in outcomes],
        }
        sys.stdout.write(json.dumps(report, allow_nan=False) + "\n")
    return 0 if good else 1


def _show(outcome: Outcome, to: TextIO) -> None:
    to.write(f"{outcome.verdict:<8} {outcome.name:<34} {outcome.detail}\n")
    to.flush()
