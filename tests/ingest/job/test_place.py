"""DICOM series as volumes: a real volume, its slices in files of their own, in any order and any place."""

from __future__ import annotations

import errno
import io
import random
from importlib import import_module
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from ingest.job import place
from ingest.job.place import missing_slices, stacks_of
from ingest.job.run import Share, run_job
from ingest.raw.items import RawFile
from ingest.readers.dicom.header import SliceHeader, read_header
from ingest.settings import IngestSettings
from shards.dataset.dataset import Dataset as Shards
from shards.errors import UnavailableError
from tests.ingest.material import ingest, public_spec, shard_bytes, tables, tar_of, write_folder, zip_of

REAL = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)
SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"


@pytest.fixture(scope="module")
def volume() -> Any:
    """`(24, 96, 128)` int16: a real head, its last two slices emptied but for noise."""
    image: Any = nibabel.load(REAL)  # type: ignore[attr-defined]
    slices = np.ascontiguousarray(np.asarray(image.dataobj)[..., 0].T).astype(np.int16)
    slices[-2:] = np.random.default_rng(0).integers(0, 3, slices[-2:].shape)
    return slices


def dicom(pixels: Any, *, z: float | None = 0.0, number: int = 1, series: str = "1.2.3", **more: Any) -> bytes:
    """One slice; `z` in millimetres along the normal of an oblique stack."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.InstanceNumber = "1.2", series, number
    dataset.Modality, dataset.Rows, dataset.Columns = "MR", *pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PixelSpacing = [2, 2]
    if z is not None:
        normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
        dataset.ImageOrientationPatient = list(OBLIQUE)
        dataset.ImagePositionPatient = [round(float(v), 4) for v in normal * z + (7, -3, 11)]
    for name, value in more.items():
        setattr(dataset, name, value)
    dataset.PixelData = np.ascontiguousarray(pixels, "<i2").tobytes()
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def shuffled(volume: Any, **more: Any) -> dict[str, bytes]:
    """The slices under names that say nothing, with instance numbers that lie."""
    names = [f"{i:03d}.dcm" for i in range(len(volume))]
    random.Random(3).shuffle(names)
    return {
        name: dicom(pixels, z=3.0 * z, number=100 - z, **more)
        for z, (name, pixels) in enumerate(zip(names, volume, strict=True))
    }


SPEC = public_spec("mr", "MR", reader="dicom")


def by_frame(dataset: Path) -> dict[str, dict[str, Any]]:
    return {row["raw_frame"]: row for row in tables(dataset)["index"]}


def picture(dataset: Path, row: dict[str, Any]) -> Any:
    data = Shards.open(str(dataset)).store.read_range(row["shard"], row["byte_offset"], row["byte_length"])
    return np.asarray(Image.open(io.BytesIO(data))).astype(float)


@pytest.mark.slow
def test_slices_are_numbered_along_the_normal_and_share_group_and_range(volume: Any, tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", shuffled(volume))
    report = ingest(raw, tmp_path / "d", SPEC)
    assert report.volumes == {
        "series": 1,
        "volumes": 1,
        "slices": 24,
        "mixed_series": 0,
        "repeated_positions": 0,
        "missing_slices": 0,
    }
    assert report.reasons == {"empty_slice": 2}
    rows = by_frame(tmp_path / "d")
    assert sorted(rows) == [f"z{z:04d}" for z in range(22)]
    assert len({row["group_id"] for row in rows.values()}) == 1
    assert len({(row["window_center"], row["window_width"]) for row in rows.values()}) == 1
    low, high = np.percentile(volume, (0.5, 99.5))
    for z in (0, 11, 21):
        row = rows[f"z{z:04d}"]
        assert abs(row["window_width"] - (high - low)) < 0.1 * (high - low)
        expected = np.clip((volume[z] - row["window_center"]) / row["window_width"] * 255 + 127.5, 0, 255)
        assert np.abs(picture(tmp_path / "d", row) - expected).mean() < 1.5
        assert row["raw_path"] in shuffled(volume)


@pytest.mark.slow
@pytest.mark.parametrize("unit_files", [1, 5, 2048])
def test_a_series_in_several_archives_and_units_is_one_volume(volume: Any, tmp_path: Path, unit_files: int) -> None:
    files = shuffled(volume)
    names = sorted(files)
    parts = [{name: files[name] for name in names[start::4]} for start in range(4)]
    places = parts[0] | {"b.zip": zip_of(parts[1]), "c.tar": tar_of(parts[2]), "d.tar.gz": tar_of(parts[3], "w:gz")}
    raw = write_folder(tmp_path / "raw", places)
    report = ingest(raw, tmp_path / "d", SPEC, unit_files=unit_files)
    assert (report.kept, report.volumes["volumes"]) == (22, 1)
    rows = by_frame(tmp_path / "d")
    ranges = {(row["window_center"], row["window_width"]) for row in rows.values()}
    assert sorted(rows) == [f"z{z:04d}" for z in range(22)]
    assert len(ranges) == 1
    wrong = [row["raw_path"] for z, row in rows.items() if files[_name(row)] != files[names_of(volume)[int(z[1:])]]]
    assert wrong == []


def _name(row: dict[str, Any]) -> str:
    path: str = row["raw_path"]
    return path.partition("://")[2].partition("::")[0] or path


def names_of(volume: Any) -> list[str]:
    return list(shuffled(volume))


@pytest.mark.slow
def test_workers_and_shares_make_the_same_bytes(volume: Any, tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", shuffled(volume))
    ingest(raw, tmp_path / "one", SPEC, unit_files=5)
    ingest(raw, tmp_path / "three", SPEC, unit_files=5, workers=3)
    for index in (1, 0):
        report = run_job(
            SPEC,
            str(raw),
            str(tmp_path / "shared"),
            workers=0,
            settings=IngestSettings(unit_files=5),
            share=Share(num_tasks=2, task_index=index),
        )
    assert report.kept == 22
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "three") == shard_bytes(tmp_path / "shared")
    assert len(shard_bytes(tmp_path / "one")) > 0
    assert not list((tmp_path / "shared" / "staging").rglob("*.json"))


@pytest.mark.slow
def test_neighbouring_slices_are_never_near_duplicates_where_files_are_groups(volume: Any, tmp_path: Path) -> None:
    doubled = np.repeat(volume[:20], 2, axis=0)
    doubled[1::2] += np.random.default_rng(1).integers(0, 2, doubled[1::2].shape).astype(np.int16)
    raw = write_folder(tmp_path / "raw", shuffled(doubled))
    assert ingest(raw, tmp_path / "d", SPEC).kept == 40


@pytest.mark.slow
def test_the_frame_rule_counts_slices_of_the_stack(volume: Any, tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", shuffled(volume))
    spec = public_spec("mr", "MR", layout={"reader": "dicom", "frames": {"every": 5}})
    report = ingest(raw, tmp_path / "d", spec)
    assert sorted(by_frame(tmp_path / "d")) == ["z0000", "z0005", "z0010", "z0015", "z0020"]
    assert (report.items, report.reasons) == (24, {"not_chosen": 19})


@pytest.mark.slow
def test_gaps_copies_time_points_and_localizers_are_told_apart(volume: Any, tmp_path: Path) -> None:
    files = {f"a{z:02d}.dcm": dicom(volume[z], z=3.0 * z, number=z) for z in range(20) if z not in (7, 8, 13)}
    files["copy.dcm"] = dicom(volume[4][::-1], z=12.0, number=99)
    turned = {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
    files |= {f"l{z}.dcm": dicom(volume[z].T, z=1.0 * z, number=50 + z, **turned) for z in (0, 1)}
    for t, z in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)):
        pixels = volume[z + 5 * t][:, ::-1]
        files[f"t{t}{z}.dcm"] = dicom(pixels, z=2.0 * z, number=9 * z + t, series="9.9")
    report = ingest(write_folder(tmp_path / "raw", files), tmp_path / "d", SPEC)
    assert report.kept == len(files)
    assert report.volumes == {
        "series": 2,
        "volumes": 3,
        "slices": len(files),
        "mixed_series": 1,
        "repeated_positions": 4,
        "missing_slices": 3,
    }
    frames = {row["raw_path"]: row["raw_frame"] for row in tables(tmp_path / "d")["index"]}
    assert frames["a04.dcm"] == "s00z0004"
    assert frames["copy.dcm"] == "s00t0001z0004"
    assert frames["a09.dcm"] == "s00z0007"
    assert {frames["l0.dcm"], frames["l1.dcm"]} == {"s01z0000", "s01z0001"}
    assert [frames[f"t{t}{z}.dcm"] for t in (0, 1) for z in (0, 1, 2)] == [
        f"t{t:04d}z{z:04d}" for t in (0, 1) for z in (0, 1, 2)
    ]


def test_instance_numbers_order_tomographic_slices_without_geometry(volume: Any, tmp_path: Path) -> None:
    files = {f"{9 - z}.dcm": dicom(volume[z], z=None, number=z) for z in range(8)}
    ingest(write_folder(tmp_path / "raw", files), tmp_path / "d", SPEC)
    frames = {row["raw_path"]: row["raw_frame"] for row in tables(tmp_path / "d")["index"]}
    assert frames == {f"{9 - z}.dcm": f"z{z:04d}" for z in range(8)}


def test_radiographs_of_one_series_are_no_volume(volume: Any, tmp_path: Path) -> None:
    files = {f"{z}.dcm": dicom(volume[z], z=None, number=z, Modality="DX") for z in (3, 9)}
    report = ingest(write_folder(tmp_path / "raw", files), tmp_path / "d", public_spec("x", "X-Ray", reader="dicom"))
    assert report.volumes == {}
    rows = tables(tmp_path / "d")["index"]
    assert {row["raw_frame"] for row in rows} == {""}
    assert len({row["group_id"] for row in rows}) == 2


def test_unequal_pixel_spacing_is_stretched(volume: Any, tmp_path: Path) -> None:
    files = {f"{z}.dcm": dicom(volume[z], z=2.0 * z, PixelSpacing=[2, 1]) for z in range(4)}
    ingest(write_folder(tmp_path / "raw", files), tmp_path / "d", SPEC)
    assert {(row["height"], row["width"]) for row in tables(tmp_path / "d")["index"]} == {(192, 128)}


@pytest.mark.slow
def test_a_killed_job_reads_no_header_twice(volume: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ingest.job.map as module
    import ingest.job.place as series

    raw = write_folder(tmp_path / "raw", shuffled(volume))
    with monkeypatch.context() as broken:
        broken.setattr(module, "map_unit", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            ingest(raw, tmp_path / "d", SPEC)
    staged = [path.read_text() for path in (tmp_path / "d" / "staging").rglob("headers/*.json")]
    assert staged
    assert not any("1.2.3" in text for text in staged)
    monkeypatch.setattr(series, "read_header", _interrupted)
    assert ingest(raw, tmp_path / "d", SPEC).kept == 22


def hide_third(monkeypatch: pytest.MonkeyPatch, module: Any, reader: str) -> None:
    """Let the device fail for the third file whose header, or share of a range, is read."""
    read, calls = getattr(module, reader), iter(range(1_000))

    def broken(raw: RawFile, *more: Any) -> Any:
        if next(calls) == 2:
            raise UnavailableError("OSError EIO", hint="run it again")
        return read(raw, *more)

    monkeypatch.setattr(module, reader, broken)


@pytest.mark.slow
@pytest.mark.parametrize("is_stopped", [True, False])
def test_a_slice_whose_header_cannot_be_read_is_not_stored_beside_its_series(
    volume: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_stopped: bool
) -> None:
    raw = write_folder(tmp_path / "raw", shuffled(volume))
    with monkeypatch.context() as broken:
        hide_third(broken, place, "read_header")
        if is_stopped:
            broken.setattr("ingest.job.run.commit", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                ingest(raw, tmp_path / "d", SPEC, unit_files=5)
        else:
            report = ingest(raw, tmp_path / "d", SPEC, unit_files=5)
            assert (report.kept, report.pending) == (21, 1)
            assert all(frame.startswith("z") for frame in by_frame(tmp_path / "d"))
    report = ingest(raw, tmp_path / "d", SPEC, unit_files=5)
    assert (report.pending, len(tables(tmp_path / "d")["index"])) == (0, 22)
    if is_stopped:  # nothing was committed: all of the series has found its place anew
        ingest(raw, tmp_path / "alone", SPEC, unit_files=5)
        assert shard_bytes(tmp_path / "d") == shard_bytes(tmp_path / "alone")


@pytest.mark.slow
def test_a_range_is_never_that_of_the_slices_that_can_be_read_now(
    volume: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_folder(tmp_path / "raw", shuffled(volume))
    with monkeypatch.context() as broken:
        hide_third(broken, import_module("ingest.readers.dicom.read"), "gray_values")
        report = ingest(raw, tmp_path / "d", SPEC)
    assert (report.kept, report.pending, report.failed) == (0, 24, True)
    assert ingest(raw, tmp_path / "d", SPEC).pending == 0
    ingest(raw, tmp_path / "alone", SPEC)
    assert shard_bytes(tmp_path / "d") == shard_bytes(tmp_path / "alone")


def test_a_header_that_the_device_hides_is_no_lack_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Any:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(RawFile, "head", fail)
    with pytest.raises(UnavailableError):
        read_header(RawFile.of_bytes(b"", "a.dcm"))


def _interrupted(*_: object, **__: object) -> Any:
    raise KeyboardInterrupt


def test_the_shipped_series_of_pydicom_are_put_in_order() -> None:
    headers = []
    for number, path in enumerate(sorted(p for p in SHIPPED.rglob("*") if p.is_file())):
        header = read_header(RawFile.of_bytes(path.read_bytes(), path.name))
        if header is not None:
            headers.append(((0, number), header))
    stacks = list(stacks_of(headers))
    assert sum(len(stack.slices) for stack in stacks) == 74
    for stack in stacks:
        known = [header for _, header, *_ in stack.slices if header.position and header.orientation]
        ways = [np.dot(np.cross(h.orientation[:3], h.orientation[3:]), h.position) for h in known]
        assert ways == sorted(ways)
        assert missing_slices(stack) >= 0


def test_files_that_are_no_slice_have_no_header() -> None:
    assert read_header(RawFile.of_bytes(b"", "a.dcm")) is None
    assert read_header(RawFile.of_bytes(b"\0" * 500, "a.dcm")) is None
    several = Path(pydicom.__file__).parent / "data" / "test_files" / "rtdose.dcm"
    assert read_header(RawFile.of_bytes(several.read_bytes(), "a.dcm")) is None
    whole = dicom(np.zeros((40, 40), np.int16))
    assert read_header(RawFile.of_bytes(whole[: len(whole) - 1000], "cut.dcm")) is not None


@pytest.mark.slow
@pytest.mark.parametrize("both_at_once", [True, False])
def test_a_volume_in_two_formats_is_kept_once(volume: Any, tmp_path: Path, *, both_at_once: bool) -> None:
    """Rows run to the left and columns to the back, as scanners store axial slices; NIfTI says the same in RAS."""
    axial = [1, 0, 0, 0, 1, 0]
    slices = {
        f"dicom/{z:02d}.dcm": dicom(
            pixels, number=z + 1, ImageOrientationPatient=axial, ImagePositionPatient=[0, 0, 3.0 * z]
        )
        for z, pixels in enumerate(volume[:20])
    }
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    stored = nibabel.Nifti1Image(np.ascontiguousarray(volume[:20].transpose(2, 1, 0)), affine)
    nifti = {"nifti/a.nii": bytes(stored.to_bytes())}
    if both_at_once:
        raw = write_folder(tmp_path / "raw", slices | nifti)
        report = ingest(raw, tmp_path / "d", public_spec("mr", "MR"))
        assert (report.kept, report.items) == (20, 40)
        return
    ingest(write_folder(tmp_path / "first", slices), tmp_path / "d", SPEC)
    report = ingest(write_folder(tmp_path / "second", nifti), tmp_path / "d", public_spec("other", "MR"))
    assert (report.kept, report.rejected) == (0, 20)


def test_an_image_of_another_modality_than_the_source_is_tagged_as_its_file_says(volume: Any, tmp_path: Path) -> None:
    files = {"mr.dcm": dicom(volume[9], series="1.2.4"), "pt.dcm": dicom(volume[12], series="1.2.5", Modality="PT")}
    report = ingest(write_folder(tmp_path / "raw", files), tmp_path / "d", SPEC)
    assert report.modalities == {"MR": 1, "NM": 1}


def test_a_secondary_capture_is_no_slice_of_a_scanner(volume: Any, tmp_path: Path) -> None:
    capture = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}
    files = {
        "dose.dcm": dicom(volume[9], series="1.2.4", **capture),
        "film.dcm": dicom(volume[12], series="1.2.5", Modality="CR", **capture),
    }
    report = ingest(write_folder(tmp_path / "raw", files), tmp_path / "d", public_spec("all", "MR"))
    assert report.reasons == {"screen_capture": 1}
    assert report.modalities == {"X-Ray": 1}


NUMBERS = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 0.8, 0.6, 1e-9, 9.9e8]), st.floats(-1e9, 1e9))
HEADERS = st.builds(
    SliceHeader,
    series=st.sampled_from(["a", "b"]),
    tomographic=st.booleans(),
    layout=st.tuples(st.integers(0, 2), st.just(4), st.just(16), st.just(1), st.just(1)),
    orientation=st.one_of(
        st.just(()), st.just(OBLIQUE), st.just((1.0, 0.0, 0.0, 0.0, 1.0, 0.0)), st.tuples(*[NUMBERS] * 6)
    ),
    position=st.one_of(st.just(()), st.tuples(NUMBERS, NUMBERS, NUMBERS)),
    spacing=st.just((1.0, 1.0)),
    order=st.tuples(*[st.integers(0, 2)] * 4),
    instance=st.one_of(st.integers(0, 5), st.integers(-(1 << 63) + 1, (1 << 63) - 1)),
    windowed=st.booleans(),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(HEADERS, max_size=8))
def test_any_headers_become_stacks(headers: list[SliceHeader]) -> None:
    spots = [((0, position), header) for position, header in enumerate(headers)]
    stacks = list(stacks_of(spots))
    placed = [spot for stack in stacks for spot, *_ in stack.slices]
    assert len(placed) == len(set(placed))
    for stack in stacks:
        assert missing_slices(stack) >= 0
        assert len({(z, t) for *_, z, t in stack.slices}) == len(stack.slices)
        assert sorted({z for *_, z, _ in stack.slices}) == list(range(stack.num_positions))
