"""Pretraining with a cache of blocks on disk: what was read once from object storage is not asked for again."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.cli import main
from infra.s3_server import Server
from tests.faults import Fault, FaultProxy
from tests.shards.builders import small_dataset


@pytest.mark.s3
@pytest.mark.torch
@pytest.mark.slow
def test_a_second_run_on_a_host_reads_shards_from_the_cache(
    bucket: str, s3_env: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_dataset(f"{bucket}/data")
    cache = tmp_path / "cache"
    short = ("run.steps=4", "run.global_batch=40", "run.unit_images=8", "checkpoint.every=4")
    words = ["pretrain", f"{bucket}/data", "--recipe", "tiny", "--cache", str(cache), "--json"]
    words += [word for setting in short for word in ("--set", setting)]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # each process of a host has its share of the budget
    assert main([*words, "--out", str(tmp_path / "first"), "--cache-gib", "1"]) == 0
    blocks = [path for path in cache.iterdir() if path.suffix == ".block"]
    assert blocks
    with FaultProxy(s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.add(Fault.answer(403, "AccessDenied"), path=r"/shards/.*\.tar", times=10_000)
        assert main([*words, "--out", str(tmp_path / "second"), "--cache-gib", "1"]) == 0
        assert proxy.left() == 10_000
    losses = [(tmp_path / name / "metrics.jsonl").read_text().count('"loss"') for name in ("first", "second")]
    assert losses == [4, 4]


def test_a_cache_of_no_size_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", str(tmp_path), "--out", str(tmp_path / "run"), "--cache-gib", "0"]) == 2
    assert "--cache-gib 0 is not positive" in capsys.readouterr().err
