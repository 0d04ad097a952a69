"""Mutations of real files through every reader: nothing may crash, hang or give a picture that is none.

    python -m tests.ingest.readers.fuzz --seconds 60 [READER …]

A reader may raise any exception on a broken file, because the job turns it into a reject. What it must not do: end the
process, run for more than `HANG_SECONDS` on one small file, or give an image that cannot become an 8-bit picture. Each
reader runs in a process of its own; mutations follow from the seed and their number, so a finding can be repeated.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import random
import resource
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

HANG_SECONDS: Final = 30
MOST_BYTES: Final = 6 << 30
"""Address space of a process that fuzzes."""

READERS: Final = ("images", "dicom", "nifti", "nrrd", "metaimage", "hdf5", "numpy", "video", "slide")
INTERESTING: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def real_volume() -> Any:
    """`(64, 48, 6)` int16: a part of the head that nibabel ships."""
    import nibabel

    path = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
    image: Any = nibabel.load(path)  # type: ignore[attr-defined]
    return np.ascontiguousarray(np.asarray(image.dataobj)[32:96, 24:72, 9:15, 0]).astype(np.int16)


def seeds(reader: str) -> list[tuple[str, bytes]]:
    """Small sound files of a reader's formats, as `(name, bytes)`."""
    return list(_SEEDS[reader]())


def _pictures() -> Iterator[tuple[str, bytes]]:
    import tifffile
    from PIL import Image

    gray = (real_volume()[..., 3].T >> 4).clip(0, 255).astype(np.uint8)
    colour = np.dstack([gray, gray[::-1], gray[:, ::-1]])
    for kind, options in (
        *(("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("WEBP", {}), ("JPEG2000", {})),
        *(("BMP", {}), ("PPM", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})),
    ):
        buffer = io.BytesIO()
        Image.fromarray(colour).save(buffer, kind, **options)
        yield f"a.{kind.lower()}", buffer.getvalue()
    for options in ({"imagej": True, "truncate": True}, {"photometric": "minisblack"}):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, np.ascontiguousarray(real_volume().T).astype(np.uint16), **options)
        yield "b.tiff", buffer.getvalue()


def _dicoms() -> Iterator[tuple[str, bytes]]:
    import pydicom

    from tests.ingest.readers.test_dicom_videos import WAYS, dicom, film

    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    for path in sorted(folder.glob("*.dcm")):
        if path.stat().st_size < 64 << 10:
            yield path.name, path.read_bytes()
    for syntax, codec, container_format in WAYS.values():
        yield "video.dcm", dicom(syntax, film(codec, container_format), fragments=3)


def _niftis() -> Iterator[tuple[str, bytes]]:
    import gzip

    import nibabel

    data = bytes(nibabel.Nifti1Image(real_volume(), np.diag([-2.0, 2.0, 3.0, 1.0])).to_bytes())
    yield "a.nii", data
    yield "a.nii.gz", gzip.compress(data, mtime=0)


def _nrrds() -> Iterator[tuple[str, bytes]]:
    volume = real_volume()
    head = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: LPS\nsizes: 64 48 6\nspace directions: (2,0,0) (0,2,0) (0,0,3)\n"
        "kinds: domain domain domain\nendian: little\nencoding: "
    )
    flat = volume.tobytes(order="F")
    yield "a.nrrd", f"{head}raw\n\n".encode() + flat
    yield "b.nrrd", f"{head}gzip\n\n".encode() + zlib.compress(flat, wbits=31)
    yield "c.nrrd", f"{head}ascii\n\n".encode() + b" ".join(b"%d" % value for value in volume.ravel(order="F")[:999])


def _metaimages() -> Iterator[tuple[str, bytes]]:
    flat = real_volume().tobytes(order="F")
    for packed, data in ((False, flat), (True, zlib.compress(flat))):
        head = (
            f"ObjectType = Image\nNDims = 3\nBinaryDataByteOrderMSB = False\nCompressedData = {packed}\n"
            "TransformMatrix = 1 0 0 0 1 0 0 0 1\nElementSpacing = 2 2 3\nDimSize = 64 48 6\n"
            "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        )
        yield "a.mha", head.encode() + data


def _hdf5s() -> Iterator[tuple[str, bytes]]:
    import h5py

    for options in ({}, {"compression": "gzip", "chunks": (2, 48, 64)}):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file.create_dataset("images", data=np.ascontiguousarray(real_volume().T), **options)
        yield "a.h5", buffer.getvalue()


def _arrays() -> Iterator[tuple[str, bytes]]:
    for save in (np.save, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, np.ascontiguousarray(real_volume().T))
        yield ("a.npy" if save is np.save else "a.npz"), buffer.getvalue()


def _videos() -> Iterator[tuple[str, bytes]]:
    import av

    gray = (real_volume().T >> 4).clip(0, 255).astype(np.uint8)
    for container_format, codec in (("matroska", "mpeg4"), ("avi", "mjpeg"), ("mp4", "mpeg4")):
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=container_format) as container:
            stream = container.add_stream(codec, rate=2)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for plane in gray:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.dstack([plane] * 3), format="rgb24")))
            container.mux(stream.encode())
        yield f"a.{container_format}", buffer.getvalue()


