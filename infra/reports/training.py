"""A pretraining run on the page: how long, how fast, its curves and, where it drew some, its pictures."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from infra.web.charts import line_chart, smooth
from infra.web.html import render_cards, render_image
from shards.files import parse_json

NAMES: Final = {
    "loss_mae": "MAE",
    "loss_dino_local": "DINO, local crops",
    "loss_dino_global": "DINO, global crops",
    "loss_ibot": "iBOT",
    "loss_koleo": "KoLeo",
}
"""Summands of the losses in print."""


def training_section(run: Path | None) -> str:
    """HTML of a run folder of `biovfm pretrain`; nothing where there are no steps yet."""
    if run is None or not (run / "metrics.jsonl").is_file():
        return ""
    steps = _read_steps(run / "metrics.jsonl")
    loss = series(steps, "loss")
    if not loss:
        return ""
    parts = [
        "<h2>Pretraining</h2>",
        render_cards(_figures(steps, loss)),
        "<h3>Loss</h3>",
        line_chart({"each step": loss, "running mean": smooth(loss)}, x_label="step", y_label="loss", title="Loss"),
        _summands(steps),
        "<h3>Learning rate</h3>",
        _one_line(steps, "lr", "learning rate"),
    ]
    if "feature_std" in steps[0]:
        parts += [
            "<h3>Spread of the CLS features</h3>",
            "<p>1 is even over the sphere; 0 means that all images look alike to the network.</p>",
            _one_line(steps, "feature_std", "spread"),
        ]
    if (run / "reconstructions.png").is_file():
        caption = "What the encoder saw, what the decoder made of it, and the original"
        parts += ["<h3>Reconstructions</h3>", render_image(run / "reconstructions.png", alt=caption, caption=caption)]
    return "".join(parts)


def _read_steps(path: Path) -> list[dict[str, Any]]:
    """The steps of a run; a line that is none (a killed process or a full disk cuts the last) is named and skipped."""
    steps = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            step = parse_json(line)
        except ValueError:
            step = None
        if isinstance(step, dict) and _is_number(step.get("step")):
            steps.append(step)
        elif line.strip():
            logging.getLogger(__name__).warning("%s:%d is no step of a run: the line is skipped", path, number)
    return steps


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def series(steps: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """`(step, value)` of one number; steps at which it was not finite, or not written, are left out."""
    return [(float(step["step"]), float(step[key])) for step in steps if _is_number(step.get(key))]


def _figures(steps: Sequence[Mapping[str, Any]], loss: Sequence[tuple[float, float]]) -> list[tuple[object, str]]:
    tail = steps[len(steps) // 2 :]
    return [
        (steps[-1]["step"], "steps"),
        (f"{sum(seconds for _, seconds in series(steps, 'seconds')) / 60:.1f}", "minutes"),
        (round(_mean(loss[:10]), 4), "mean loss of the first 10 steps"),
        (round(_mean(loss[-10:]), 4), "mean loss of the last 10 steps"),
        (round(_mean(series(tail, "images_per_second")), 1), "images a second"),
        (f"{100 * _mean(series(tail, 'stall_share')):.1f} %", "of the time waiting for data"),
    ]


def _summands(steps: Sequence[Mapping[str, Any]]) -> str:
    """The parts of a loss that has several, as they are minimised, with their weights."""
    keys = [key for key in steps[0] if key.startswith("loss_")]
    if len(keys) < 2:
        return ""
    lines = {NAMES.get(key, key): smooth(series(steps, key)) for key in keys}
    chart = line_chart(lines, x_label="step", y_label="running means", title="Summands of the loss")
    return f"<h3>Its summands, with their weights</h3>{chart}"


def _one_line(steps: Sequence[Mapping[str, Any]], key: str, label: str) -> str:
    return line_chart({label: series(steps, key)}, x_label="step", y_label=label, title=label.capitalize())


def _mean(points: Sequence[tuple[float, float]]) -> float:
    return sum(y for _, y in points) / len(points) if points else math.nan
