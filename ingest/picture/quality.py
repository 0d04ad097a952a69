"""Why an image is not taken. Each rule is a small function of the picture that answers None or `(reason, detail)`."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from ingest.readers.pillow import Picture
from ingest.settings import QualitySettings
from shards.decode.opencv import histogram

REASONS: Final = {
    "empty_file": "The raw file has no bytes.",
    "too_large": "The raw file is larger than the limit.",
    "unreadable": "The raw file is not what its name says, or is broken.",
    "undecodable": "The pixels cannot be decoded (truncated, corrupt).",
    "unsupported": "No decoder for this format or transfer syntax.",
    "no_image": "The file is sound but holds no image.",
    "other_object": "No image of a modality: segmentation, dose map or report of DICOM, array of masks or labels …",
    "slide_label": "The label, overview or macro picture of a slide, which may show a name.",
    "screen_capture": "A saved screen, such as a dose report, among the images of a scanner.",
    "missing_frames": "The file holds fewer frames than its header states; one row per file.",
    "unreadable_archive": "The archive is broken; nothing more can be read from it.",
    "encrypted": "The archive member needs a password.",
    "link": "The archive member is a link.",
    "path_traversal": "The member's name leads out of the archive.",
    "decompression_bomb": "The data would unpack to an absurd size.",
    "over_budget": "Reading it takes more memory or time than one raw file may, or brings its process down each time.",
    "crashed": "The decoder crashed its process each time.",
    "timeout": "The decoder took longer than the limit.",
    "out_of_memory": "The decoder ran out of memory.",
    "unknown_modality": "No rule of the source gives the image a modality tag.",
    "too_small": "A side is shorter than the limit.",
    "extreme_aspect": "Much longer than wide, or the reverse.",
    "blank": "All but constant.",
    "empty_slice": "A slice or frame that is all but constant.",
    "no_tissue": "A slide tile of background.",
    "burned_in": "Annotations are burned into the pixels.",
    "duplicate": "Pixel for pixel equal to an image that is kept.",
    "near_duplicate": "A re-encoded, resized or re-windowed copy of an image of another group that is kept.",
    "eval_overlap": "Matches an image of an evaluation set.",
    "withdrawn": "Was withdrawn from the dataset, or is of a group or file that was; it stays out.",
    "not_chosen": "A slice of a series that the source's frame rule leaves out.",
    "not_listed": "Not on the list of images to take.",
}
"""Every reason that a row of `rejects/` may give."""

_ROW_STEP: Final = 8


def find_fault(
    picture: Picture, gray: Picture, settings: QualitySettings, *, part_of_volume: bool
) -> tuple[str, str] | None:
    """The first rule that the picture breaks, or None; `gray` is its luma at the stored size."""
    return too_small(picture, settings) or extreme_aspect(picture, settings) or blank(gray, settings, part_of_volume)


def too_small(picture: Picture, settings: QualitySettings) -> tuple[str, str] | None:
    """The shorter side is under `min_side_px`."""
    height, width = picture.shape[:2]
    return ("too_small", f"{width}x{height}") if min(width, height) < settings.min_side_px else None


def extreme_aspect(picture: Picture, settings: QualitySettings) -> tuple[str, str] | None:
    """Long side over short side is above `max_aspect`."""
    height, width = picture.shape[:2]
    aspect = max(width, height) / min(width, height)
    return ("extreme_aspect", f"{aspect:.1f}") if aspect > settings.max_aspect else None


def blank(gray: Picture, settings: QualitySettings, part_of_volume: bool) -> tuple[str, str] | None:
    """The gray values hardly vary, or one of them fills the picture.

    Some rows clear most pictures of it: whatever the others hold, the variance is at least that of the rows times
    their part of the picture, and all that is not the rows' commonest value stays so.
    """
    rows = gray[::_ROW_STEP]
    part = rows.size / gray.size
    deviation, share = _spread(rows)
    if deviation * math.sqrt(part) >= settings.blank_std and 1 - (1 - share) * part <= settings.blank_fraction:
        return None
    deviation, share = _spread(gray)
    if deviation >= settings.blank_std and share <= settings.blank_fraction:
        return None
    return "empty_slice" if part_of_volume else "blank", f"std {deviation:.2f}, one value {share:.1%}"


def _spread(gray: Picture) -> tuple[float, float]:
    """Standard deviation, and the share of the commonest value."""
    counts = histogram(gray)
    total = counts.sum()
    values = np.arange(256)
    mean = float(counts @ values / total)
    return float(np.sqrt(counts @ (values - mean) ** 2 / total)), float(counts.max() / total)
