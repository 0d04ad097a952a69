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
from shards.files import mapped_array, reserve

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
