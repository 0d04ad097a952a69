"""The stored values of a DICOM file, frame by frame: a frame that cannot be decoded costs that frame alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

import numpy as np

from ingest.raw.items import RejectError
from ingest.readers.base import Pixels
from ingest.readers.codestream import codestream_size, has_endless_box
from ingest.readers.dicom.attributes import code_of, num_frames, number_of
from ingest.readers.libraries import library_for

_BROKEN: Final = (ValueError, AttributeError, KeyError, OSError, TypeError, IndexError, EOFError, AssertionError)
_MOST_IN_A_ROW: Final = 64
"""So many broken frames one after the other, and the rest of the file is given up."""


class Frame(NamedTuple):
    """One frame: its stored values (colour already RGB), or why there are none."""

    number: int
    stored: Pixels | None
    reason: str = ""
    detail: str = ""


def lower_bits(dataset: Any) -> None:
    """Move samples that lie in the upper bits of their words down to bit 0, as older devices stored them.

    `HighBit` is `BitsStored - 1` in all that is written today; earlier editions of PS3.5 8.1.1 let it be more, and
    decoders of uncompressed data do not look at it.

    Raises:
        RejectError: The words are compressed as they are (RLE).
    """
    allocated, stored = number_of(dataset, "BitsAllocated", 0), number_of(dataset, "BitsStored", 0)
    low = number_of(dataset, "HighBit", stored - 1) + 1 - stored
    syntax = dataset.file_meta.TransferSyntaxUID
    if not 0 < low <= allocated - stored or allocated not in (8, 16, 32) or "PixelData" not in dataset:
        return
    if syntax == "1.2.840.10008.1.2.5":
        raise RejectError("unsupported", "RLE of samples in the upper bits of their words")
    if not syntax.is_encapsulated:
        order = "<" if syntax.is_little_endian else ">"
        words = np.frombuffer(dataset.PixelData, f"{order}u{allocated // 8}", len(dataset.PixelData) * 8 // allocated)
        dataset.PixelData = (words >> low).astype(words.dtype).tobytes()


def stored_frames(dataset: Any, numbers: Sequence[int]) -> Iterator[Frame]:
    """The frames of these numbers, in order, one in memory at a time.

    A file that holds fewer frames than its header states gives one frame `missing_frames` in the place of the first
    that is not there.

    Raises:
        RejectError: No frame can be decoded for a reason that is the file's, not a frame's.
    """
    count = num_frames(dataset)
    _check_codestreams(dataset, count)
    there = _whole_frames(dataset, count)
    if there == 0:
        raise RejectError("undecodable", "fewer bytes than a frame")
    wanted = [number for number in numbers if number < there]
    met, broken = 0, 0
    while met < len(wanted):
        try:
            for stored in _decoded(dataset, wanted[met:], count):
                yield Frame(wanted[met], _stored_bits(stored, dataset))
                met, broken = met + 1, 0
            break  # fewer frames than wanted are there
        except (NotImplementedError, RuntimeError, *_BROKEN) as error:  # no decoder, or all of them have failed
            if not _is_for_turbo(dataset):
                _require_plugin(dataset.file_meta.TransferSyntaxUID)
            reason = _reason(dataset, error)
            if count == 1 or reason == "unsupported":
                raise RejectError(reason, type(error).__name__) from error
            if there == count:
                there = _encoded_frames(dataset, count)
                wanted = [number for number in wanted if number < there]
                if met == len(wanted):
                    break
            yield Frame(wanted[met], None, reason, type(error).__name__)
            met, broken = met + 1, broken + 1
            if broken >= _MOST_IN_A_ROW and met < len(wanted):
                raise RejectError(reason, f"{broken} frames in a row") from error
    missing = len(numbers) - met
    if missing:
        yield Frame(numbers[met], None, "missing_frames", f"{missing} of {count} stated frames are not in the file")


def _check_codestreams(dataset: Any, count: int) -> None:
    """Raise RejectError where a compressed frame states another size than the header: decoders believe the frame."""
    from pydicom.encaps import generate_frames

    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated or "PixelData" not in dataset:
        return
    stated = number_of(dataset, "Rows", 0), number_of(dataset, "Columns", 0)
    try:
        for data in generate_frames(dataset.PixelData, number_of_frames=count):
            if has_endless_box(data):
                raise RejectError("undecodable", "a box of a JPEG 2000 frame without a length")
            size = codestream_size(data)
            if size is not None and size != stated:
                raise RejectError(
                    "undecodable", f"a frame of {size[1]}x{size[0]}, the header says {stated[1]}x{stated[0]}"
                )
    except _BROKEN:
        return  # broken frames have their turn one by one


def _reason(dataset: Any, error: BaseException) -> str:
    known = dataset.file_meta.TransferSyntaxUID
    # pydicom raises NotImplementedError where it knows no decoder, RuntimeError where none is installed or all failed
    if isinstance(error, (NotImplementedError, RuntimeError)) and (known.is_private or not _has_decoder(known)):
        return "unsupported"
    return "undecodable"


def _decoded(dataset: Any, numbers: Sequence[int], count: int) -> Iterator[Pixels]:
    from pydicom.pixels.utils import iter_pixels, pixel_array

    if _is_for_turbo(dataset):
        yield from _jpegs_by_turbo(dataset, numbers, count)
        return
    syntax = dataset.file_meta.TransferSyntaxUID
    # uncompressed gray is looked at where it lies; `_stored_bits` takes the bits off that pydicom would shift out
    in_place = not syntax.is_encapsulated and number_of(dataset, "SamplesPerPixel", 1) == 1
    how: dict[str, Any] = {"view_only": True, "correct_unused_bits": False} if in_place else {}
    how |= {"decoding_plugin": _plugin(syntax), "allow_excess_frames": False}
    if count == 1:
        yield pixel_array(dataset, **how)
    else:
        yield from iter_pixels(dataset, indices=None if len(numbers) == count else list(numbers), **how)


@cache
def _plugin(syntax: Any) -> str:
    """The decoder to use; empty where pydicom may choose.

    GDCM ends the process on some damaged JPEGs, so it decodes only what nothing else does.
    """
    decoder = _decoder(syntax)
    there = () if decoder is None else decoder.available_plugins
    return next((name for name in ("pyjpegls", "pylibjpeg", "pillow") if name in there), "") if "gdcm" in there else ""


def _is_for_turbo(dataset: Any) -> bool:
    """Whether frames go to libjpeg-turbo of imagecodecs: JPEG of 12 bits, and lossless JPEG that keeps its colours.

    Of pydicom's plugins only GDCM decodes lossless JPEG (Process 14), and it ends the process on some damaged frames.
    """
    from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == JPEGExtended12Bit:
        return number_of(dataset, "BitsStored", 8) > 8
    if syntax not in (JPEGLossless, JPEGLosslessSV1) or find_spec("imagecodecs") is None:
        return False
    return code_of(dataset, "PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB")


def _jpegs_by_turbo(dataset: Any, numbers: Sequence[int], count: int) -> Iterator[Pixels]:
    """JPEGs that no plugin of pydicom decodes safely under a licence other than the GPL."""
    from pydicom.encaps import generate_frames

    imagecodecs = library_for("JPEG of 12 bits in DICOM", "imagecodecs", "codecs")
    is_signed = number_of(dataset, "PixelRepresentation", 0) == 1
    wanted = set(numbers)
    for number, data in enumerate(generate_frames(dataset.PixelData, number_of_frames=count)):
        if number not in wanted:
            continue
        try:
            pixels = np.asarray(imagecodecs.jpeg_decode(data))
        except Exception as error:  # the codec's own error class is not public
            raise ValueError("not decodable") from error
        if pixels.shape[:2] != (number_of(dataset, "Rows", 0), number_of(dataset, "Columns", 0)) or not pixels.size:
            raise ValueError("the codestream has another size than the header says")
        if pixels.ndim - 2 != (number_of(dataset, "SamplesPerPixel", 1) > 1):
            raise ValueError("the codestream has other channels than the header says")
        yield pixels.view(f"i{pixels.dtype.itemsize}") if is_signed else pixels


def _decoder(syntax: Any) -> Any:
    """What pydicom decodes a transfer syntax by; None where it knows none."""
    from pydicom.pixels.decoders.base import get_decoder

    try:
        return get_decoder(syntax)
    except NotImplementedError:  # what pydicom raises of a transfer syntax that it does not know
        return None


def _has_decoder(syntax: Any) -> bool:
    decoder = _decoder(syntax)
    return decoder is not None and (bool(decoder.is_available) or not syntax.is_encapsulated)


def _require_plugin(syntax: Any) -> None:
    """Raise LibraryError where GDCM decodes a transfer syntax, nothing else here does, and it is not installed."""
    decoder = _decoder(syntax)
    plugins = () if decoder is None else decoder.missing_dependencies
    if not _has_decoder(syntax) and any("gdcm" in plugin for plugin in plugins):
        library_for(f"DICOM in {syntax.name}", "gdcm", "gdcm")


def _whole_frames(dataset: Any, count: int) -> int:
    """How many frames the bytes of an uncompressed multi-frame file hold; the rest of a cut one is taken away."""
    if count == 1 or dataset.file_meta.TransferSyntaxUID.is_encapsulated or "PixelData" not in dataset:
        return count
    bits = number_of(dataset, "Rows", 0) * number_of(dataset, "Columns", 0) * number_of(dataset, "BitsAllocated", 8)
    bits *= number_of(dataset, "SamplesPerPixel", 1)
    if code_of(dataset, "PhotometricInterpretation") == "YBR_FULL_422":
        bits = bits * 2 // 3
    held = len(dataset.PixelData) * 8 // max(1, bits)
    if held < count:
        dataset.PixelData = dataset.PixelData[: held * bits // 8]
        dataset.NumberOfFrames = held
    return min(held, count)


def _encoded_frames(dataset: Any, count: int) -> int:
    """How many of the stated frames a compressed file holds, as far as that can be counted without decoding."""
    from pydicom.encaps import generate_frames

    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return count
    held = 0
    try:
        for _ in generate_frames(dataset.PixelData, number_of_frames=count):
            held += 1
    except _BROKEN:
        return held or count
    return min(held, count)


def _stored_bits(stored: Pixels, dataset: Any) -> Pixels:
    """Gray values without the bits above `BitsStored`, where some scanners keep an overlay plane.

    RLE frames come without them; codecs and views of uncompressed frames have whatever was stored.
    """
    bits, allocated = number_of(dataset, "BitsStored", 0), stored.dtype.itemsize * 8
    if stored.ndim != 2 or stored.dtype.kind not in "iu" or not 0 < bits < allocated:
        return stored
    if number_of(dataset, "PixelRepresentation", 0) == 1:
        half = 1 << (bits - 1)
        if stored.min(initial=0) >= -half and stored.max(initial=0) < half:
            return stored
        unused = allocated - bits
        signed = stored.astype(f"i{stored.dtype.itemsize}")
        return np.asarray((signed << unused) >> unused)
    if stored.dtype.kind == "u" and stored.max(initial=0) >> bits:
        return np.asarray(stored & stored.dtype.type((1 << bits) - 1))
    return stored
