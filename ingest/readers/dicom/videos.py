"""Videos inside DICOM (MPEG-2, MPEG-4 AVC/H.264, HEVC/H.265; PS3.5 8.2.5 to 8.2.9), sampled as videos are.

All fragments of the pixel data are one stream: of a frame of DICOM there is nothing to be seen in it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Final

from ingest.raw.budget import claim
from ingest.raw.items import RejectError
from ingest.readers.base import RawImage, ReadOptions
from ingest.readers.libraries import library_for

__all__ = ["is_video", "video_frames"]

_PREFIX: Final = "1.2.840.10008.1.2.4."
_KINDS: Final = frozenset(str(number) for number in range(100, 109))


def is_video(dataset: Any) -> bool:
    """Whether the transfer syntax is one of a video, in fragments or not."""
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    return syntax.startswith(_PREFIX) and syntax.removeprefix(_PREFIX).partition(".")[0] in _KINDS


def video_frames(dataset: Any, options: ReadOptions) -> Iterator[RawImage]:
    """The sampled frames, `f000120` and so on.

    Raises:
        LibraryError: The library for videos is not installed.
        RejectError: The stream cannot be decoded.
    """
    from pydicom.encaps import generate_fragments, parse_basic_offsets

    library_for("a video in DICOM", "av", "video")
    from ingest.readers.video import sampled_frames

    claim(2 * len(dataset.PixelData), options.limits, "a video")
    try:
        buffer = io.BytesIO(dataset.PixelData)
        parse_basic_offsets(buffer)
        stream = io.BytesIO(b"".join(generate_fragments(buffer)))
    except (ValueError, OSError, EOFError, AttributeError, TypeError, KeyError) as error:
        raise RejectError("undecodable", type(error).__name__) from error
    yield from sampled_frames(stream, options)
