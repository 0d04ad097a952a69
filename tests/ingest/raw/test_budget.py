"""Nothing is allocated beyond the budget of decoded bytes: hostile files are rejects, and memory stays small."""

from __future__ import annotations

import gzip
import io
import resource
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

from ingest.raw.budget import claim, claim_array
from ingest.raw.items import RawFile, RejectError
from ingest.readers import ReadOptions, reader_for
from ingest.settings import LimitSettings
from tests.ingest.material import encoded, photo

BUDGET = 16 << 20
OPTIONS = ReadOptions(limits=LimitSettings(decoded_bytes=BUDGET, max_ratio=1e9))


def reason(name: str, data: bytes) -> str:
    """Why the first image of a file is not given; empty where it is."""
    raw = RawFile.of_bytes(data, name)
    try:
        for image in reader_for("auto", raw.name)(raw, OPTIONS):
            if image.fault:
                return image.fault
    except RejectError as error:
        return error.reason
    return ""


def test_claims() -> None:
    limits = LimitSettings(decoded_bytes=1 << 20)
    claim(1 << 20, limits, "x")
    claim_array((1 << 9, 1 << 9), np.dtype(np.float32), limits, "x")
    with pytest.raises(RejectError, match="over_budget"):
        claim((1 << 20) + 1, limits, "x")
    with pytest.raises(RejectError, match="over_budget"):
        claim_array((1 << 40, 1 << 40, 1 << 40), 8, limits, "x", copies=2)
    with pytest.raises(RejectError, match="over_budget"):
        claim_array((1 << 9, 1 << 9), 4, limits, "x", copies=1.01)


def png(side: int, colour: int = 2) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def tiff(width: int, height: int, *, samples: int = 1, bits: int = 8, following: int = 0) -> bytes:
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 0, 277: samples, 278: height, 279: 0}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", following)


def gif(side: int) -> bytes:
    frame = b"\x21\xf9\x04\x08\x01\0\0\0" + b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frame * 9 + b"\x3b"


def dicom(syntax: str = ExplicitVRLittleEndian, pixels: bytes = bytes(64 * 64), **values: object) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2"
    defaults = {"Rows": 64, "Columns": 64, "SamplesPerPixel": 1, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    fixed = {"SOPClassUID": CTImageStorage, "Modality": "CT", "PhotometricInterpretation": "MONOCHROME2"}
    for name, value in {**fixed, **defaults, "PixelRepresentation": 0, "PixelData": pixels, **values}.items():
        setattr(dataset, name, value)
    dataset["PixelData"].VR = "OB"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def j2k(side: int) -> bytes:
    data = encoded(photo(1, height=64, width=64, channels=1), "JPEG2000", no_jp2=True)
    at = data.index(b"\xff\x51")
    return data[: at + 6] + struct.pack(">IIIIIIII", side, side, 0, 0, side, side, 0, 0) + data[at + 38 :]


def jpeg(side: int) -> bytes:
    data = encoded(photo(1, height=64, width=64, channels=1), "JPEG")
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", side, side) + data[at + 9 :]


def deflated_dicom() -> bytes:
    whole = dicom(DeflatedExplicitVRLittleEndian)
    at = whole.index(b"\x02\0\0\0UL\x04\0")
    start = at + 12 + struct.unpack_from("<L", whole, at + 8)[0]
    inflated = zlib.decompress(whole[start:], -15)
    packer = zlib.compressobj(9, wbits=-15)
    return whole[:start] + packer.compress(inflated + bytes(64 << 20)) + packer.flush()


def nifti(shape: tuple[int, ...], kind: type = np.uint8, *, cut: int | None = None) -> bytes:
    data = bytearray(nibabel.Nifti1Image(np.zeros((4, 4, 2), kind), np.eye(4)).to_bytes())
    data[40:56] = struct.pack("<8h", len(shape), *shape, *[1] * (7 - len(shape)))
    return bytes(data[:cut])


def hdf5(shape: tuple[int, ...], kind: type = np.uint8, chunks: tuple[int, ...] | None = None) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("images", shape, kind, chunks=chunks or tuple(min(64, side) for side in shape))
    return buffer.getvalue()


def npy(shape: str) -> bytes:
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head.encode() + bytes(99)


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=np.zeros((40, 1000, 1000), np.uint8))
    return buffer.getvalue()


