"""Videos, sampled at a fixed rate: one frame at the start of every `1 / frames_per_second` seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ingest.raw.items import RawFile, RejectError
from ingest.readers.base import RawImage, ReadOptions


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """Frames, named by their number in the video (`f000120`).

    A frame is taken when the time since the last one taken reaches the sampling interval; `every` then thins these,
    and `max_frames` ends the reading.
    """
    import av

    with raw.open() as stream:
        try:
            container = av.open(stream, mode="r", metadata_errors="ignore")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise RejectError("unreadable", type(error).__name__) from error
        with container:
            if not container.streams.video:
                raise RejectError("no_image", "no video stream")
            video = container.streams.video[0]
            video.thread_type = "NONE"
            if video.width * video.height > options.limits.max_pixels:
                raise RejectError("decompression_bomb", f"{video.width}x{video.height} pixels")
            try:
                yield from _sampled(container, video, options)
            except av.FFmpegError as error:
                raise RejectError("undecodable", type(error).__name__) from error


def _sampled(container: Any, video: Any, options: ReadOptions) -> Iterator[RawImage]:
    rule = options.frames
    interval = 1 / rule.frames_per_second
    due = 0.0
    sampled = taken = 0
    rate = float(video.average_rate or 25)
    for number, frame in enumerate(container.decode(video)):
        seconds = float(frame.time) if frame.time is not None else number / rate
        if seconds + 1e-6 < due:
            continue
        due = max(due + interval, seconds)
        sampled += 1
        if (sampled - 1) % rule.every:
            continue
        pixels = np.asarray(frame.to_ndarray(format="rgb24"))
        yield RawImage(pixels=pixels, frame=f"f{number:06d}", part_of_volume=True)
        taken += 1
        if rule.max_frames and taken >= rule.max_frames:
            return
