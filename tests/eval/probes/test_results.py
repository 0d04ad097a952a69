"""Results on disk: whole lines from many jobs, none of them twice, and one bad line costs that line alone."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest

from eval.probes.results import ProbeResult, append_results, read_results
from eval.scoring.bootstrap import Interval
from eval.scoring.delong import Bounds
from shards.errors import BiovfmError, ConfigError


def result(seed: int = 0, auc: float = 0.8) -> ProbeResult:
    return ProbeResult(
        task="breastmnist",
        kind="binary-class",
        protocol="linear",
        backbone="pixels",
        seed=seed,
        metrics={"auc": Interval(value=auc, mean=auc, lower=auc - 0.1, upper=auc + 0.1)},
        val_metrics={"auc": auc},
        thresholds=[0.5],
        settings={"C": 1.0},
        num_train=60,
        num_val=20,
        num_test=30,
        seconds=1.0,
        auc_bounds=Bounds(lower=0.6, upper=0.9, method="delong"),
        notes=["a note"],
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.jsonl"
    assert append_results(path, [result(0), result(1)]) == 2
    assert read_results(path) == [result(0), result(1)]


def test_the_same_result_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_results(path, [result(), result()])
    assert append_results(path, [replace(result(), seconds=9.0)]) == 0
    assert append_results(path, [result(auc=0.81)]) == 1
    assert [item.metrics["auc"].value for item in read_results(path)] == [0.8, 0.81]


@pytest.mark.parametrize("cut", [1, 40, -1])
def test_a_cut_line_costs_that_line_alone(tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "results.jsonl"
    append_results(path, [result(0)])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: cut if cut > 0 else len(whole) // 2])
    append_results(path, [result(1)])
    append_results(path, [result(2)])
    assert [item.seed for item in read_results(path)] == [0, 1, 2]
    assert "results.jsonl:2" in caplog.text
    assert "skipped" in caplog.text


@pytest.mark.parametrize("line", ["7", "[]", "null", '{"task": "x"}', '"words"', "\x00\x00", "{", "\udcff"])
def test_lines_of_all_kinds_are_named_and_skipped(tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(ConfigError, match=r"results\.jsonl:1 is no probe result"):
        read_results(path)
    append_results(path, [result()])
    assert read_results(path) == [result()]
    assert "results.jsonl:1" in caplog.text


def test_a_metric_that_is_no_number_is_no_result(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    record = result().record()
    record["metrics"]["auc"]["value"] = "high"
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(ConfigError, match="no probe result"):
        read_results(path)


def test_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_results(path, [result(auc=math.nan)])

    def refuse(constant: str) -> float:
        raise AssertionError(constant)

    assert json.loads(path.read_text(), parse_constant=refuse)["metrics"]["auc"] is None
    (again,) = read_results(path)
    assert math.isnan(again.metrics["auc"].value)
    assert math.isnan(again.val_metrics["auc"])


def test_a_line_of_an_earlier_release(tmp_path: Path) -> None:
    record = {key: value for key, value in result().record().items() if key not in {"auc_bounds", "notes"}}
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(record) + "\n")
    (again,) = read_results(path)
    assert again.bounds("auc") == Bounds(lower=pytest.approx(0.7), upper=pytest.approx(0.9), method="bootstrap")


def _append(path: Path, job: int) -> None:
    for number in range(20):
        append_results(path, [result(seed=100 * job + number)])


@pytest.mark.slow
def test_many_jobs_at_once(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    jobs = [multiprocessing.get_context("spawn").Process(target=_append, args=(path, job)) for job in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len({item.seed for item in read_results(path)}) == len(read_results(path)) == 60


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write .*--out"):
        append_results(tmp_path / "file" / "results.jsonl", [result()])
    with pytest.raises(ConfigError, match="cannot read"):
        read_results(tmp_path)


@pytest.mark.s3
def test_results_on_object_storage(bucket: str) -> None:
    url = f"{bucket}/run/probes"
    with pytest.raises(ConfigError, match="no results"):
        read_results(url)
    assert append_results(url, [result(0), result(1)]) == 2
    assert append_results(url, [replace(result(1), seconds=9.0), result(2)]) == 1
    assert sorted(found.seed for found in read_results(url)) == [0, 1, 2]


@pytest.mark.parametrize(("number", "code"), [(errno.EIO, 1), (errno.ENOSPC, 1), (errno.EACCES, 2)])
def test_a_disk_that_fails_is_no_wrong_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("eval.probes.results._write_whole", refused)
    with pytest.raises(BiovfmError, match=r"results\.jsonl: ") as caught:
        append_results(tmp_path / "results.jsonl", [result()])
    assert caught.value.exit_code == code