HOSTILE: dict[str, Callable[[], tuple[str, bytes]]] = {
    "png": lambda: ("a.png", png(8000)),
    "png with transparency": lambda: ("a.png", png(1600, 6)),
    "gif": lambda: ("a.gif", gif(2000)),
    "j2k": lambda: ("a.j2k", j2k(3000)),
    "tiff": lambda: ("a.tif", tiff(8000, 8000)),
    "tiff of many samples": lambda: ("a.tif", tiff(1000, 1000, samples=64)),
    "dicom": lambda: ("a.dcm", dicom(Rows=8000, Columns=8000)),
    "dicom of deep pixels": lambda: ("a.dcm", dicom(Rows=2000, Columns=2000, BitsAllocated=32)),
    "deflated dicom": lambda: ("a.dcm", deflated_dicom()),
    "nifti": lambda: ("a.nii", nifti((256, 256, 300)) + bytes(256 * 256 * 300)),
    "packed nifti": lambda: ("a.nii.gz", gzip.compress(nifti((4, 4, 2)) + bytes(64 << 20))),
    "nrrd": lambda: ("a.nrrd", b"NRRD0004\ntype: double\ndimension: 3\nsizes: 600 600 600\nencoding: raw\n\n"),
    "nrrd that skips bytes": lambda: ("a.nrrd", NRRD + b"encoding: gzip\nbyte skip: 99999999999\n\n"),
    "mha": lambda: ("a.mha", MHA + b"DimSize = 600 600 600\nElementDataFile = LOCAL\n"),
    "hdf5": lambda: ("a.h5", hdf5((4, 4000, 4000), np.float32)),
    "hdf5 of one huge chunk": lambda: ("a.h5", hdf5((5000, 5000), chunks=(5000, 5000))),
    "npy": lambda: ("a.npy", npy("(100000, 16000, 16000)")),
    "npz": lambda: ("a.npz", npz()),
}
NRRD = b"NRRD0004\ntype: uchar\ndimension: 2\nsizes: 64 64\n"
MHA = b"NDims = 3\nElementType = MET_DOUBLE\n"

BROKEN: dict[str, Callable[[], tuple[str, bytes]]] = {
    "a TIFF whose directory follows itself": lambda: ("a.tif", tiff(64, 64, following=8)),
    "a NIfTI shorter than its header says": lambda: ("a.nii", nifti((200, 200, 9), cut=400)),
    "a frame of J2K larger than the DICOM says": lambda: ("a.dcm", dicom(JPEG2000Lossless, encapsulate([j2k(9000)]))),
    "a frame of JPEG larger than the DICOM says": lambda: ("a.dcm", dicom(JPEGBaseline8Bit, encapsulate([jpeg(9000)]))),
    "a palette of more entries than there can be": lambda: ("a.dcm", palette_bomb()),
    "more lines to skip than there are": lambda: (
        "a.nrrd",
        NRRD + b"encoding: raw\nline skip: 999999999\n\n" + bytes(9),
    ),
    "an array shorter than its header says": lambda: ("a.npy", npy("(100, 200)")),
    "samples that are none": lambda: ("a.dcm", dicom(SamplesPerPixel=65535)),
}


def palette_bomb() -> bytes:
    segments = struct.pack("<HHH", 0, 1, 0) + struct.pack("<HHH", 1, 65535, 5) * 5000
    colours = {f"{colour}PaletteColorLookupTableDescriptor": [256, 0, 16] for colour in ("Red", "Green", "Blue")}
    tables = {f"Segmented{colour}PaletteColorLookupTableData": segments for colour in ("Red", "Green", "Blue")}
    return dicom(PhotometricInterpretation="PALETTE COLOR", **colours, **tables)


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_header_tells_is_claimed_before_it_is_allocated(name: str) -> None:
    file, data = HOSTILE[name]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        assert reason(file, data) == "over_budget"
        assert tracemalloc.get_traced_memory()[1] < 2 * BUDGET + 4 * len(data)
    finally:
        tracemalloc.stop()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_arrays_that_were_never_written_are_no_data() -> None:
    raw = RawFile.of_bytes(hdf5((64, 2000, 2000)), "a.h5")
    with pytest.raises(RejectError, match="decompression_bomb"):
        list(reader_for("auto", raw.name)(raw, ReadOptions()))


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_lie_about_themselves_end_early(name: str) -> None:
    file, data = BROKEN[name]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason(file, data) in ("unreadable", "undecodable")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_files_within_the_budget_are_read() -> None:
    pixels = photo(3)
    gray = pixels[..., 0]
    stack = io.BytesIO()
    Image.fromarray(gray).save(stack, "TIFF", save_all=True, append_images=[Image.fromarray(gray)] * 3)
    moving = io.BytesIO()
    Image.fromarray(gray).save(moving, "GIF", save_all=True, append_images=[Image.fromarray(255 - gray)])
    volume = nibabel.Nifti1Image(np.stack([gray] * 3, -1).astype(np.int16), np.eye(4)).to_bytes()
    h5 = io.BytesIO()
    with h5py.File(h5, "w") as file:
        file["images"] = np.stack([gray] * 2).astype(np.float32)
    files = {
        **{f"a.{format_.lower()}": encoded(pixels, format_) for format_ in ("PNG", "JPEG", "TIFF", "BMP", "WEBP")},
        "a.jp2": encoded(pixels, "JPEG2000"),
        "b.tif": stack.getvalue(),
        "b.gif": moving.getvalue(),
        "a.nii": volume,
        "a.nii.gz": gzip.compress(volume) + b"trailing garbage",
        "a.h5": h5.getvalue(),
        "a.dcm": dicom(pixels=photo(1, height=64, width=64, channels=1).tobytes()),
        "b.dcm": dicom(DeflatedExplicitVRLittleEndian, photo(1, height=64, width=64, channels=1).tobytes()),
        "c.dcm": dicom(JPEG2000Lossless, encapsulate([j2k(64)])),
    }
    assert {name: reason(name, data) for name, data in files.items()} == dict.fromkeys(files, "")
    assert pydicom.dcmread(io.BytesIO(files["b.dcm"])).Rows == 64
    assert zipfile.is_zipfile(io.BytesIO(npz()))
