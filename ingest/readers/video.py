"""Videos, sampled at a fixed rate: one frame at the start of every `1 / frames_per_second` seconds.

Frames are shown as players show them: turned by the display matrix of the file, and with square pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import numpy as np

from ingest.raw.budget import claim_array
from ingest.raw.items import RawFile, RejectError
from ingest.readers.base import Pixels, RawImage, ReadOptions, failed_image
from ingest.readers.volumes import square_pixels

_SLACK_SECONDS: Final = 1e-6
_LONGEST_STEP_BACK: Final = 1.0
"""Time stamps that go back by more seconds than frames are reordered by begin anew: another recording was appended."""


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """Frames, named by their number in the video (`f000120`).

    A frame is taken when it is the first of a sampling interval; `every` then thins these, and `max_frames` ends the
    reading. Packets that cannot be decoded cost their frames alone and are told in one row.
    """
    with raw.open() as stream:
        yield from sampled_frames(stream, options)


def sampled_frames(stream: BinaryIO, options: ReadOptions) -> Iterator[RawImage]:
    """The frames of a video that the rule takes, out of a container or a bare stream of MPEG.

    Raises:
        RejectError: It is no video, or cannot be decoded.
    """
    import av

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
        claim_array((video.height, video.width), 3, options.limits, "a frame", copies=4)
        try:
            yield from _sampled(_decoded(av, container, video), video, options)
        except av.FFmpegError as error:
            raise RejectError("undecodable", type(error).__name__) from error


def _decoded(av: Any, container: Any, video: Any) -> Iterator[Any]:
    """The frames, and None for each packet that cannot be decoded."""
    for packet in container.demux(video):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            yield None
            continue
        yield from frames


def _sampled(frames: Iterator[Any], video: Any, options: ReadOptions) -> Iterator[RawImage]:
    rule = options.frames
    clock = _Clock(interval=1 / rule.frames_per_second, frame_seconds=1 / float(video.average_rate or 25))
    sampled = taken = broken = 0
    number = -1
    for number, frame in enumerate(frames):
        options.get_on()
        if frame is None:
            broken += 1
            continue
        if not clock.is_due(frame.time):
            continue
        sampled += 1
        if (sampled - 1) % rule.every:
            continue
        yield RawImage(pixels=_shown(frame, video), frame=f"f{number:06d}", part_of_volume=True)
        taken += 1
        if rule.max_frames and taken >= rule.max_frames:
            break
    if broken and number >= broken:
        yield failed_image("undecodable", f"{broken} packets of the video")
    elif broken:
        raise RejectError("undecodable", f"all {broken} packets of the video")


@dataclass(slots=True, kw_only=True)
class _Clock:
    """Tells which frames begin a sampling interval.

    After a pause of the recording the next frame is taken, and the one after it when a whole interval has passed.

    Attributes:
        interval: Seconds between samples.
        frame_seconds: Seconds that a frame without a time stamp lasts.
    """

    interval: float
    frame_seconds: float
    due: float = 0.0
    now: float = 0.0
    last: float | None = None
    begun: bool = False

    def is_due(self, stamp: float | None) -> bool:
        """Whether the next frame, of this time stamp in seconds, is the first of an interval."""
        if not self.begun:
            self.now = 0.0 if stamp is None else max(0.0, float(stamp))
        elif stamp is None or self.last is None or stamp < self.last - _LONGEST_STEP_BACK:
            self.now += self.frame_seconds
        else:
            self.now += float(stamp) - self.last
        self.begun, self.last = True, None if stamp is None else float(stamp)
        if self.now + _SLACK_SECONDS < self.due:
            return False
        passed = int((self.now + _SLACK_SECONDS) / self.interval)
        self.due = (passed + 1) * self.interval
        return True


def _shown(frame: Any, video: Any) -> Pixels:
    """`(H, W, 3)` uint8 of a frame, upright and with square pixels."""
    pixels = np.asarray(frame.to_ndarray(format="rgb24"))
    aspect = video.sample_aspect_ratio or video.codec_context.sample_aspect_ratio
    width_of_a_pixel = float(aspect) if aspect and float(aspect) > 0 else 1.0
    return _turned(square_pixels(pixels, 1.0, width_of_a_pixel), frame)


def _turned(pixels: Pixels, frame: Any) -> Pixels:
    """Turned and mirrored by the frame's display matrix: x' = a x + c y, y' = b x + d y, in 16.16 fixed point."""
    matrix = _display_matrix(frame)
    if matrix is None:
        return pixels
    a, b, c, d = matrix
    if abs(a) + abs(d) < abs(b) + abs(c):  # x and y change places
        pixels, across, down = np.swapaxes(pixels, 0, 1), c, b
    else:
        across, down = a, d
    flips = tuple(axis for axis, sign in ((0, down), (1, across)) if sign < 0)
    return np.ascontiguousarray(np.flip(pixels, flips) if flips else pixels)


def _display_matrix(frame: Any) -> tuple[int, int, int, int] | None:
    for data in frame.side_data:
        if getattr(data.type, "name", "") == "DISPLAYMATRIX":
            content = bytes(data)
            if len(content) == 36:
                a, b, _, c, d, *_ = struct.unpack("=9i", content)
                return (a, b, c, d) if a * d - b * c != 0 else None
    return None
