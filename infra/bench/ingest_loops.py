"""What the ingest benchmark reads: made-up raw data of three formats, and for each the bare loop to compare with.

A bare loop is what somebody would write in an afternoon: read the file, decode, bring the values to 8 bits, resize to
the short side of the policy, encode, with the same libraries at the same settings (of the native policy, with its
resampler). It checks nothing, hashes nothing and keeps nothing.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from ingest.picture.encoding import Encoding
from shards.pixels.resize import resize

SHORT_SIDE_PX = Encoding().short_side_px
JPEG_QUALITY = Encoding().jpeg_quality
MEGAPIXEL = (1152, 864)
SLICES = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """One format.

    Attributes:
        count: Images in a run, unless told otherwise.
        per_file: Images in a file.
        modality: The tag that ingest is told.
        make: Writes so many files into a folder.
        bare: Reads one file and forgets what came out.
        resampler: That of the dataset's policy.
    """

    count: int
    per_file: int
    modality: str
    make: Callable[[Path, int], None]
    bare: Callable[[Path], None]
    resampler: str = "pillow"

    def __call__(self, file: Path) -> float:
        """Processor seconds of the bare loop on one file."""
        started = time.process_time()
        self.bare(file)
        return time.process_time() - started


def encode(image: Image.Image) -> bytes:
    """Reduce to the short side of the policy, and encode."""
    scale = SHORT_SIDE_PX / min(image.size)
    if scale < 1:
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def textures(size: tuple[int, int], channels: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Distinct pictures with detail at several scales: sums of two random cuts out of larger ones."""
    rng = np.random.default_rng(seed)
    width, height = size[0] * 2, size[1] * 2
    sheets = []
    for _ in range(3):
        sheet = np.full((height, width, channels), 64, np.float32)
        for cells in (9, 36, 144, 288, 1152):
            noise = rng.normal(0, 1, (cells * height // width, cells, channels)).astype(np.float32)
            large = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).reshape(sheet.shape)
            sheet += np.asarray(large, np.float32) * (18 / (1 + cells / 200))
        sheets.append(np.clip(sheet, 0, 127).astype(np.uint8))
    while True:
        cuts = []
        for number in rng.choice(3, 2, replace=False):
            top, left = rng.integers(0, size[1]), rng.integers(0, size[0])
            cut = sheets[number][top : top + size[1], left : left + size[0]]
            cuts.append(cut[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))])
        yield np.ascontiguousarray((cuts[0] + cuts[1]).squeeze())


def make_photographs(folder: Path, count: int) -> None:
    """JPEG files of 1 megapixel, quality 90."""
    for number, picture in zip(range(count), textures(MEGAPIXEL, 3, 0), strict=False):
        Image.fromarray(picture).save(folder / f"{number:06d}.jpg", quality=90)


def bare_photograph(path: Path) -> None:
    """Pillow."""
    encode(Image.open(io.BytesIO(path.read_bytes())))


def encode_natively(jpeg: bytes) -> bytes:
    """libjpeg-turbo, the native resampler, libjpeg-turbo."""
    picture = simplejpeg.decode_jpeg(jpeg)
    height, width = picture.shape[:2]
    scale = SHORT_SIDE_PX / min(height, width)
    if scale < 1:
        picture = resize(picture, (round(width * scale), round(height * scale)))
    return bytes(simplejpeg.encode_jpeg(picture, JPEG_QUALITY, colorsubsampling="444"))


def bare_native_photograph(path: Path) -> None:
    """The same without Pillow."""
    encode_natively(path.read_bytes())


def to_8bit(values: NDArray[Any], low: float, high: float) -> Image.Image:
    """Window, rounded and clipped."""
    scaled = (values.astype(np.float32) - low) * (255 / (high - low)) + 0.5
    return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))


def make_radiographs(folder: Path, count: int) -> None:
    """DICOM files of 1 megapixel, 12 bits stored in 16, uncompressed, with a window."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    for number, picture in zip(range(count), textures(MEGAPIXEL, 1, 1), strict=False):
        values = picture.astype(np.uint16) * 16 + (number % 16)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        dataset.Modality, dataset.StudyInstanceUID = "DX", generate_uid(entropy_srcs=[f"study {number}"])
        dataset.PhotometricInterpretation, dataset.SamplesPerPixel, dataset.PixelRepresentation = "MONOCHROME2", 1, 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.Rows, dataset.Columns = values.shape
        dataset.WindowCenter, dataset.WindowWidth = 2048, 3600
        dataset.PixelData = values.tobytes()
        dataset.save_as(folder / f"{number:06d}.dcm", enforce_file_format=True)


def bare_radiograph(path: Path) -> None:
    """pydicom, NumPy, Pillow."""
    import pydicom

    dataset = pydicom.dcmread(path)
    low = float(dataset.WindowCenter) - 0.5 - (float(dataset.WindowWidth) - 1) / 2
    high = low + float(dataset.WindowWidth) - 1
    encode(to_8bit(dataset.pixel_array, low, high))


def make_volumes(folder: Path, count: int) -> None:
    """Compressed NIfTI files, 512 × 512 × 96 voxels of 16 bits, about as noisy as an MR scan."""
    import nibabel

    rng = np.random.default_rng(3)
    pictures = textures((512, 512), 1, 2)
    for number in range(count):
        planes = [next(pictures).T.astype(np.int16) * 4 for _ in range(SLICES)]
        noise = rng.integers(0, 4, (512, 512, 1), dtype=np.int16)
        volume = np.stack(planes, axis=-1) + noise
        image = nibabel.nifti1.Nifti1Image(volume, np.diag([0.5, 0.5, 2.0, 1.0]))  # type: ignore[no-untyped-call]  # has no annotations
        nibabel.loadsave.save(image, folder / f"{number:06d}.nii.gz")


def bare_volume(path: Path) -> None:
    """nibabel, NumPy, Pillow."""
    import nibabel

    image: Any = nibabel.as_closest_canonical(nibabel.loadsave.load(path))  # type: ignore[no-untyped-call]  # has no annotations
    volume = np.asanyarray(image.dataobj)
    sample = volume.ravel(order="K")
    low, high = np.percentile(sample[:: sample.size // (1 << 22) + 1], (0.5, 99.5))
    for number in range(volume.shape[2]):
        encode(to_8bit(np.ascontiguousarray(volume[:, :, number].T[::-1]), float(low), float(high)))


LOOPS = {
    "photographs": Loop(count=2000, per_file=1, modality="Fundus", make=make_photographs, bare=bare_photograph),
    "photographs-native": Loop(
        count=2000,
        per_file=1,
        modality="Fundus",
        make=make_photographs,
        bare=bare_native_photograph,
        resampler="native",
    ),
    "dicom": Loop(count=1000, per_file=1, modality="X-Ray", make=make_radiographs, bare=bare_radiograph),
    "nifti": Loop(count=36 * SLICES, per_file=SLICES, modality="MR", make=make_volumes, bare=bare_volume),
}
