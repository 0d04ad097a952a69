"""Small real files in the formats of the catalogue's sources, for miniature raw trees: true pixels, a few slices."""

from __future__ import annotations

import gzip
import hashlib
import io
import warnings
from typing import Any, Final, NamedTuple

import numpy as np

from tests.ingest.material import encoded, photo

SLICES: Final = 5
VIDEO_SECONDS: Final = 4
_FORMATS: Final = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "tif": "TIFF", "bmp": "BMP", "pgm": "PPM", "ppm": "PPM"}
_DEEP: Final = ("padchest", "uw-madison-gi")
"""Sources of 16-bit PNG files."""

_DICOM_TAGS: Final = {"CT": "CT", "MR": "MR", "US": "US", "X-Ray": "DX"}


class Small(NamedTuple):
    """A file, and how many images the source's rules make of it."""

    data: bytes
    num_images: int


def small_file(source: str, path: str, *, group: str, modality: str, mask: bool = False) -> Small:
    """The bytes of one file of a source.

    Args:
        source: Id of the source: some have arrays of their own.
        path: Its path in the tree, which says the format and makes its pixels unlike those of any other path.
        group: What the tree says that it belongs to; DICOM files carry it as their study.
        modality: Its tag.
        mask: Whether it is a mask: two values and nothing else.
    """
    seed = int.from_bytes(hashlib.blake2b(f"{source} {path}".encode(), digest_size=4).digest(), "big")
    extension = path.lower().removesuffix(".gz").rpartition(".")[2]
    match extension:
        case "dcm" | "dicom":
            return Small(_dicom(seed, group=group, modality=modality), 1)
        case "nii":
            return Small(gzip.compress(_nifti(_volume(seed)), 1), SLICES)
        case "nrrd":
            return Small(_nrrd(_volume(seed, mask=mask)), SLICES)
        case "npy":
            return _npy(source, seed)
        case "h5" | "hdf5":
            return _hdf5(source, seed, path, mask=mask, frames=group.split(","))
        case "avi" | "mp4":
            return Small(_video(seed, extension), _sampled(source))
        case "gif":
            return Small(encoded(_mask(seed), "GIF"), 1)
        case _:
            return Small(_picture(source, seed, path, mask=mask), 1)


def _picture(source: str, seed: int, path: str, *, mask: bool) -> bytes:
    extension = path.lower().removesuffix(".gz").rpartition(".")[2]
    pixels: Any = photo(seed, height=64, width=72, channels=1 if extension == "pgm" else 3)
    if mask:
        pixels = _mask(seed)
    elif source in _DEEP:
        pixels = photo(seed, height=64, width=72, channels=1).astype(np.uint16) * 200 + 300
    data = encoded(pixels, _FORMATS.get(extension, "PNG"))
    return gzip.compress(data, 1) if path.endswith(".gz") else data


def _mask(seed: int) -> Any:
    """One ellipse, unlike every other one."""
    y, x = np.mgrid[:64, :72]
    top, left, high, wide = np.random.default_rng(seed).uniform(0.2, 0.5, 4) * (64, 72, 64, 72)
    return ((((y - top) / high) ** 2 + ((x - left) / wide) ** 2 < 1) * 255).astype(np.uint8)


def _volume(seed: int, *, mask: bool = False) -> Any:
    """`(48, 40, SLICES)` int16."""
    planes = [
        _mask(seed + n)[:40, :48] if mask else photo(seed + n, height=40, width=48, channels=1) for n in range(SLICES)
    ]
    return np.stack(planes).T.astype(np.int16) * 8 - 900


def _dicom(seed: int, *, group: str, modality: str) -> bytes:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    study = f"1.2.{int.from_bytes(group.encode()[-6:], 'big')}"
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{study}.{seed}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.{seed}.1"
    dataset.Modality, dataset.Rows, dataset.Columns = _DICOM_TAGS[modality], 64, 72
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = (photo(seed, height=64, width=72, channels=1).astype("<u2") * 16).tobytes()
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _nifti(volume: Any) -> bytes:
    import nibabel

    return bytes(nibabel.Nifti1Image(volume, np.diag([0.7, 0.7, 3.0, 1.0])).to_bytes())


def _nrrd(volume: Any) -> bytes:
    sizes = " ".join(map(str, volume.shape))
    head = (
        f"NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: {sizes}\n"
        "space directions: (0.2,0,0) (0,0.07,0) (0,0,0.5)\nkinds: domain domain domain\nendian: little\n"
        "encoding: gzip\nspace origin: (0,0,0)\n\n"
    )
    return head.encode() + gzip.compress(np.asarray(volume, "<i2").tobytes(order="F"), 1)


def _npy(source: str, seed: int) -> Small:
    """A float volume, `(H, W, slices)`, as RP3D-DiagDS ships them."""
    assert source == "rp3d-diagds"
    buffer = io.BytesIO()
    np.save(buffer, np.swapaxes(_volume(seed), 0, 1).astype(np.float32))
    return Small(buffer.getvalue(), SLICES)


def _hdf5(source: str, seed: int, path: str, *, mask: bool, frames: list[str]) -> Small:
    import h5py

    planes = np.moveaxis(_volume(seed, mask=mask), -1, 0).astype(np.float32)
    if source == "patchcamelyon":
        number = len(frames)
        arrays: dict[str, Any] = {
            "y" if mask else "x": np.stack([photo(seed + n, height=96, width=96) for n in range(number)])
        }
    elif source == "fastmri":
        reconstruction = "temptv" if "breast" in path else "reconstruction_rss"
        arrays = {"kspace": np.zeros((SLICES, 2, 8, 8), np.complex64), reconstruction: planes}
        number = SLICES
    else:  # JPEG files as byte strings
        arrays, number = {"ISIC_0000001": np.void(encoded(photo(seed), "JPEG"))}, 1
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        if source == "fastmri":
            file.attrs["patient_id"] = frames[0]
    data = buffer.getvalue()
    return Small(gzip.compress(data, 1) if path.endswith(".gz") else data, number)


def _video(seed: int, extension: str) -> bytes:
    """Four seconds at ten frames per second, a new scene each second."""
    import av

    scenes = [photo(seed + n, height=112, width=112) for n in range(VIDEO_SECONDS)]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=extension) as container:
        codec = "mjpeg" if extension == "avi" else "mpeg4"
        stream = container.add_stream(codec, rate=10)
        stream.width = stream.height = 112
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for scene in scenes:
            for _ in range(10):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(scene, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def _sampled(source: str) -> int:
    """How many frames the source's rule takes out of `VIDEO_SECONDS`."""
    return {"kvasir-capsule": 2, "endo-fm": VIDEO_SECONDS, "echonet-dynamic": VIDEO_SECONDS}[source]
