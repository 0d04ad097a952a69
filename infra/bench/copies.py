"""How many true copies of a dataset's images the near-duplicate rule finds.

    python -m infra.bench.copies DATASET [COUNT]

Takes COUNT images of a dataset, makes copies of each as they occur in the wild, and asks whether hash and thumbnail
call the copy near (16 bits, NCC 0.99), or, for copies made as MedMNIST makes them, an overlap (16 bits, NCC 0.95,
whole or centre square). Prints the recall in per cent of each kind of copy.
"""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from ingest.duplicates.evaluation import centre_thumbs, coarse
from ingest.duplicates.pairs import as_hashes, bands_of, correlation, distance
from ingest.picture.fingerprint import Prints, fingerprint
from shards.dataset.dataset import Dataset
from shards.dataset.query import scan

RADIUS_BITS, NEAR_NCC, OVERLAP_NCC = 16, 0.99, 0.95


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """The image after JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def scaled(image: Image.Image, factor: float) -> Image.Image:
    """The image at another size."""
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BICUBIC)


def levels(image: Image.Image, gain: float, bias: float) -> Image.Image:
    """The image with other contrast or brightness."""
    return image.point(lambda value: min(255, max(0, round(value * gain + bias))))


def cropped(image: Image.Image, side: int) -> Image.Image:
    """The centre square at another size."""
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    return image.crop((left, top, left + short, top + short)).resize((side, side), Image.Resampling.BICUBIC)


NEAR: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg 90": lambda image: jpeg(image, 90),
    "jpeg 50": lambda image: jpeg(image, 50),
    "half size": lambda image: scaled(image, 0.5),
    "double size": lambda image: scaled(image, 2.0),
    "squashed to 224": lambda image: image.resize((224, 224), Image.Resampling.BICUBIC),
    "half size, jpeg 75": lambda image: jpeg(scaled(image, 0.5), 75),
    "gain 1.2": lambda image: levels(image, 1.2, 0),
    "gain 0.8": lambda image: levels(image, 0.8, 0),
    "bias +15": lambda image: levels(image, 1.0, 15),
}


def squashed(image: Image.Image, side: int) -> Image.Image:
    """The whole image as a square."""
    return image.resize((side, side), Image.Resampling.BICUBIC)


OVERLAP: dict[str, Callable[[Image.Image], Image.Image]] = {
    **{f"squashed to {side}": partial(squashed, side=side) for side in (28, 64, 128, 224)},
    **{f"centre crop to {side}": partial(cropped, side=side) for side in (28, 64, 128, 224)},
}


def pictures(dataset: Dataset, count: int) -> Iterator[Image.Image]:
    """Images spread over the dataset, gray or RGB."""
    table: Any = dataset.table("index")
    rows = scan(table).to_table(columns=["key", "shard", "byte_offset", "byte_length"]).sort_by("key").to_pylist()
    for row in rows[:: max(1, len(rows) // count)][:count]:
        data = dataset.store.read_range(row["shard"], row["byte_offset"], row["byte_length"])
        image = Image.open(io.BytesIO(data))
        yield image.convert("L" if image.mode == "L" else "RGB")


def is_near(first: Prints, second: Prints, least: float, *, blur: bool = False) -> bool:
    """Whether the rule finds the pair: a shared band, the radius, the thumbnails."""
    a, b = as_hashes([first.whole]), as_hashes([second.whole])
    if distance(a, b)[0] > RADIUS_BITS or not (bands_of(a) == bands_of(b)).any():
        return False
    thumbs = [thumb.reshape(1, -1) for thumb in (first.thumb, second.thumb)]
    if blur:
        thumbs = [coarse(thumb) for thumb in thumbs]
    return bool(correlation(*thumbs)[0] >= least)


def is_overlap(original: Prints, size: tuple[int, int], copy: Prints) -> bool:
    """Whether the copy is found as whole picture or as centre square."""
    if is_near(original, copy, OVERLAP_NCC, blur=True):
        return True
    thumb = centre_thumbs(original.thumb.reshape(1, -1), np.array([size])).reshape(64, 64)
    return is_near(Prints(whole=original.centre, centre=original.centre, thumb=thumb), copy, OVERLAP_NCC, blur=True)


def main(url: str, count: int) -> None:
    """Print the recall of each kind of copy."""
    found: Counter[str] = Counter()
    total = 0
    for image in pictures(Dataset.open(url), count):
        total += 1
        original = fingerprint(np.asarray(image))
        for name, change in NEAR.items():
            found[f"near: {name}"] += is_near(original, fingerprint(np.asarray(change(image))), NEAR_NCC)
        for name, change in OVERLAP.items():
            copy = fingerprint(np.asarray(change(image)))
            found[f"overlap: {name}"] += is_overlap(original, image.size, copy)
    kinds = [f"near: {name}" for name in NEAR] + [f"overlap: {name}" for name in OVERLAP]
    print(json.dumps({"images": total, **{kind: round(100 * found[kind] / total, 1) for kind in kinds}}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 800)
