"""Files that hold several arrays: all that are images are taken, and what is not taken is told."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import h5py  # loading it asks the system what machine this is, by a process
import numpy as np
import pytest

from ingest.raw.items import RawFile, RejectError
from ingest.readers import RawImage, ReadOptions, reader_for
from ingest.readers.arrays import TAKEN, images_of, is_mask_name, named_arrays, verdict_of
from ingest.source.layout import FrameRule
from shards.errors import MachineError
from tests.ingest.material import ingest, photo, public_spec, tables


def stack(seed: int, count: int = 2) -> Any:
    return np.stack([photo(seed + number, channels=1) for number in range(count)])


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def hdf5(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return buffer.getvalue()


def read(data: bytes, *dataset: str) -> list[RawImage]:
    name = "a.npz" if data[:2] == b"PK" else "a.h5"
    return list(reader_for("auto", name)(RawFile.of_bytes(data, name), ReadOptions(frames=FrameRule(dataset=dataset))))


def told(images: list[RawImage]) -> list[tuple[str, str]]:
    return [(image.frame, image.fault) for image in images]


BOTH = pytest.mark.parametrize("pack", [npz, hdf5])


@pytest.mark.parametrize(
    "name",
    [
        *("mask", "train_masks", "MASK", "trainMask", "Mask2", "gt", "imgGT", "gt_1", "groundTruth", "ground_truth"),
        *("labels", "ct.label", "a/seg/b", "segmentation_map", "labelmap", "segmask", "target", "T1seg", "SEG1"),
    ],
)
def test_words_for_masks_are_known_in_every_spelling(name: str) -> None:
    assert is_mask_name(name)


@pytest.mark.parametrize(
    "name", ["unlabeled", "labeled_images", "Unlabelled", "segment_ct", "masked", "targeted", "length", "upsegs", "ct"]
)
def test_words_that_only_hold_such_a_word_are_others(name: str) -> None:
    assert not is_mask_name(name)


@pytest.mark.parametrize(
    ("shape", "verdict"),
    [
        ((5, 96, 100), TAKEN),
        ((96, 100), TAKEN),
        ((5, 96, 100, 3), TAKEN),
        ((5, 3, 96, 100), TAKEN),
        ((5, 1, 96, 100), TAKEN),
        ((1, 96, 100), TAKEN),
        ((5, 96, 100, 1), TAKEN),
        ((), None),
        ((100,), None),
        ((100, 1), None),
        ((100, 1, 1, 1), None),
        ((100, 1, 20), None),
        ((0, 96, 100), None),
    ],
)
def test_the_shape_tells_arrays_of_images(shape: tuple[int, ...], verdict: Any) -> None:
    assert verdict_of("x", shape, np.dtype(np.int16)) == verdict
    assert verdict_of("x", shape, np.dtype(object)) is None


@BOTH
def test_all_arrays_of_images_are_taken_and_the_frames_tell_them_apart(pack: Any) -> None:
    data = pack(ct=stack(0), mr=stack(9), names=np.arange(3))
    found = read(data)
    assert [image.frame for image in found] == [f"array{n}-f{m:06d}" for n in (0, 1) for m in (0, 1)]
    np.testing.assert_array_equal([image.pixels for image in found], [*stack(0), *stack(9)])


@BOTH
def test_a_list_takes_these_arrays_and_no_others(pack: Any) -> None:
    data = pack(ct=stack(0), mr=stack(9), pet=stack(20), gt=stack(30))
    found = read(data, "pet", "ct", "gone", "ct")
    np.testing.assert_array_equal([image.pixels for image in found], [*stack(20), *stack(0)])
    assert told(found) == [(f"array{n}-f{m:06d}", "") for n in (3, 0) for m in (0, 1)]
    assert told(read(data, "gt")) == [("f000000", ""), ("f000001", "")]
    with pytest.raises(RejectError, match="no such array"):
        read(data, "gone")


@BOTH
def test_masks_are_rejects_and_unlabeled_images_are_images(pack: Any) -> None:
    found = read(pack(images=stack(0, 1), unlabeled=stack(5, 1), gt=stack(9, 1)))
    assert told(found) == [("array0", "other_object"), ("images-f000000", ""), ("array-f000000", "")]


@BOTH
def test_complex_numbers_are_told(pack: Any) -> None:
    found = read(pack(coils=stack(0).astype(np.complex64), images=stack(1, 1)))
    assert told(found)[0] == ("array0", "unsupported")
    assert len(found) == 2


def test_arrays_in_folders_of_hdf5_are_taken() -> None:
    names = [f"patient{number}/scan/data" for number in range(2)]
    data = hdf5(**{name: stack(10 * number) for number, name in enumerate(names)})
    assert len(read(data)) == len(read(data, *names)) == 4
    np.testing.assert_array_equal([image.pixels for image in read(data)], [*stack(0), *stack(10)])
    assert len({image.frame for image in read(data)}) == 4


def test_of_a_k_space_and_its_reconstructions_one_is_taken() -> None:
    kspace = np.fft.fft2(stack(0)).astype(np.complex64)
    forms = {"kspace": kspace, "reconstruction_esc": stack(0), "reconstruction_rss": stack(1)}
    found = read(hdf5(**forms))
    assert told(found) == [("array1", "other_object"), ("f000000", ""), ("f000001", "")]
    np.testing.assert_array_equal([image.pixels for image in found[1:]], stack(1))
    assert len(read(hdf5(kspace=kspace))) == 2
    apart = read(hdf5(**{"a/kspace": kspace, "b/reconstruction_rss": stack(0)}))
    assert told(apart) == [(f"array{n}-f{m:06d}", "") for n in (0, 1) for m in (0, 1)]


def test_an_array_that_cannot_be_read_costs_itself_alone() -> None:
    data = npz(a=stack(0), b=stack(9))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        offset = archive.getinfo("a.npy").header_offset
    broken = data[: offset + 8000] + bytes(200) + data[offset + 8200 :]
    assert told(read(broken)) == [("array0", "undecodable"), ("array1-f000000", ""), ("array1-f000001", "")]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", b"no array")
        archive.writestr("notes.txt", b"no array either")
        archive.writestr("b.npy", zipfile.ZipFile(io.BytesIO(data)).read("b.npy"))
    assert told(read(buffer.getvalue())) == [("array0", "unreadable"), ("array-f000000", ""), ("array-f000001", "")]


def test_the_values_of_all_arrays_count_against_the_size_of_an_hdf5_file() -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for number in range(3):
            file.create_dataset(f"a{number}", (30, 1000, 1000), np.uint8, chunks=(1, 1000, 1000))
    rule = FrameRule(max_frames=1)
    raw = RawFile.of_bytes(buffer.getvalue(), "a.h5")
    found = list(reader_for("auto", "a.h5")(raw, ReadOptions(frames=rule)))
    assert [image.fault for image in found] == ["", "", "decompression_bomb"]


def test_an_error_of_the_machine_is_none_of_the_array() -> None:
    def fail(_: Any) -> Any:
        raise MachineError("no space")
        yield

    arrays = named_arrays(["a", "b"], {"a": TAKEN, "b": TAKEN}, is_one=False)
    with pytest.raises(MachineError):
        list(images_of(arrays, fail))
    with pytest.raises(RejectError, match="no_image"):
        list(images_of([], fail))


@pytest.mark.slow
def test_a_job_counts_every_array(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.h5").write_bytes(hdf5(ct=stack(0), mr=stack(9), gt=stack(20)))
    (raw / "b.npz").write_bytes(npz(ct=stack(30), mr=stack(40), gt=stack(50)))
    report = ingest(raw, tmp_path / "d", public_spec())
    assert (report.files, report.kept, report.reasons) == (2, 8, {"other_object": 2})
    rows = tables(tmp_path / "d")["index"]
    assert len({(row["raw_path"], row["raw_frame"]) for row in rows}) == 8
