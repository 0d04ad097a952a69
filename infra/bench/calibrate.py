"""What decoding costs on this machine: constants for `biovfm plan --measured`, and how well they predict.

    python -m infra.bench.calibrate --out measured.json          measure at one image size
    python -m infra.bench.calibrate --predict                    ... and predict another size and other crops

The model is `seconds = a · megapixels of the image + b · megapixels of the crops` (one core). Both constants come from
one image size: its images are decoded with a large and with a tiny crop. Images are synthetic photographs (smooth
noise with fine grain at JPEG quality 90); the time is processor time of one thread, the median of several rounds.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shards.decode import Crops, open_decoder
from shards.files import json_text, write_text

CALIBRATED_PX = 512
PREDICTED_PX = (384, 768)
SMALL_CROP_PX, LARGE_CROP_PX = 32, 224


def pictures(edge_px: int, num: int, *, seed: int = 0) -> list[bytes]:
    """Synthetic JPEGs of one size."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    found = []
    for _ in range(num):
        coarse = Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((edge_px, edge_px), Image.Resampling.BICUBIC), dtype=np.int16)
        grain = rng.normal(0, 4, smooth.shape).astype(np.int16)
        buffer = io.BytesIO()
        Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def core_seconds(blobs: Sequence[bytes], crops: Sequence[Crops], *, rounds: int) -> float:
    """Processor seconds per image of one thread: the median of several rounds."""
    decoder = open_decoder("auto", mode="exact")
    out = [np.empty((len(blobs), group.num, group.size_px, group.size_px, 3), np.uint8) for group in crops]
    seeds = np.arange(len(blobs), dtype=np.uint64)
    spent = []
    for _ in range(rounds + 1):
        began = time.thread_time()
        decoder.decode(list(blobs), seeds, list(crops), out)
        spent.append((time.thread_time() - began) / len(blobs))
    return statistics.median(spent[1:])


def calibrate(*, num: int = 64, rounds: int = 7) -> dict[str, float]:
    """Both constants, from images of one size."""
    blobs = pictures(CALIBRATED_PX, num)
    small, large = (
        core_seconds(blobs, [Crops(size_px=px, kind="center")], rounds=rounds) for px in (SMALL_CROP_PX, LARGE_CROP_PX)
    )
    per_crop = (large - small) / ((LARGE_CROP_PX**2 - SMALL_CROP_PX**2) / 1e6)
    per_image = (small - per_crop * SMALL_CROP_PX**2 / 1e6) / (CALIBRATED_PX**2 / 1e6)
    return {
        "decode_core_seconds_per_megapixel": per_image,
        "crop_core_seconds_per_megapixel": max(per_crop, 1e-9),
    }


def predictions(constants: dict[str, float], *, num: int = 64, rounds: int = 7) -> list[dict[str, float]]:
    """Measured and predicted core-seconds at other image sizes."""
    rows = []
    for edge_px in PREDICTED_PX:
        measured = core_seconds(
            pictures(edge_px, num, seed=1), [Crops(size_px=LARGE_CROP_PX, kind="center")], rounds=rounds
        )
        predicted = constants["decode_core_seconds_per_megapixel"] * edge_px**2 / 1e6
        predicted += constants["crop_core_seconds_per_megapixel"] * LARGE_CROP_PX**2 / 1e6
        rows.append({"edge_px": edge_px, "measured": measured, "predicted": predicted, "ratio": predicted / measured})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the constants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args(argv)
    constants = calibrate(num=chosen.images, rounds=chosen.rounds)
    if chosen.out:
        write_text(chosen.out, json_text(constants, indent=2) + "\n")
    sys.stdout.write(json.dumps(constants) + "\n")
    if chosen.predict:
        for row in predictions(constants, num=chosen.images, rounds=chosen.rounds):
            sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
