"""The chain of directories of a TIFF is followed without decoding anything."""

from __future__ import annotations

import io
import struct

import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from ingest.raw.items import RejectError
from ingest.readers.tiff_directories import check_directories
from tests.ingest.material import photo


def pages(count: int, *, big: bool = False, order: str = "<") -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=big, byteorder=order) as writer:  # type: ignore[arg-type]
        for number in range(count):
            writer.write(photo(number, channels=1), contiguous=False)
    return buffer.getvalue()


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_directories_are_counted(order: str, *, big: bool) -> None:
    assert check_directories(pages(5, big=big, order=order)) == 5


def test_a_circle_is_found_wherever_it_begins() -> None:
    data = bytearray(pages(3))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
        offsets = [page.offset for page in tiff.pages]
    last = offsets[2]
    entries = struct.unpack_from("<H", data, last)[0]
    for target in offsets:
        struct.pack_into("<I", data, last + 2 + 12 * entries, target)
        with pytest.raises(RejectError, match="circle"):
            check_directories(bytes(data))


def test_a_cut_file_keeps_what_is_there() -> None:
    data = pages(3)
    assert check_directories(data[: len(data) // 2]) in (1, 2, 3)
    assert check_directories(b"II*\0") == 0


def test_absurd_chains_are_refused() -> None:
    step = 6
    chain = b"".join(struct.pack("<HI", 0, 8 + (number + 1) * step) for number in range(70_000))
    with pytest.raises(RejectError) as caught:
        check_directories(b"II*\0" + struct.pack("<I", 8) + chain)
    assert caught.value.reason == "over_budget"
    with pytest.raises(RejectError):
        check_directories(b"II*\0" + struct.pack("<IH", 8, 65535))


@given(st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"]), st.binary(max_size=200))
def test_any_bytes_end(magic: bytes, data: bytes) -> None:
    reason = "unreadable"
    try:
        assert check_directories(magic + data) >= 0
    except RejectError as error:
        reason = error.reason
    assert reason == "unreadable"
