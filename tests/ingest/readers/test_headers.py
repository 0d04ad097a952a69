"""Headers of NRRD, MetaImage and DICOM files with any damage: a result, or a reject with a reason."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from ingest.raw.items import RawFile, RejectError
from ingest.readers import RawImage, ReadOptions, reader_for
from ingest.readers.detached import data_names
from ingest.readers.dicom.header import read_header
from ingest.settings import LimitSettings
from tests.mutations import ODD_NUMBERS, error_of, mutated

LIMITS = LimitSettings(decoded_bytes=64 << 20, max_voxels=1 << 20)
VOXELS = np.arange(4 * 3 * 2, dtype="<i2").tobytes()
NRRD = {
    "type": "short",
    "dimension": "3",
    "sizes": "4 3 2",
    "encoding": "raw",
    "endian": "little",
    "kinds": "domain domain domain",
    "space": "left-posterior-superior",
    "space directions": "(1,0,0) (0,1,0) (0,0,2)",
    "spacings": "1 1 2",
    "byte skip": "0",
    "line skip": "0",
}
META = {
    "NDims": "3",
    "DimSize": "4 3 2",
    "ElementType": "MET_SHORT",
    "ElementNumberOfChannels": "1",
    "ElementSpacing": "1 1 2",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "HeaderSize": "0",
    "CompressedData": "False",
    "ElementDataFile": "LOCAL",
}


def nrrd(fields: dict[str, str]) -> bytes:
    return "".join(["NRRD0004\n", *(f"{name}: {value}\n" for name, value in fields.items()), "\n"]).encode() + VOXELS


def meta(fields: dict[str, str]) -> bytes:
    return "".join(f"{name} = {value}\n" for name, value in fields.items()).encode() + VOXELS


def images_or_reject(data: bytes, name: str) -> int:
    """How many pictures a file gives; 0 where it is rejected with a reason."""
    found: list[RawImage] = []
    raw = RawFile.of_bytes(data, name)
    error = error_of(RejectError, lambda: found.extend(reader_for("auto", name)(raw, ReadOptions(limits=LIMITS))))
    assert all(image.pixels.ndim in (2, 3) for image in found)
    assert error is None or error.reason
    return 0 if error else len(found)


def odd_fields(sound: dict[str, str]) -> st.SearchStrategy[dict[str, str]]:
    """The fields with one to three odd values: a number alone, or in one place of a list."""
    number = st.sampled_from(ODD_NUMBERS)
    words = st.sampled_from(
        ["text", "hex", "gzip", "bz2", "float", "double", "MET_FLOAT", "LIST", "a.raw", "True", "none"]
    )
    pattern = st.sampled_from(["s%03d.raw 1 9999999999999999999999 1", "s%03d.raw 1 2 0", "%99999999999d 1 1"])
    several = st.lists(number, min_size=1, max_size=9).map(" ".join)
    vectors = st.lists(st.lists(number, min_size=3, max_size=3).map(",".join), min_size=3, max_size=3)
    value = st.one_of(number, words, pattern, several, vectors.map(lambda three: " ".join(f"({v})" for v in three)))
    changes = st.dictionaries(st.sampled_from([*sound, "data file"]), value, min_size=1, max_size=3)
    return changes.map(lambda changed: {**sound, **changed})


def test_the_files_that_are_damaged_below_are_sound() -> None:
    assert images_or_reject(nrrd(NRRD), "a.nrrd") == 2
    assert images_or_reject(meta(META), "a.mha") == 2


@settings(max_examples=100, deadline=None)
@example({**NRRD, "space directions": "(1e300,1,2) (1,1e300,2) (0,0,1)"})
@example({**NRRD, "space directions": "(1e-320,0,0) (0,1,0) (0,0,nan)"})
@given(odd_fields(NRRD))
def test_odd_fields_of_nrrd(fields: dict[str, str]) -> None:
    images_or_reject(nrrd(fields), "a.nrrd")


@settings(max_examples=100, deadline=None)
@example({**META, "TransformMatrix": "1e300 0 0 0 1e300 0 0 0 1"})
@given(odd_fields(META))
def test_odd_fields_of_metaimage(fields: dict[str, str]) -> None:
    images_or_reject(meta({**fields, "ElementDataFile": fields["ElementDataFile"]}), "a.mha")


@settings(max_examples=80, deadline=None)
@given(st.one_of(mutated(nrrd(NRRD)), st.binary(max_size=200).map(b"NRRD0004\n".__add__)))
def test_damaged_bytes_of_nrrd(data: bytes) -> None:
    images_or_reject(data, "a.nrrd")


@settings(max_examples=80, deadline=None)
@given(st.one_of(mutated(meta(META)), st.binary(max_size=200)))
def test_damaged_bytes_of_metaimage(data: bytes) -> None:
    images_or_reject(data, "a.mha")


@pytest.mark.parametrize("name", sorted(META))
@pytest.mark.parametrize("number", ODD_NUMBERS)
def test_every_odd_number_in_metaimage(name: str, number: str) -> None:
    images_or_reject(meta({**META, name: number}), "a.mha")


@pytest.mark.parametrize("name", sorted(NRRD))
@pytest.mark.parametrize("number", ODD_NUMBERS)
def test_every_odd_number_in_nrrd(name: str, number: str) -> None:
    images_or_reject(nrrd({**NRRD, name: number}), "a.nrrd")
    images_or_reject(nrrd({**NRRD, name: f"4 3 {number}"}), "a.nrrd")


def test_text_values_beyond_their_type_do_no_harm() -> None:
    head = nrrd({**NRRD, "encoding": "text"}).removesuffix(VOXELS)
    assert images_or_reject(head + b"nan inf -inf 1e300 70000 -70000 " + b"1 " * 18, "a.nrrd") == 2
    assert images_or_reject(head + b"1 " * 23, "a.nrrd") == 0


@pytest.mark.parametrize("last", ["99999999999999999999", "9" * 4500, "0"])
def test_absurd_patterns_of_data_files_are_refused(last: str) -> None:
    with pytest.raises(RejectError) as caught:
        data_names(f"a%03d.raw 1 {last}", ())
    assert caught.value.reason == "unreadable"
    assert data_names("a%03d.raw 1 2", ()) == ["a001.raw", "a002.raw"]
    assert data_names(f"a%{'9' * 4500}d 1 2", ()) == [f"a%{'9' * 4500}d 1 2"]


@pytest.mark.timeout(20)
def test_a_long_line_is_no_trap_for_the_search_of_a_pattern() -> None:
    value = "%d" * 4000 + " " * 4000 + "x"
    assert data_names(value, ()) == [value]
    assert data_names("my scan %d.raw  7 5 -1 2", ()) == ["my scan 7.raw", "my scan 6.raw", "my scan 5.raw"]
    assert data_names("%d 1", ()) == ["%d 1"]
    assert data_names("", ()) == [""]


def slice_of_a_series() -> Dataset:
    dataset = Dataset()
    dataset.SeriesInstanceUID, dataset.Modality, dataset.InstanceNumber = "1.2.3", "CT", 4
    dataset.Rows, dataset.Columns, dataset.BitsStored, dataset.PixelRepresentation = 4, 4, 16, 1
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelSpacing, dataset.WindowCenter, dataset.WindowWidth = [1, 1], 40, 400
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 1], [1, 0, 0, 0, 1, 0]
    return dataset


def dicom_bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


@pytest.fixture(scope="module", autouse=True)
def _values_as_they_come() -> Iterator[None]:
    """Writing odd values takes a pydicom that does not check them."""
    mode = pydicom.config.settings.writing_validation_mode
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    yield
    pydicom.config.settings.writing_validation_mode = mode


SLICE = dicom_bytes(slice_of_a_series())


def header_or_none(data: bytes) -> bool:
    header = read_header(RawFile.of_bytes(data, "a.dcm"))
    if header is None:
        return False
    assert all(abs(value) < 1e10 for value in (*header.position, *header.orientation, *header.spacing))
    assert all(abs(value) < 1 << 63 for value in (*header.order, *header.layout))
    return True


def test_the_slice_that_is_damaged_below_is_sound() -> None:
    assert header_or_none(SLICE)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(mutated(SLICE))
def test_damaged_bytes_of_a_dicom_header(data: bytes) -> None:
    header_or_none(data)


@pytest.mark.parametrize("number", ODD_NUMBERS)
@pytest.mark.parametrize(
    ("name", "count"),
    [
        *(("InstanceNumber", 1), ("NumberOfFrames", 1), ("PixelSpacing", 2), ("ImagePositionPatient", 3)),
        *(("ImageOrientationPatient", 6), ("WindowCenter", 1), ("WindowWidth", 1), ("AcquisitionNumber", 1)),
    ],
)
def test_odd_numbers_in_a_dicom_header(name: str, count: int, number: str) -> None:
    text = "\\".join([number] * count).encode()
    text += b" " * (len(text) % 2)
    tag = pydicom.tag.Tag(name)
    kind = b"DS" if count > 1 or name.startswith("Window") else b"IS"
    element = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + kind
    dataset = slice_of_a_series()
    dataset.pop(tag, None)
    before = Dataset({element.tag: element for element in dataset if element.tag < tag})
    after = Dataset({element.tag: element for element in dataset if element.tag > tag})
    middle = element + len(text).to_bytes(2, "little") + text
    header_or_none(dicom_bytes(before) + middle + dicom_bytes(after))
