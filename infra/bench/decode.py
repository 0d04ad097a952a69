"""CPU time of decoding: our decoders against torchvision and Pillow, on the same images with the same crop boxes.

    python -m infra.bench.decode --images FOLDER            # JPEGs are made from the pictures and DICOM files there
    python -m infra.bench.decode --jpegs FOLDER             # JPEGs are taken as they are
    python -m infra.bench.decode --json                     # pictures that installed packages ship

Workloads: A is RandomResizedCrop 224 and a flip, B is resizing the short side to 224 and the centre, M is DINOv2's
two crops of 224 and eight of 96. Everything runs in one thread; the figure is CPU milliseconds an image (which is CPU
seconds per 1000 images), the median over interleaved rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from shards.decode import Crops, Decoder, describe_decoder, open_decoder
from shards.decode.boxes import crop_boxes
from shards.errors import BiovfmError, ConfigError

Picture = NDArray[np.uint8]
Run = Callable[[Sequence[bytes], Sequence[Crops]], None]

WORKLOADS: Final = {
    "A": (Crops(),),
    "B": (Crops(kind="center"),),
    "M": (Crops(num=2, scale=(0.32, 1.0)), Crops(num=8, size_px=96, scale=(0.05, 0.32))),
}
CHUNK: Final = 32
_PICTURES: Final = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
_PACKAGES: Final = ("skimage/data", "pydicom/data/test_files", "sklearn/datasets/images", "nibabel/nicom/tests/data")


def make_corpus(folders: Sequence[Path], count: int, seed: int) -> list[bytes]:
    """JPEGs of quality 90, 0.25 megapixels and some 45 kB on average, cut at random out of real pictures."""
    rng = np.random.default_rng(seed)
    pictures = list(_pictures(folders))
    if not pictures:
        raise ConfigError("no pictures were found for the benchmark", hint="give a folder of them with --images")
    return [_cut(pictures[int(rng.integers(len(pictures)))], rng) for _ in range(count)]


def package_folders() -> list[Path]:
    """Folders of real pictures in packages that are installed."""
    folders = []
    for name in _PACKAGES:
        package, _, inside = name.partition("/")
        spec = importlib.util.find_spec(package)
        if spec and spec.origin:
            folders.append(Path(spec.origin).parent / inside)
    return [folder for folder in folders if folder.is_dir()]


def _pictures(folders: Sequence[Path]) -> Iterator[Picture]:
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        if path.suffix.lower() in _PICTURES:
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        elif path.suffix.lower() == ".dcm":
            picture = _dicom_frame(path)
        else:
            continue
        if picture is not None and min(picture.shape[:2]) >= 128 and float(np.std(picture)) > 8:
            yield np.asarray(picture, np.uint8)


def _dicom_frame(path: Path) -> NDArray[Any] | None:
    import pydicom
    from pydicom.pixels.utils import pixel_array

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            frame = pixel_array(dataset, index=0)
    except Exception:  # noqa: BLE001 - test files are broken in every way; the benchmark just needs pictures
        return None
    low, high = np.percentile(frame, (0.5, 99.5))
    gray = np.clip((frame - low) / max(float(high - low), 1.0) * 255, 0, 255).astype(np.uint8)
    return gray if gray.ndim == 3 else np.repeat(gray[..., None], 3, axis=2)


def _cut(picture: Picture, rng: np.random.Generator) -> bytes:
    """A turned, scaled, noisy part of a picture: long side 224 to 1024, ratio 0.6 to 1."""
    long_side = math.exp(rng.uniform(math.log(224), math.log(1024)))
    size = np.array([long_side, long_side * rng.uniform(0.6, 1.0)])[:: int(rng.choice([1, -1]))]
    width, height = (int(side) for side in size)
    scale = max(width / picture.shape[1], height / picture.shape[0]) * rng.uniform(1.0, 1.6)
    turn = cv2.getRotationMatrix2D((picture.shape[1] / 2, picture.shape[0] / 2), rng.uniform(-15, 15), scale)
    turn[:, 2] += (width / 2 - picture.shape[1] / 2, height / 2 - picture.shape[0] / 2)
    part = cv2.warpAffine(picture, turn, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    noisy = np.clip(part + rng.normal(0, 2.5, part.shape[:2])[..., None], 0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])


def with_decoder(decoder: Decoder) -> Run:
    """A run of one of our decoders, in chunks."""

    def run(blobs: Sequence[bytes], crops: Sequence[Crops]) -> None:
        out = [np.empty((CHUNK, group.num, group.size_px, group.size_px, 3), np.uint8) for group in crops]
        for start in range(0, len(blobs), CHUNK):
            chunk = blobs[start : start + CHUNK]
            seeds = np.arange(start, start + len(chunk), dtype=np.uint64)
            status = decoder.decode(chunk, seeds, crops, [array[: len(chunk)] for array in out])
            if status.any():
                raise ConfigError(f"image {start + int(status.argmax())} cannot be decoded", hint="use other images")

    return run


def _crops_of(
    row: int, crops: Sequence[Crops], width: int, height: int
) -> Iterator[tuple[Crops, tuple[int, int, int, int], bool]]:
    seeds, size = np.array([row], np.uint64), (np.array([width]), np.array([height]))
    for number, group in enumerate(crops):
        boxes = crop_boxes(seeds, number, group, *size)
        for box, flip in zip(boxes.box[0], boxes.flip[0], strict=True):
            left, top, wide, high = (round(float(value)) for value in box)
            yield group, (left, top, max(wide, 1), max(high, 1)), bool(flip)


def with_torchvision(blobs: Sequence[bytes], crops: Sequence[Crops]) -> None:
    """Decode to a tensor, crop, antialiased resize and flip with torchvision, the way its reference scripts do."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms.v2 import functional

    for row, blob in enumerate(blobs):
        image = decode_jpeg(torch.frombuffer(bytearray(blob), dtype=torch.uint8), mode=ImageReadMode.RGB)
        for group, (left, top, wide, high), flip in _crops_of(row, crops, image.shape[2], image.shape[1]):
            size = [group.size_px, group.size_px]
            crop = functional.resized_crop(image, top, left, high, wide, size, antialias=True)
            if flip:
                functional.horizontal_flip(crop)


