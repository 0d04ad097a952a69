from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from shards.errors import CheckpointError
from tests.train.checkpoint.material import described, saved, trained
from train.checkpoint import Checkpoints
from train.recipe import CheckpointConfig

pytestmark = pytest.mark.torch

FROZEN = Path(__file__).parents[2] / "frozen" / "data"


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"0")


def flip(path: Path, place: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 4
    path.write_bytes(data)


def change_step(path: Path) -> None:
    document = json.loads(path.read_text())
    document["stream"]["batch"] += 1
    path.write_text(json.dumps(document))


DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "tensors cut": ("__0_0.distcp", lambda path: cut(path, 0.5), "__0_0.distcp has"),
    "tensors longer": ("__0_0.distcp", lengthen, "__0_0.distcp has"),
    "tensors empty": ("__0_0.distcp", lambda path: cut(path, 0), "__0_0.distcp has 0 bytes"),
    "tensors missing": ("__0_0.distcp", Path.unlink, "__0_0.distcp is missing"),
    "one bit of a tensor": ("__0_0.distcp", flip, "__0_0.distcp has another checksum"),
    "index cut": (".metadata", lambda path: cut(path, 0.5), ".metadata has"),
    "one bit of the index": (".metadata", flip, ".metadata has another checksum"),
    "index missing": (".metadata", Path.unlink, ".metadata is missing"),
    "description empty": ("meta.json", lambda path: cut(path, 0), "meta.json is no JSON"),
    "description cut": ("meta.json", lambda path: cut(path, 0.5), "meta.json is no JSON"),
    "description of zeros": ("meta.json", lambda path: path.write_bytes(b"\0" * 500) and None, "meta.json is no JSON"),
    "description missing": ("meta.json", Path.unlink, "meta.json is missing"),
    "description changed": ("meta.json", change_step, "meta.json has another checksum"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_whatever_is_damaged_the_newest_whole_checkpoint_before_it_is_used(kind: str, tmp_path: Path) -> None:
    saved(tmp_path, 3, 6, 9)
    name, damage, reason = DAMAGES[kind]
    damage(tmp_path / "step-00000009" / name)
    said: list[str] = []
    found = Checkpoints(tmp_path, CheckpointConfig(), say=said.append).latest()
    assert found is not None
    assert found.step == 6
    (line,) = said
    assert f"{tmp_path / 'step-00000009'} is damaged: {reason}" in line
    assert "trying the checkpoint before it" in line


@pytest.mark.parametrize("kind", DAMAGES)
def test_where_no_checkpoint_is_whole_the_run_does_not_start_again(kind: str, tmp_path: Path) -> None:
    saved(tmp_path, 3)
    name, damage, reason = DAMAGES[kind]
    damage(tmp_path / "step-00000003" / name)
    with pytest.raises(CheckpointError, match=f"step-00000003 is damaged: .*{reason}") as caught:
        Checkpoints(tmp_path, CheckpointConfig()).latest()
    assert "\n" not in str(caught.value)
    assert f"remove {tmp_path}" in caught.value.hint


@pytest.mark.parametrize("place", [0.5, 0.7])
def test_a_damaged_checkpoint_of_an_earlier_release_is_found_too(place: float, tmp_path: Path) -> None:
    shutil.copytree(FROZEN / "mae" / "checkpoints", tmp_path, dirs_exist_ok=True)
    checkpoints = Checkpoints(tmp_path, CheckpointConfig())
    found = checkpoints.latest()
    assert found is not None
    assert (found.step, found.format, found.files) == (6, 1, {})
    flip(tmp_path / "step-00000006" / "__0_0.distcp", place)
    found = Checkpoints(tmp_path, CheckpointConfig()).latest()
    assert found is not None
    assert found.step == 3


def test_a_file_that_the_machine_cannot_read_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = saved(tmp_path, 3, 6)

    def broken(folder: Path, names: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(folder / "__0_0.distcp"))

    monkeypatch.setattr("train.checkpoint.folder.file_sums", broken)
    with pytest.raises(CheckpointError, match=r"cannot read .*step-00000006/__0_0\.distcp: Input/output error"):
        checkpoints.latest()


def test_a_later_format_is_one_line(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 3)
    path = tmp_path / "step-00000003" / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 9}))
    with pytest.raises(CheckpointError, match="has format 9, this release reads up to 2"):
        checkpoints.latest()


def test_a_full_disk_while_saving_is_one_line_and_keeps_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = saved(tmp_path, 3)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileSystemWriter, "write_data", full)
    checkpoints.save(described(6), *trained(2))
    with pytest.raises(CheckpointError, match="the disk is full; the last good one is step-00000003") as caught:
        checkpoints.wait()
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
    found = checkpoints.latest()
    assert found is not None
    assert found.step == 3


def test_a_failed_write_is_seen_before_the_next_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = saved(tmp_path, 3)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(errno.EACCES, "Permission denied")))
    checkpoints.save(described(6), *trained(2))
    assert checkpoints._pending is not None
    checkpoints._pending.exception()
    assert checkpoints.failed
    with pytest.raises(CheckpointError, match="Permission denied"):
        checkpoints.wait()


@pytest.mark.parametrize("rank", [0, 1])
def test_what_an_interrupted_write_left_goes_on_every_node(rank: int, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(), rank=rank)
    left = [tmp_path / f".writing-step-{step:08d}" for step in (10, 20)]
    for folder in left:
        folder.mkdir()
        (folder / "__0_1.distcp").write_bytes(b"of a run that was cut off")
    checkpoints.save(described(20), *trained())
    assert not (left[1] / "__0_1.distcp").exists()  # it would be taken as a part of this checkpoint
    checkpoints.wait()
    assert not any(folder.exists() for folder in left)


def test_damaged_checkpoints_do_not_count_among_those_to_keep(tmp_path: Path) -> None:
    saved(tmp_path, 3, 6, 9, keep_last=3)
    flip(tmp_path / "step-00000009" / "__0_0.distcp")
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(keep_last=2))
    checkpoints.latest()
    checkpoints.save(described(12), *trained(4))
    checkpoints.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000006", "step-00000012"]


def test_a_damaged_checkpoint_is_fetched_again_from_its_mirror(tmp_path: Path) -> None:
    folder, mirror = tmp_path / "run", str(tmp_path / "mirror")
    saved(folder, 3, 6, url=mirror)
    flip(folder / "step-00000006" / "__0_0.distcp")
    found = Checkpoints(folder, CheckpointConfig(url=mirror)).latest()
    assert found is not None
    assert found.step == 6
    assert Checkpoints(folder, CheckpointConfig()).check(6) == found


def test_a_damaged_copy_is_passed_over_as_well(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    saved(tmp_path / "run", 3, 6, url=str(mirror))
    flip(mirror / "step-00000006" / "__0_0.distcp")
    found = Checkpoints(tmp_path / "elsewhere", CheckpointConfig(url=str(mirror))).latest()
    assert found is not None
    assert found.step == 3


def test_files_have_ordinary_modes(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        saved(tmp_path, 3)
    finally:
        os.umask(before)
    for path in (tmp_path / "step-00000003").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o640, path
