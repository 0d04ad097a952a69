"""DICOM files: every frame as a picture.

Palettes are looked up, YBR becomes RGB, planes are interleaved, pixels that are not square are stretched, videos are
sampled as the video reader does. Where neither file nor source bring a window, the 0.5 and 99.5 percentiles bound the
range, padding left out: those of the stack for a slice of a series, those of the file (or of its stack) for the frames
of a multi-frame file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from ingest.raw.items import Place, RawFile, RejectError
from ingest.readers.base import (
    BurnedIn,
    Pixels,
    RawImage,
    ReadOptions,
    chosen_frames,
    colour_range,
    failed_image,
    percentile_range,
    window_range,
)
from ingest.readers.dicom.attributes import (
    check_image,
    code_of,
    frame_item,
    num_frames,
    number_of,
    parse,
    pixel_size,
    value_of,
)
from ingest.readers.dicom.frames import Frame, lower_bits, stored_frames
from ingest.readers.dicom.objects import MODALITY_TAGS, burned_in, is_capture, object_fault, ultrasound_region
from ingest.readers.dicom.values import (
    apply_window,
    look_up,
    modality_values,
    palette,
    window_of,
    without_padding,
)
from ingest.readers.dicom.videos import is_video, video_frames
from ingest.readers.volumes import square_pixels

_RANGE_FRAMES: Final = 16
_RANGE_VALUES: Final = 1 << 16
"""Frames of a multi-frame file, and values of each, from which a range is estimated."""

Range = tuple[float, float]


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """The frames of a DICOM file, `f0000` … where there are several.

    A file that is a slice of a series (`options.place`) follows the rules of volumes: its number is the frame and its
    stack's range serves where it brings no window.

    Raises:
        RejectError: It is no image of a modality, or cannot be read.
    """
    if options.place is not None and not options.place.taken:
        raise RejectError("not_chosen", "the frame rule of the source")
    with raw.open() as stream:
        dataset = parse(stream, options.limits)
        fault = object_fault(dataset)
        if fault:
            raise RejectError(*fault)
        check_image(dataset, options.limits)
        lower_bits(dataset)
        count = num_frames(dataset)
        facts = _Facts.of(dataset, options, several=count > 1)
        if is_video(dataset):
            yield from map(facts.of_video, video_frames(dataset, options))
            return
        for frame in stored_frames(dataset, chosen_frames(count, options.frames)):
            image = facts.image(frame)
            yield image if options.place is None or count > 1 else _in_place(image, options.place)


def _in_place(image: RawImage, place: Place) -> RawImage:
    return replace(image, frame=place.frame, part_of_volume=not place.alone)


def gray_values(raw: RawFile, options: ReadOptions) -> Pixels:
    """The values of a single-frame file after the modality LUT, without padding: what a range is estimated from.

    Raises:
        RejectError: It cannot be decoded.
    """
    with raw.open() as stream:
        dataset = parse(stream, options.limits)
        check_image(dataset, options.limits)
        lower_bits(dataset)
        stored = next(stored_frames(dataset, range(1))).stored
        if stored is None:
            raise RejectError("undecodable")
        return without_padding(stored, modality_values(stored, dataset, 0), dataset)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What all frames of a file share."""

    dataset: Any
    options: ReadOptions
    several: bool
    modality: str
    group: str
    bits: int
    signed: bool
    photometric: str
    burned_in: BurnedIn
    captured: bool
    region: tuple[int, int, int, int] | None
    ranges: dict[str, Range] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Any, options: ReadOptions, *, several: bool) -> _Facts:
        return cls(
            dataset=dataset,
            options=options,
            several=several,
            modality=MODALITY_TAGS.get(code_of(dataset, "Modality"), ""),
            group=str(dataset.get(options.group_tag, "") or ""),
            bits=number_of(dataset, "BitsStored", 0) or number_of(dataset, "BitsAllocated", 8),
            signed=number_of(dataset, "PixelRepresentation", 0) == 1,
            photometric=code_of(dataset, "PhotometricInterpretation"),
            burned_in=burned_in(dataset),
            captured=is_capture(dataset),
            region=ultrasound_region(dataset),
        )

    def image(self, frame: Frame) -> RawImage:
        """One frame as a picture, or as its fault."""
        name = f"f{frame.number:04d}" if self.several else ""
        if frame.stored is None:
            return failed_image(frame.reason, frame.detail, frame=name, modality=self.modality)
        pixels, ends, windowed = self._shown(frame.stored, frame.number)
        squared = square_pixels(pixels, *pixel_size(self.dataset, frame.number))
        return RawImage(
            pixels=squared,
            frame=name,
            modality=self.modality,
            bit_depth=self.bits,
            low=ends[0] if ends else None,
            high=ends[1] if ends else None,
            windowed=windowed,
            invert=self.photometric == "MONOCHROME1" and pixels.ndim == 2,
            group=self.group,
            part_of_volume=self.several,
            burned_in=self.burned_in,
            captured=self.captured,
            region=_stretched(self.region, pixels, squared),
        )

    def of_video(self, image: RawImage) -> RawImage:
        """A frame of a video with what the header says of it; ultrasound regions are in its own pixels."""
        return replace(
            image,
            modality=self.modality,
            group=self.group,
            burned_in=self.burned_in,
            captured=self.captured,
            region=None if image.fault else self.region,
        )

    def _shown(self, stored: Pixels, number: int) -> tuple[Pixels, Range | None, bool]:
        """Pixels, the values that become black and white, and whether a window says so."""
        if self.photometric == "PALETTE COLOR":
            return palette(stored, self.dataset), None, False
        if stored.ndim == 3:
            shown = None if stored.dtype == np.uint8 else colour_range(int(stored.max(initial=0)), self.bits)
            return stored, shown, False
        return self._gray(stored, number)

    def _gray(self, stored: Pixels, number: int) -> tuple[Pixels, Range, bool]:
        voi = frame_item(self.dataset, number, "FrameVOILUTSequence") or self.dataset
        values = modality_values(stored, self.dataset, number)
        if value_of(voi, "VOILUTSequence"):
            looked_up, top = look_up(values, voi.VOILUTSequence[0], self.dataset)
            return looked_up, (0.0, top), True
        window = window_of(voi)
        if window is not None:
            values, low, high = apply_window(values, *window)
            return values, (low, high), True
        return values, self._range(stored, values, number), self.options.window is not None

    def _range(self, stored: Pixels, values: Pixels, number: int) -> Range:
        """The range of a frame that brings neither table nor window."""
        if self.options.window is not None:
            return window_range(self.options.window)
        if self.bits <= 8 and not self.signed and values.dtype.kind in "ui" and values.dtype.itemsize == 1:
            return 0.0, float(2**self.bits - 1)
        place = self.options.place
        if place is not None and place.low < place.high:
            return place.low, place.high
        if self.several:
            return self._range_of(self._stack(number))
        return percentile_range(without_padding(stored, values, self.dataset))

    def _stack(self, number: int) -> str:
        """Frames of one orientation are a stack."""
        plane = frame_item(self.dataset, number, "PlaneOrientationSequence")
        cosines = value_of(plane, "ImageOrientationPatient") if plane is not None else None
        try:
            return ",".join(f"{float(value):.2f}" for value in cosines or ())
        except (TypeError, ValueError):
            return ""

    def _range_of(self, stack: str) -> Range:
        """One range for the frames of a stack, from some that are spread over it."""
        if stack not in self.ranges:
            numbers = [n for n in range(num_frames(self.dataset)) if self._stack(n) == stack]
            step = max(1.0, len(numbers) / _RANGE_FRAMES)
            chosen = [numbers[int(i * step)] for i in range(min(len(numbers), _RANGE_FRAMES))]
            parts = [self._sample(frame) for frame in stored_frames(self.dataset, chosen) if frame.stored is not None]
            self.ranges[stack] = percentile_range(np.concatenate(parts)) if parts else (0.0, 1.0)
        return self.ranges[stack]

    def _sample(self, frame: Frame) -> Pixels:
        stored = frame.stored
        assert stored is not None
        values = without_padding(stored, modality_values(stored, self.dataset, frame.number), self.dataset).ravel()
        return values[:: (values.size // _RANGE_VALUES) | 1].astype(np.float64)


def _stretched(
    region: tuple[int, int, int, int] | None, pixels: Pixels, squared: Pixels
) -> tuple[int, int, int, int] | None:
    """A region in the coordinates of the pixels that were made square."""
    if region is None or squared is pixels:
        return region
    down, across = squared.shape[0] / pixels.shape[0], squared.shape[1] / pixels.shape[1]
    top, left, bottom, right = region
    return round(top * down), round(left * across), round(bottom * down), round(right * across)
