"""The check decides what a bad image is: alike in C and in Python, and no decoder disagrees with it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from shards.decode import Crops, Status, open_decoder
from shards.decode.base import MAX_SCANS
from shards.decode.check import Checked, check_images
from shards.decode.native_decoder import NativeUnavailableError, load
from tests.shards.decode.images import decode, jpeg, jpeg_kinds, picture
from tests.shards.decode.mutations import damaged_anywhere, mutated

try:
    load()
except NativeUnavailableError as error:
    pytest.skip(f"the native decoder cannot be used: {error}", allow_module_level=True)

KINDS = jpeg_kinds(picture(33, 47, 3))
PLAIN, PROGRESSIVE = KINDS["4:2:0-plain"], KINDS["4:4:4-progressive"]
CROPS = [Crops(num=2, size_px=16), Crops(kind="center", size_px=12)]


def with_segment(blob: bytes, marker: int, body: bytes) -> bytes:
    """A segment more, behind the first marker."""
    return blob[:2] + bytes([0xFF, marker, *(len(body) + 2).to_bytes(2, "big")]) + body + blob[2:]


def changed(blob: bytes, marker: int, offset: int, *values: int) -> bytes:
    """Other bytes at an offset behind the length of the first segment of a kind."""
    at = blob.index(bytes([0xFF, marker])) + 4 + offset
    return blob[:at] + bytes(values) + blob[at + len(values) :]


def repeated(blob: bytes, times: int) -> bytes:
    last = blob.rindex(b"\xff\xda")
    return blob[:last] + blob[last:-2] * times + blob[-2:]


CODE_OF_TOO_MANY = bytes([0, 3, *[0] * 15, 1, 2, 3])
WIDE_VALUES = bytes([0, 0, 2, *[0] * 14, 1, 200])
CASES: dict[str, tuple[bytes, Status]] = {
    "whole": (PLAIN, Status.OK),
    "a comment": (with_segment(PLAIN, 0xFE, b"words"), Status.OK),
    "unknown JFIF version": (changed(PLAIN, 0xE0, 5, 77), Status.OK),
    "unknown Adobe transform": (with_segment(KINDS["cmyk"], 0xEE, b"Adobe\0\0\0\0\0\0\x4d"), Status.OK),
    "standard Huffman tables left out": (changed(PLAIN, 0xC4, -4, 0xFF, 0xE9), Status.OK),
    "a marker nobody knows": (with_segment(PLAIN, 0xF7, b"xx"), Status.CORRUPT),
    "a second beginning": (with_segment(PLAIN, 0xD8, b"xx"), Status.CORRUPT),
    "an end before any scan": (with_segment(PLAIN, 0xD9, b"xx"), Status.CORRUPT),
    "a Huffman code of too many": (with_segment(PLAIN, 0xC4, CODE_OF_TOO_MANY), Status.OK),
    "a Huffman table cut off": (with_segment(PLAIN, 0xC4, bytes(9)), Status.CORRUPT),
    "a quantisation table cut off": (with_segment(PLAIN, 0xDB, bytes(30)), Status.CORRUPT),
    "quantisation table 7": (with_segment(PLAIN, 0xDB, bytes([7, *[1] * 64])), Status.CORRUPT),
    "a missing quantisation table": (changed(PLAIN, 0xC0, 8, 3), Status.CORRUPT),
    "sampling by 0": (changed(PLAIN, 0xC0, 7, 0x01), Status.CORRUPT),
    "sampling by 3 beside 2": (changed(PLAIN, 0xC0, 7, 0x31, 0, 2, 0x21), Status.UNSUPPORTED),
    "a unit of 18 blocks": (changed(PLAIN, 0xC0, 7, 0x44), Status.CORRUPT),
    "too wide": (changed(PLAIN, 0xC0, 1, 0, 1, 0xFF, 0xFF), Status.UNSUPPORTED),
    "a scan of an unknown component": (changed(PLAIN, 0xDA, 1, 99), Status.CORRUPT),
    "a scan with table 9": (changed(PLAIN, 0xDA, 2, 0x90), Status.CORRUPT),
    "an odd restart interval": (with_segment(PLAIN, 0xDD, b"abc"), Status.CORRUPT),
    "a progression backwards": (changed(PROGRESSIVE, 0xDA, 8, 20, 3), Status.CORRUPT),
    "scans up to the limit": (repeated(PROGRESSIVE, MAX_SCANS - PROGRESSIVE.count(b"\xff\xda")), Status.OK),
    "too many scans": (repeated(PROGRESSIVE, MAX_SCANS + 1), Status.UNSUPPORTED),
    "progressive, cut off": (PROGRESSIVE[: len(PROGRESSIVE) // 2], Status.CORRUPT),
}


def statuses(blob: bytes, **settings: Any) -> dict[str, int]:
    """What becomes of a file, by decoder; gray and colour."""
    found = {"check": int(check_images([blob]).status[0])}
    for name, mode in (("native", "fast"), ("native", "exact"), ("library", "fast"), ("library", "exact")):
        for channels in (1, 3):
            _, status = decode(open_decoder(name, mode), [blob], CROPS, channels=channels, **settings)  # type: ignore[arg-type]
            found[f"{name} {mode} {channels}"] = int(status[0])
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_check_says_what_every_decoder_says(name: str) -> None:
    blob, wanted = CASES[name]
    assert set(statuses(blob).values()) == {int(wanted)}


def test_a_damaged_table_matters_where_a_scan_uses_it() -> None:
    """Tables that a later segment replaces may hold anything; the same at the end of the header may not."""
    for table in (CODE_OF_TOO_MANY, WIDE_VALUES):
        at = PLAIN.index(b"\xff\xda")
        late = PLAIN[:at] + bytes([0xFF, 0xC4, 0, len(table) + 2]) + table + PLAIN[at:]
        assert set(statuses(with_segment(PLAIN, 0xC4, table)).values()) == {Status.OK}
        assert set(statuses(late).values()) == {Status.CORRUPT}


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(mutated([*KINDS.values()]))
def test_no_decoder_fails_on_what_passes_and_none_takes_the_rest(blob: bytes) -> None:
    found = statuses(blob)
    assert len({status == Status.OK for status in found.values()}) == 1, found


def by_python(blobs: list[bytes], monkeypatch: pytest.MonkeyPatch) -> Checked:
    with monkeypatch.context() as patch:
        patch.setattr("shards.decode.check._function", lambda: None)
        return check_images(blobs)


def others() -> list[bytes]:
    made = [b"", b"\xff\xd8\xff", b"this is no image at all", b"short"]
    for kind in ("PNG", "BMP", "TIFF", "WEBP"):
        stream = io.BytesIO()
        Image.fromarray(picture(20, 30)).save(stream, kind)
        made += [stream.getvalue(), stream.getvalue()[:60]]
    return made


def test_the_extension_and_python_check_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    blobs = [*KINDS.values(), jpeg(picture(20, 30), exif=exif), *(blob for blob, _ in CASES.values()), *others()]
    assert_alike(blobs, monkeypatch)


@pytest.mark.slow
def test_the_extension_and_python_check_damaged_files_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [*KINDS.values(), jpeg(picture(20, 30), exif=Image.Exif())]
    assert_alike([damaged_anywhere(files[seed % len(files)], seed) for seed in range(6000)], monkeypatch)


def assert_alike(blobs: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = check_images(blobs), by_python(blobs, monkeypatch)
    good = ours.status == Status.OK
    assert 0 < good.sum() < len(blobs)
    assert np.array_equal(ours.status, theirs.status)
    for one, other in ((ours.is_jpeg, theirs.is_jpeg), (ours.upright, theirs.upright), (ours.turned, theirs.turned)):
        assert np.array_equal(one[good], other[good])
    assert np.array_equal(ours.components[good], theirs.components[good])


def test_sizes_are_those_of_the_upright_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    checked = check_images([jpeg(picture(20, 30), exif=exif), jpeg(picture(20, 30)), others()[4]])
    assert checked.upright[:2].tolist() == [[20, 30], [30, 20]]
    assert checked.turned[:2].tolist() == [True, False]
    assert checked.is_jpeg.tolist() == [True, True, False]
    assert checked.status.tolist() == [Status.OK] * 3
