"""The device's check on this machine, and its images."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from infra.commands.device.check import check_device
from infra.commands.device.images import TarStream, drawn_jpegs, read_tar
from infra.commands.device.pack import shard_of
from shards.decode import Crops, open_decoder
from shards.errors import ConfigError
from tests.shards.builders import small_dataset

pytestmark = pytest.mark.torch


@pytest.mark.slow
def test_the_quick_check_answers_with_a_verdict_per_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_device(bench=False, data=None, images=None, json_=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert {part["verdict"] for part in report["parts"]} <= {"ok", "skipped"}
    assert {"devices", "bf16"} <= {part["name"] for part in report["parts"]}


def test_images_of_a_shard_are_read_and_streamed(tmp_path: Path) -> None:
    small_dataset(tmp_path / "d")
    images = read_tar(shard_of(tmp_path / "d"), 5)
    assert len(images) == 5
    stream = TarStream(images, crops=(Crops(size_px=16),), global_batch=8, decoder=open_decoder("library"), threads=2)
    batches = iter(stream)
    first, second = next(batches), next(batches)
    assert first.views[0].shape == (8, 1, 16, 16, 3)
    assert not np.array_equal(first.views[0], second.views[0])
    assert (first.index, second.index) == (0, 1)


def test_what_is_no_shard_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no tar")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_tar(tmp_path / "x.tar")
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(ConfigError, match="holds no"):
        read_tar(tmp_path / "empty.tar")
    with pytest.raises(ConfigError, match="has no shard"):
        shard_of(tmp_path)


def test_drawn_images_are_the_same_again() -> None:
    assert drawn_jpegs(2, side=32) == drawn_jpegs(2, side=32)


def test_only_the_parts_that_are_asked_for_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_device(bench=False, data=None, images=None, json_=True, only=["bf16"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert [part["name"] for part in report["parts"]] == ["bf16"]
    assert "bf16" in captured.err
    with pytest.raises(ConfigError, match="no part is called zzz"):
        check_device(bench=False, data=None, images=None, json_=True, only=["zzz"])
