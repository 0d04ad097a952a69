"""Text in the pixels, found by a text detector and confirmed by a recogniser (extra `text`: RapidOCR, PP-OCR models).

Pictures are looked at as they are stored: what cannot be read there any more is no longer in the dataset. What was
read is never kept, written or logged, only that something was. Recall, false alarms and cost are measured by
`python -m infra.bench.text_in_pixels`.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ingest.readers.base import BurnedIn
from ingest.readers.pillow import Picture
from shards.errors import MachineError

DETECTOR: Final = "text detector"
"""What `burned_in_by` says where this module decided."""
SHORT_SIDE_PX: Final = 736
"""Smaller pictures are enlarged to this shorter side before text is looked for."""
MIN_SCORE: Final = 0.5
"""Mean probability of the characters that the recogniser read, in [0, 1]; lines below it are texture."""
MIN_WEIGHT: Final = 3
"""Letters and digits that make a line text, an ideograph or syllable block counted twice: a side marker is none."""


def has_text(picture: Picture) -> bool:
    """Whether some line of a picture can be read.

    Args:
        picture: `(H, W)` or `(H, W, 3)` uint8, RGB.

    Raises:
        MachineError: The detector cannot be loaded or has failed: no property of the picture.
    """
    bgr = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture[:, :, ::-1]
    try:
        lines = _lines(np.ascontiguousarray(bgr))
    except Exception as error:  # ONNX Runtime's errors share no base class with those of Python
        message = f"the text detector failed: {type(error).__name__}"
        raise MachineError(message, hint="pip install 'biovfm[text]', or set find_text: false") from error
    return any(is_text(line, score) for line, score in lines)


def is_text(line: str, score: float) -> bool:
    """Whether a line that was read is long enough and sure enough to be text."""
    return score >= MIN_SCORE and sum(_weight(character) for character in line) >= MIN_WEIGHT


def said_with_detector(said: BurnedIn, *, found: bool) -> BurnedIn:
    """What is known of a picture once the detector has looked: it overrules a `no`, never a `yes`.

    Args:
        said: What the file, or a rule for its class, says.
        found: What `has_text` says.
    """
    if said.value == "yes":
        return said
    return BurnedIn("yes" if found else "no", DETECTOR)


def _weight(character: str) -> int:
    if not character.isalnum():
        return 0
    return 2 if ord(character) >= 0x2E80 else 1  # where CJK radicals begin: kana, ideographs and Hangul lie above


def _lines(bgr: NDArray[np.uint8]) -> list[tuple[str, float]]:
    found = _engine()(bgr)
    return list(zip(found.txts or (), found.scores or (), strict=True))


@cache
def _engine() -> Any:
    """One per process, with one thread: ingest runs one process per core."""
    from rapidocr import RapidOCR

    engine = RapidOCR(
        params={
            "Global.use_cls": False,
            "Global.log_level": "critical",
            "Global.text_score": 0.0,
            "Det.box_thresh": 0.3,
            "Det.limit_type": "min",
            "Det.limit_side_len": SHORT_SIDE_PX,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
    logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)
    return engine
