"""Whoever computes a figure by its printed formula, from the printed figures, gets the printed number."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from infra.cli import main
from infra.estimate.digits import digits

UNITS = {"TB": 1e12, "GB": 1e9, "GFLOP per image": 1e9, "Gbit/s": 1e9}
WORDS = ("images/s", "images", "bytes", "rows", "core-seconds", "s/MP", "MP of crops", "MP", "nodes", "GPUs", "months")


def table(capsys: pytest.CaptureFixture[str], *more: str) -> list[tuple[str, float, str, str]]:
    """Name, printed value, unit and formula of each figure."""
    assert main(["plan", *more]) == 0
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()[2:]
    rows = [re.split(r" {2,}", line) for line in lines]
    return [(name, float(value.replace(",", "")), unit, formula) for name, value, unit, formula in rows]


def computed(formula: str, known: dict[str, float]) -> float:
    """The value of a formula; `known` holds the figures before it, in their plain units."""
    body, _, where = formula.partition(", k = ")
    if where:
        k, n = re.split(" ranks share a window, n = ", where.removesuffix(" samples lie in a request"))
        known = {"k": float(k), "n": computed(n, {}), **known}
        body = re.sub(r"\b([kn])\b", lambda found: str(known[found[0]]), body)
    text = re.sub(r"\(max of .*?\)|, rounded up|, nothing cached|, a request each", "", body).replace(
        " in GB", " / 1e9"
    )
    for name in sorted(known, key=len, reverse=True):
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", repr(known[name]), text)
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"([\d.]+) MiB", r"(\1 * 2**20)", text)
    for said, meant in {
        "% of": "/ 100 *",
        "×": "*",
        "·": "*",
        "^": "**",
        "MiB": "* 2**20",
        "TFLOP/s": "* 1e12",
    }.items():
        text = text.replace(said, meant)
    for word in WORDS:
        text = re.sub(rf"(?<=[\d )]){re.escape(word)}(?![\w/-])", "", text)
    return float(eval(text, {"__builtins__": {}}))


BENCH = {
    "device": "cuda:0",
    "card": "NVIDIA H100 80GB HBM3",
    "parts": [{"name": "mae large, resident", "figures": {"images_per_second": 1900.0, "mfu": 0.247}}],
}
ODD = {
    "shard_bytes": 1e6,
    "index_row_bytes": 0.5,
    "request_bytes": 1_234_567,
    "image_megapixels": 0.0312,
    "get_price": 3e-7,
}


@pytest.mark.parametrize(
    ("measured", "more"),
    [
        (None, ""),
        (None, "--nodes 128 --batch 4096"),
        (None, "--nodes 128 --batch 4096 --image-bytes 2000000"),
        (None, "--utilisation 0.004"),
        (None, "--images-per-second 999.7"),
        (None, "--images-per-second 0.04 --nodes 3 --gpus 1 --batch 96 --method dinov2 --image-px 112"),
        (None, "--images 1 --epochs 3 --image-bytes 12.3456"),
        (None, "--image-bytes 200000 --gpus 1 --steps 7 --batch 13 --gpu-hour-price 1.23456"),
        (BENCH, "--model vit-base"),
        (ODD, "--nodes 16 --epochs 0.37"),
    ],
)
def test_figures_follow_from_their_printed_formulas(
    tmp_path: Path, measured: object, more: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = more.split()
    if measured is not None:
        path = tmp_path / "measured.json"
        path.write_text(json.dumps(measured))
        words += ["--measured", str(path)]
    known: dict[str, float] = {}
    num_computed = 0
    for name, value, unit, formula in table(capsys, *words):
        plain = value * UNITS.get(unit, 1)
        if not formula.startswith(("mae,", "dinov2,", "measured", "dataset:", "1, since")):
            num_computed += 1
            least = 1 if "rounded up" in formula else 1e-3 * abs(plain)
            assert computed(formula, known) == pytest.approx(plain, rel=2e-3, abs=least), (name, formula)
        known[name] = plain
    assert num_computed >= 18


def test_measured_shares_are_printed_with_all_their_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(BENCH))
    rows = {name: (value, formula) for name, value, _, formula in table(capsys, "--measured", str(path))}
    assert rows["speed of a GPU"][1] == "24.7% of 989 TFLOP/s / operations"
    assert rows["speed of a GPU"][0] == pytest.approx(0.247 * 989e12 / (rows["operations"][0] * 1e9), rel=1e-3)


@pytest.mark.parametrize(
    ("value", "num", "text"),
    [
        (999.7, 4, "999.7"),
        (999.97, 4, "1,000"),
        (0, 4, "0"),
        (3.0000586, 4, "3"),
        (40_808.6, 4, "40,809"),
        (40_808.6, 6, "40,808.6"),
        (30_000, 6, "30,000"),
        (989e12, 6, "989,000,000,000,000"),
        (0.00123456, 4, "0.001235"),
        (float("inf"), 4, "inf"),
    ],
)
def test_numbers_have_the_digits_that_count(value: float, num: int, text: str) -> None:
    assert digits(value, num) == text
