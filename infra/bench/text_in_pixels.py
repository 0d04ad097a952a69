"""How well names burned into real pictures are found, how often text is seen where none is, and what it costs.

    python -m infra.bench.text_in_pixels DATASET [--where "modality <> 'US'"] [--images 200] [--seed 0]

`--where` must choose pictures without text: each is looked at as it is (false alarms), then once per height with a
line of a name, a number or a date planted in one of its corners or anywhere (recall). Heights are those of capital
letters in pixels of the stored picture. The line is white, gray, yellow or green, with or without a dark rim, in one of
Matplotlib's fonts; a picture that is narrower than its line is left out. A line whose contrast with what lies behind
it is under 4.5 to 1, the least that WCAG 2.1 (1.4.3) calls readable, is given the dark rim. Seconds are CPU seconds of
one thread.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ingest.privacy.text_finder import has_text
from ingest.readers.pillow import Picture
from shards.dataset import Dataset

HEIGHTS_PX: Final = (8, 10, 12, 16, 24)
LINES: Final = (
    *("SMITH^JOHN^A", "Müller, Anna", "GARCIA LOPEZ MARIA", "DOE JANE F 064Y", "Nguyen Van An", "KIM MIN-JUN"),
    *("Pat: Rossi G.", "12-04-1961", "1961/04/12 M", "MRN 00418273", "O'Brien P", "ID 77-4410", "van den Berg, H."),
)
COLOURS: Final = ((255, 255, 255), (190, 190, 190), (255, 255, 0), (0, 255, 0))
PAPER_IMAGES: Final = 21_000_000
READABLE_CONTRAST: Final = 4.5
CAPITAL_SHARE: Final = 0.73
"""Height of a capital letter over the size of its font, of DejaVu's."""


def main() -> None:
    """Measure and print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--where", default="modality <> 'US'")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--misses", type=Path, help="folder for the pictures that were judged wrong")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)  # noqa: S311  # places of text, no secret
    pictures = _pictures(arguments.dataset, arguments.where, arguments.images, chance)
    alarms, seconds = [], []
    for number, picture in enumerate(pictures):
        began = time.thread_time()
        alarms.append(has_text(picture))
        seconds.append(time.thread_time() - began)
        if alarms[-1]:
            _keep(arguments.misses, f"alarm-{number}", picture)
    found: dict[int, list[bool]] = defaultdict(list)
    for number, picture in enumerate(pictures):
        for height_px in HEIGHTS_PX:
            planted = plant(picture, chance, height_px=height_px)
            if planted is not None:
                found[height_px].append(has_text(planted))
                if not found[height_px][-1]:
                    _keep(arguments.misses, f"miss-{height_px}-{number}", planted)
    print("height px  planted  recall")
    for height_px, hits in sorted(found.items()):
        print(f"{height_px:9d}  {len(hits):7d}  {np.mean(hits):.4f}")
    mean = statistics.fmean(seconds)
    readable = [hit for height_px, hits in found.items() if height_px >= 12 for hit in hits]
    report = {
        "images": len(pictures),
        "recall_from_12_px": round(float(np.mean(readable)), 4),
        "false_alarms": round(float(np.mean(alarms)), 4),
        "cpu_seconds_per_image": round(mean, 3),
        "core_hours_for_21_million": round(mean * PAPER_IMAGES / 3600),
    }
    print(json.dumps(report))


def plant(picture: Picture, chance: random.Random, *, height_px: int) -> Picture | None:
    """A picture with a line of text, or None where it is too small for it.

    Args:
        picture: `(H, W, 3)` uint8.
        chance: Chooses line, font, colour, rim and place.
        height_px: Height of a capital letter.
    """
    image = Image.fromarray(picture)
    font = ImageFont.truetype(chance.choice(_fonts()), round(height_px / CAPITAL_SHARE))
    draw, line, colour = ImageDraw.Draw(image), chance.choice(LINES), chance.choice(COLOURS)
    width, height = int(draw.textlength(line, font=font)) + 2, int(1.5 * height_px) + 2
    if width > image.width - 8 or height > image.height - 8:
        return None
    right, bottom = image.width - width - 4, image.height - height - 4
    corners = [(4, 4), (right, 4), (4, bottom), (right, bottom)]
    left, top = chance.choice([*corners, (chance.randint(4, right), chance.randint(4, bottom))])
    behind = picture[top : top + height, left : left + width]
    rim = chance.random() < 0.3 or _contrast(colour, behind) < READABLE_CONTRAST
    draw.text((left, top), line, font=font, fill=colour, stroke_width=int(rim), stroke_fill=(0, 0, 0))
    return np.asarray(image)


def _contrast(colour: tuple[int, int, int], behind: Picture) -> float:
    """Contrast ratio of WCAG 2.1, the least over the pixels behind (their 95th percentile)."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    letters = float(((np.array(colour) / 255) ** 2.2) @ weights)
    ground = float(np.percentile(((behind.reshape(-1, 3) / 255) ** 2.2) @ weights, 95))
    return (max(letters, ground) + 0.05) / (min(letters, ground) + 0.05)


def _fonts() -> list[str]:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [str(folder / f"DejaVu{name}.ttf") for name in ("Sans", "Sans-Bold", "SansMono", "Serif")]


def _pictures(dataset_url: str, where: str, count: int, chance: random.Random) -> list[Picture]:
    dataset = Dataset.open(dataset_url)
    query = f"SELECT shard, byte_offset, byte_length FROM samples WHERE {where} ORDER BY key"  # noqa: S608  # the user's own
    rows = dataset.query(query).to_pylist()
    chosen = chance.sample(rows, min(count, len(rows)))
    found = []
    for row in chosen:
        data = dataset.store.read_range(row["shard"], row["byte_offset"], row["byte_length"])
        found.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    return found


def _keep(folder: Path | None, name: str, picture: Picture) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{name}.png")


if __name__ == "__main__":
    main()
