"""A file whose name promises another format than its content is read by its content, under `auto` alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from ingest.picture.normalise import to_picture
from ingest.raw.items import RawFile, RejectError
from ingest.readers import ReadOptions, reader_for
from ingest.readers.content import reader_by_content
from tests.ingest.material import encoded, photo
from tests.ingest.readers.fuzz import READERS, seeds

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"


def pictures(data: bytes, name: str, reader: str = "auto") -> list[Any]:
    return [to_picture(image) for image in reader_for(reader, name)(RawFile.of_bytes(data, name), ReadOptions())]


@pytest.mark.parametrize("name", ["IM0001", "a.dcm", "a.nii", "a.nrrd", "a.mha"])
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "TIFF"])
def test_a_picture_under_another_name(name: str, format_: str) -> None:
    data = encoded(photo(1), format_)
    (found,) = pictures(data, name)
    np.testing.assert_array_equal(found, pictures(data, f"a.{format_}")[0])


def test_dicom_under_the_name_of_a_picture() -> None:
    data = (SHIPPED / "CT_small.dcm").read_bytes()
    (found,) = pictures(data, "a.png")
    np.testing.assert_array_equal(found, pictures(data, "a.dcm")[0])


def test_a_reader_that_was_asked_for_by_name_reads_nothing_else() -> None:
    with pytest.raises(RejectError, match="unreadable"):
        pictures(encoded(photo(1)), "IM0001", "dicom")


def test_what_no_content_tells_keeps_its_reason() -> None:
    with pytest.raises(RejectError, match="unreadable"):
        pictures(b"neither one nor the other" * 9, "a.png")
    with pytest.raises(RejectError, match="empty_file"):
        pictures(b"", "a.png")


def test_a_broken_file_of_the_format_that_its_name_says_keeps_its_reason() -> None:
    whole = encoded(photo(1))
    with pytest.raises(RejectError):
        pictures(whole[:40], "a.png")


@pytest.mark.parametrize("reader", [reader for reader in READERS if reader not in ("slide", "hdf5", "video", "dicom")])
def test_first_bytes_name_the_reader(reader: str) -> None:
    said = {reader_by_content(data[:352]) for name, data in seeds(reader) if not name.endswith((".gz", ".npz"))}
    assert said - {"", reader} == set()
    assert reader in said or {name for name, _ in seeds(reader)} <= {"a.bmp", "a.ppm"}


def test_a_preamble_of_a_tiff_does_not_hide_dicom() -> None:
    stream = io.BytesIO((SHIPPED / "CT_small.dcm").read_bytes())
    stream.write(b"II*\0")
    assert reader_by_content(stream.getvalue()) == "dicom"
