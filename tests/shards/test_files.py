"""Local files: mapped arrays whose room is taken before anything is written into them."""

from __future__ import annotations

import errno
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from infra.bench.soak.places import disk_place
from shards.errors import CheckpointError, ConfigError, ShardError
from shards.files import json_object, mapped_array, naming, parse_json, read_json_object, reserve

WRITES = """
import sys
from pathlib import Path
from shards.files import mapped_array
try:
    made = mapped_array(Path(sys.argv[1]), dtype="uint8", shape=(300 << 20,))  # the disk has 256 MiB
    made[:] = 1
except OSError as error:
    print(error.errno, error.filename)
"""


def test_a_mapped_array_is_a_file_that_numpy_reads(tmp_path: Path) -> None:
    made = mapped_array(tmp_path / "a.npy", dtype=np.float32, shape=(3, 2))
    assert not made.any()
    made[1] = 7
    del made
    assert np.load(tmp_path / "a.npy", allow_pickle=False).tolist() == [[0, 0], [7, 7], [0, 0]]


def test_its_room_is_taken_at_once(tmp_path: Path) -> None:
    mapped_array(tmp_path / "a.npy", dtype=np.uint8, shape=(1 << 20,))
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= 1 << 20
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        reserve(file.fileno(), 0)


@pytest.mark.slow
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    with disk_place(tmp_path) as place:
        if place.disk is None:
            pytest.skip("no disk can be mounted here")
        file = place.disk / "a.npy"
        done = subprocess.run([sys.executable, "-c", WRITES, str(file)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, f"{errno.ENOSPC} {file}\n"), done.stderr
        assert not file.exists()


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe{}", b"[" * 200_000, b'{"a":' * 100_000])
def test_what_is_no_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(data)


@pytest.mark.parametrize("data", [b"", b"[" * 200_000, b"[1, 2]", b"null", b"\x00\x00"])
def test_what_is_no_object_names_its_file(data: bytes) -> None:
    with pytest.raises(ShardError, match=r"^plan.json is damaged: .* — bring it back$"):
        json_object(data, where="plan.json", error=ShardError, hint="bring it back")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(ConfigError, match=f"cannot read {path}"):
            read_json_object(path, error=ConfigError, hint="check the path")
    whole = tmp_path / "whole.json"
    whole.write_text('{"a": 1}')
    assert read_json_object(whole, error=CheckpointError, hint="") == {"a": 1}


def test_what_a_library_does_not_name_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left on device: '/x/y'"), naming(Path("/x/y")):
        raise OSError(errno.ENOSPC, "Error writing bytes to file")
    with pytest.raises(FileNotFoundError) as caught, naming(Path("/x/y")):
        (tmp_path / "nowhere").read_bytes()
    assert caught.value.filename == str(tmp_path / "nowhere")
