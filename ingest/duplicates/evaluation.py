"""Images that are also in an evaluation set.

MedMNIST images are squashed or centre-cropped copies at 28 to 224 px, so each image is compared twice: whole, and its
centre square. Crops of other parts (OrganMNIST's organ boxes) cannot be found this way; the catalogue's
`eval_overlap` names the sources that hold them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingest.duplicates.pairs import Hashes, as_hashes, correlation, near_pairs
from ingest.picture.fingerprint import THUMB_PX, fingerprint
from ingest.settings import DedupSettings
from shards.decode.opencv import scale_linear
from shards.errors import ConfigError

_DATA, _EVALUATION = 0, 1
_BATCH = 4096
Thumbnails = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
"""Positions to `(P, 4096)` uint8 thumbnails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSet:
    """Fingerprints of evaluation images.

    Attributes:
        names: `breastmnist/test/12`: file, split and position.
        hashes: `(M, 4)` uint64.
        thumbs: `(M, 4096)` uint8.
    """

    names: list[str]
    hashes: Hashes
    thumbs: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An image that is in an evaluation set.

    Attributes:
        name: The evaluation image.
        bits: Distance of the hashes.
        ncc: Correlation of the thumbnails.
    """

    name: str
    bits: int
    ncc: float


def load_evaluation(paths: Iterable[str], splits: Sequence[str] = ("test",)) -> EvaluationSet:
    """Fingerprint MedMNIST files.

    Raises:
        ConfigError: A file is missing or is no MedMNIST file.
    """
    names: list[str] = []
    prints = []
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                for split in splits:
                    images = arrays[f"{split}_images"]
                    names += [f"{Path(path).stem}/{split}/{number}" for number in range(len(images))]
                    prints += [fingerprint(np.ascontiguousarray(image)) for image in images]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{path} is no MedMNIST file: {type(error).__name__}", hint="give its .npz") from error
    thumbs = np.stack([p.thumb.reshape(-1) for p in prints]) if prints else np.empty((0, THUMB_PX**2), np.uint8)
    return EvaluationSet(names=names, hashes=as_hashes([p.whole for p in prints]), thumbs=thumbs)


def find_overlap(
    evaluation: EvaluationSet, views: Sequence[tuple[Hashes, Thumbnails]], settings: DedupSettings
) -> Mapping[int, Match]:
    """Images that match an evaluation image in one of their views.

    Args:
        evaluation: The evaluation images.
        views: For the whole pictures and for their centre squares: `(N, 4)` hashes, and thumbnails by position.
        settings: Radius and correlation.

    Returns:
        Position → the match with the highest correlation.
    """
    best: dict[int, Match] = {}
    count = len(evaluation.names)
    for hashes, thumbs in views:
        both = np.concatenate([evaluation.hashes, hashes])
        kinds = np.repeat([_EVALUATION, _DATA], [count, len(hashes)]).astype(np.int64)
        found = near_pairs(both, kinds, radius=settings.radius_bits, bucket_cap=settings.bucket_cap)
        for start in range(0, len(found.first), _BATCH):
            sides = slice(start, start + _BATCH)
            theirs, ours = found.first[sides], found.second[sides] - count
            scores = correlation(coarse(evaluation.thumbs[theirs]), coarse(thumbs(ours)))
            for position, other, bits, ncc in zip(ours, theirs, found.bits[sides], scores, strict=True):
                old = best.get(int(position))
                if ncc >= settings.evaluation_ncc and (old is None or ncc > old.ncc):
                    match = Match(name=evaluation.names[other], bits=int(bits), ncc=round(float(ncc), 4))
                    best[int(position)] = match
    return best


def coarse(thumbs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`(P, 256)`: thumbnails at 16 × 16, so that what 28 px images have lost is not missed."""
    side = THUMB_PX // 4
    blocks = thumbs.reshape(-1, side, 4, side, 4).mean(axis=(2, 4))
    return np.asarray(blocks.round().reshape(-1, side * side), np.uint8)


def centre_thumbs(thumbs: NDArray[np.uint8], sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Thumbnails of the centre squares, cut out of those of the whole pictures.

    Args:
        thumbs: `(P, 4096)` uint8.
        sizes: `(P, 2)`: width and height of the pictures.
    """
    out = np.empty_like(thumbs)
    for i, (width, height) in enumerate(sizes.tolist()):
        thumb = thumbs[i].reshape(THUMB_PX, THUMB_PX)
        across = max(1, round(THUMB_PX * min(1.0, height / width)))
        down = max(1, round(THUMB_PX * min(1.0, width / height)))
        left, top = (THUMB_PX - across) // 2, (THUMB_PX - down) // 2
        square = thumb[top : top + down, left : left + across]
        out[i] = scale_linear(square, (THUMB_PX, THUMB_PX)).reshape(-1)
    return out
