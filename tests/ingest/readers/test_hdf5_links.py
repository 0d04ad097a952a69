"""Arrays of an HDF5 file are found by any way inside it, and none outside of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ingest.raw.items import RejectError
from ingest.readers.hdf5_links import own_array
from tests.ingest.material import ingest, photo, public_spec, tables

PIXELS = np.stack([photo(number, channels=1) for number in range(2)])


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim.h5"
    with h5py.File(path, "w") as file:
        file["d"] = PIXELS
    return path


def external_storage(path: Path, victim: Path) -> None:
    raw = victim.with_suffix(".bin")
    raw.write_bytes(PIXELS.tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("images", PIXELS.shape, np.uint8, external=[(str(raw), 0, PIXELS.nbytes)])


def external_link(path: Path, victim: Path) -> None:
    with h5py.File(path, "w") as file:
        file["images"] = h5py.ExternalLink(str(victim), "d")


def external_group(path: Path, victim: Path) -> None:
    with h5py.File(path, "w") as file:
        file["outside"] = h5py.ExternalLink(str(victim), "/")
        file["images"] = h5py.SoftLink("/outside/d")


def virtual_dataset(path: Path, victim: Path) -> None:
    layout = h5py.VirtualLayout(PIXELS.shape, np.uint8)
    layout[:] = h5py.VirtualSource(str(victim), "d", PIXELS.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("images", layout)


def virtual_of_external(path: Path, victim: Path) -> None:
    external_storage(path, victim)
    layout = h5py.VirtualLayout(PIXELS.shape, np.uint8)
    layout[:] = h5py.VirtualSource(".", "inner", PIXELS.shape)
    with h5py.File(path, "r+") as file:
        file.move("images", "inner")
        file.create_virtual_dataset("images", layout)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [external_storage, external_link, external_group, virtual_dataset, virtual_of_external]
)
def test_values_of_other_files_are_refused(tmp_path: Path, victim: Path, make: Any) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    make(raw / "a.h5", victim)
    with h5py.File(raw / "a.h5") as file, pytest.raises(RejectError, match="another file"):
        own_array(file, "images")
    spec = public_spec(layout={"frames": {"dataset": "images"}})
    assert ingest(raw, tmp_path / "dataset", spec).kept == 0
    assert [row["reason"] for row in tables(tmp_path / "dataset")["rejects"]] == ["unsupported"]


def test_ways_inside_the_file_are_followed(tmp_path: Path) -> None:
    layout = h5py.VirtualLayout(PIXELS.shape, np.uint8)
    layout[:] = h5py.VirtualSource(".", "g/d", PIXELS.shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["g/d"] = PIXELS
        file["soft"] = h5py.SoftLink("/g/d")
        file["g/near"] = h5py.SoftLink("d")
        file["folder"] = h5py.SoftLink("g")
        file["hard"] = file["g/d"]
        file.create_virtual_dataset("virtual", layout)
        file["circle"] = h5py.SoftLink("/circle")
        file["nowhere"] = h5py.SoftLink("/gone")
    with h5py.File(tmp_path / "a.h5") as file:
        for name in ("g/d", "/g/d", "soft", "g/near", "folder/near", "hard", "virtual"):
            assert np.array_equal(own_array(file, name)[()], PIXELS), name
        for name in ("circle", "nowhere", "gone", "g", "", "g/d/x"):
            assert own_array(file, name) is None, name


def test_virtual_datasets_that_form_a_circle_end(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, other in (("a", "b"), ("b", "a")):
            layout = h5py.VirtualLayout((4, 4), np.uint8)
            layout[:] = h5py.VirtualSource(".", other, (4, 4))
            file.create_virtual_dataset(name, layout)
    with h5py.File(tmp_path / "a.h5") as file, pytest.raises(RejectError):
        own_array(file, "a")


def test_chunks_of_another_number_of_axes_are_refused(tmp_path: Path) -> None:
    """A dataspace whose number of axes was damaged: libhdf5 does not return from reading it."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=np.zeros((6, 48, 64), np.int16), compression="gzip", chunks=(2, 48, 64))
    sizes = b"".join(size.to_bytes(8, "little") for size in (6, 48, 64))
    data = path.read_bytes()
    at = data.index(sizes) - 8
    assert data[at : at + 2] == b"\x01\x03"  # the version of the message, and the number of axes
    unlimited = b"\xff" * 8  # else the sizes contradict the limits, which follow them
    path.write_bytes(data[: at + 1] + b"\x02" + data[at + 2 : at + 32] + unlimited + data[at + 40 :])
    with h5py.File(path) as file, pytest.raises(RejectError, match="unreadable"):
        own_array(file, "images")
