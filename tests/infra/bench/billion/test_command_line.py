"""Wrong numbers on the command line are one line on standard error."""

from __future__ import annotations

import json

import pytest

from infra.bench.billion.__main__ import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--ranks 7 --batch 1024",
            "7 ranks do not divide the global batch 1024 — take a global batch that is a multiple of 7",
        ),
        ("--ranks 0", "--ranks 0 means nothing — give at least 1"),
        ("--batch -8", "--batch -8 means nothing"),
        ("--sampled 0", "--sampled 0 means nothing"),
        ("--lanes 0", "--lanes 0 means nothing"),
        ("--gbit nan", "--gbit nan means nothing"),
        ("--latency-ms -1", "--latency-ms -1.0 means nothing — give at least 0"),
        ("--images 100 --ranks 4 --batch 4096", "fewer than the global batch 4096"),
    ],
)
def test_wrong_numbers_are_one_line(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    told = capsys.readouterr()
    assert told.err.startswith("billion: ")
    assert said in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


@pytest.mark.slow
def test_an_odd_number_of_ranks_cannot_be_halved(capsys: pytest.CaptureFixture[str]) -> None:
    link = "--latency-ms 0 --gbit 0"
    assert main(f"--images 100000 --ranks 7 --batch 343 --batches 4 --sampled 2 {link}".split()) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("halved_bytes") for row in rows] == [0.0, 0.0, None]