def _slides() -> Iterator[tuple[str, bytes]]:
    import tifffile

    plane = (real_volume()[..., 3].T >> 4).clip(0, 255).astype(np.uint8)
    whole = np.tile(np.dstack([plane, plane[::-1], plane]), (12, 9, 1))
    for compression in ("jpeg", "zlib"):
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as tiff:
            tiff.write(whole, tile=(128, 128), photometric="rgb", compression=compression, metadata=None)
        yield "a.svs", buffer.getvalue()


_SEEDS: Final[dict[str, Callable[[], Iterator[tuple[str, bytes]]]]] = {
    "images": _pictures,
    "dicom": _dicoms,
    "nifti": _niftis,
    "nrrd": _nrrds,
    "metaimage": _metaimages,
    "hdf5": _hdf5s,
    "numpy": _arrays,
    "video": _videos,
    "slide": _slides,
}


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to eight small changes: most of them near the start, where headers are."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        near = chance.random() < 0.7
        at = chance.randrange(min(len(out), 1024) if near else len(out)) if out else 0
        match chance.randrange(6):
            case 0:
                out[at : at + 1] = bytes([out[at] ^ (1 << chance.randrange(8))]) if out else b""
            case 1:
                out[at : at + 1] = bytes([chance.randrange(256)])
            case 2:
                size = chance.choice((1, 2, 4))
                value = chance.choice(INTERESTING) & ((1 << 8 * size) - 1)
                out[at : at + size] = value.to_bytes(size, chance.choice(("little", "big")))
            case 3:
                del out[at : at + chance.choice((1, 2, 4, 16, 256))]
            case 4:
                out[at:at] = out[at : at + chance.choice((1, 4, 16, 256))]
            case _:
                del out[chance.randrange(len(out) + 1) :]
                return bytes(out)
    return bytes(out)


def try_file(reader: str, name: str, data: bytes) -> str:
    """Read a file as a job would; what is wrong with its images, or nothing."""
    from ingest.picture.normalise import to_picture
    from ingest.raw.items import RawFile
    from ingest.readers import ReadOptions, reader_for
    from ingest.settings import LimitSettings

    limits = LimitSettings(max_pixels=1 << 22, max_voxels=1 << 24, max_file_bytes=1 << 26)
    images = []
    try:
        for image in reader_for(reader, name)(RawFile.of_bytes(data, name), ReadOptions(limits=limits)):
            images.append(image)
            if len(images) >= 64:
                break
    except Exception:  # noqa: BLE001  # the job makes a reject of it
        pass
    for image in images:
        if image.fault:
            continue
        try:
            picture = to_picture(image)
        except Exception as error:  # noqa: BLE001  # what is looked for
            return f"{type(error).__name__} from an image of {image.pixels.shape} {image.pixels.dtype}"
        if picture.ndim not in (2, 3) or picture.size == 0:
            return f"an image of shape {picture.shape}"
    return ""


def run(reader: str, *, seconds: float, iterations: int, seed: int) -> int:
    """Fuzz one reader in this process; the number of findings, each printed."""
    from ingest.privacy.silence import silence

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    sound, end, findings, number = seeds(reader), time.monotonic() + seconds, 0, 0
    with silence():
        for name, data in sound:
            findings += _report(reader, seed, -1, name, try_file(reader, name, data))
        while number < iterations and time.monotonic() < end:
            chance = random.Random(f"{reader} {seed} {number}")
            name, data = sound[number % len(sound)]
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
            print(f"at {number}", file=sys.stderr, flush=True)
            findings += _report(reader, seed, number, name, try_file(reader, name, mutated(data, chance)))
            faulthandler.cancel_dump_traceback_later()
            number += 1
    print(f"{reader}: {number} mutations of {len(sound)} files, {findings} findings", flush=True)
    return findings


def _report(reader: str, seed: int, number: int, name: str, finding: str) -> int:
    if finding:
        print(f"{reader} --seed {seed} mutation {number} of {name}: {finding}", flush=True)
    return bool(finding)


def fuzz(readers: list[str], *, seconds: float, iterations: int, seed: int) -> list[str]:
    """Fuzz each reader in a process of its own; the readers that failed."""
    failed = []
    for reader in readers:
        words = ["--worker", "--seconds", str(seconds), "--iterations", str(iterations), "--seed", str(seed), reader]
        command = [sys.executable, "-m", "tests.ingest.readers.fuzz", *words]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines()
            last = next((line for line in reversed(said) if line.startswith("at ")), "before the first")
            print(f"{reader}: exit {done.returncode} {last}; " + " | ".join(said[-6:]), flush=True)
            failed.append(reader)
    return failed


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", default=READERS)
    parser.add_argument("--seconds", type=float, default=60, help="per reader")
    parser.add_argument("--iterations", type=int, default=1 << 40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        return min(1, run(given.readers[0], seconds=given.seconds, iterations=given.iterations, seed=given.seed))
    return len(fuzz(list(given.readers), seconds=given.seconds, iterations=given.iterations, seed=given.seed))


if __name__ == "__main__":
    sys.exit(main())