def with_pillow(blobs: Sequence[bytes], crops: Sequence[Crops]) -> None:
    """Decode, crop, resize and flip with Pillow."""
    from PIL import Image

    for row, blob in enumerate(blobs):
        image = Image.open(io.BytesIO(blob)).convert("RGB")
        for group, (left, top, wide, high), flip in _crops_of(row, crops, image.width, image.height):
            part = image.crop((left, top, left + wide, top + high))
            crop = part.resize((group.size_px, group.size_px), Image.Resampling.BILINEAR)
            np.asarray(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else crop)


def contestants() -> dict[str, Run]:
    """Every decoder that can run here."""
    runs: dict[str, Run] = {}
    if describe_decoder().name == "native":
        runs["native fast"] = with_decoder(open_decoder("native", "fast"))
        runs["native exact"] = with_decoder(open_decoder("native", "exact"))
    runs["library fast"] = with_decoder(open_decoder("library", "fast"))
    runs["library exact"] = with_decoder(open_decoder("library", "exact"))
    if importlib.util.find_spec("torchvision"):
        import torch

        torch.set_num_threads(1)
        runs["torchvision"] = with_torchvision
    runs["Pillow"] = with_pillow
    return runs


def measure(
    blobs: Sequence[bytes], workloads: Sequence[str], runs: dict[str, Run], rounds: int
) -> dict[str, dict[str, float]]:
    """CPU milliseconds an image, by workload and contestant: the median of interleaved rounds."""
    taken: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for workload in workloads:
            for name, run in runs.items():
                run(blobs[:CHUNK], WORKLOADS[workload])
                start = time.process_time()
                run(blobs, WORKLOADS[workload])
                milliseconds = (time.process_time() - start) / len(blobs) * 1000
                taken.setdefault(workload, {}).setdefault(name, []).append(milliseconds)
    return {
        workload: {name: round(statistics.median(values), 3) for name, values in by_name.items()}
        for workload, by_name in taken.items()
    }


def table(figures: dict[str, dict[str, float]]) -> str:
    """The figures as text, with ratios to torchvision where it ran."""
    lines = []
    for workload, by_name in figures.items():
        base = by_name.get("torchvision", math.nan)
        for name, value in by_name.items():
            lines.append(f"{workload}  {name:14s} {value:7.3f} ms CPU an image  {base / value:5.2f} x torchvision")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of pictures and DICOM files to make the JPEGs from")
    parser.add_argument("--jpegs", type=Path, help="folder of JPEGs to take as they are")
    parser.add_argument("--count", type=int, default=1000, help="images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workloads", default="ABM", help="letters out of A, B and M")
    parser.add_argument("--only", help="contestants whose names contain this")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(argv)
    try:
        return _report(options)
    except BiovfmError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def _report(options: argparse.Namespace) -> int:
    if options.jpegs:
        blobs = [path.read_bytes() for path in sorted(options.jpegs.rglob("*.jp*g"))[: options.count]]
    else:
        blobs = make_corpus([options.images] if options.images else package_folders(), options.count, seed=1)
    runs = {name: run for name, run in contestants().items() if not options.only or options.only in name}
    if not blobs or not runs:
        raise ConfigError("there is nothing to measure", hint="see --jpegs and --only")
    figures = measure(blobs, options.workloads, runs, options.rounds)
    mean_bytes = sum(map(len, blobs)) / len(blobs)
    if options.json:
        report = {"decoder": str(describe_decoder()), "images": len(blobs), "mean_bytes": round(mean_bytes)}
        print(json.dumps({**report, "cpu_ms": figures}))
    else:
        print(f"{len(blobs)} images of {mean_bytes / 1000:.1f} kB; {describe_decoder()}")
        print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
