"""Unpacking: member after member, checked, within limits, and never more than asked for."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tracemalloc
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.raw.items import RejectError
from ingest.raw.packed import inflate, unpacked
from ingest.settings import LimitSettings

LIMITS = LimitSettings(max_ratio=1e9)


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


PACKERS: list[Callable[[bytes], bytes]] = [gzip.compress, bz2.compress, lzma.compress, zstd]
CHECKED = PACKERS[:3]


@pytest.mark.slow
@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("size", [0, 1, 100_000, 1_000_000])
def test_one_member_or_several_come_back_whole(pack: Callable[[bytes], bytes], size: int) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    assert inflate(pack(data), LIMITS) == data
    assert inflate(pack(data) + pack(b"more"), LIMITS) == data + b"more"


@pytest.mark.parametrize("pack", CHECKED)
@pytest.mark.parametrize("rest", [b"\0" * 1000, b"\x17trailing garbage", b"\0\0\0x"])
def test_what_follows_a_sound_member_is_left_out(pack: Callable[[bytes], bytes], rest: bytes) -> None:
    assert inflate(pack(b"data" * 1000) + rest, LIMITS) == b"data" * 1000


@pytest.mark.parametrize("pack", PACKERS)
def test_a_cut_or_a_wrong_checksum_is_unreadable(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(bytes(range(256)) * 400)
    broken = bytearray(packed)
    broken[-7 if pack is gzip.compress else len(packed) // 2] ^= 0xFF
    for data in (packed[:-5], packed[: len(packed) // 2], *([bytes(broken)] if pack in CHECKED else [])):
        with pytest.raises(RejectError) as caught:
            inflate(data, LIMITS)
        assert caught.value.reason == "unreadable"


def test_broken_zstd_data_leave_no_memory_behind() -> None:
    broken = zstd(bytes(range(256)) * 400)[:-5]

    def read() -> None:
        with pytest.raises(RejectError):
            inflate(broken, LIMITS)

    read()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(40):
        read()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 1 << 20


def test_what_is_not_packed_is_given_as_it_is() -> None:
    assert inflate(b"plain bytes", LIMITS) == b"plain bytes"
    assert inflate(b"", LIMITS) == b""


@pytest.mark.slow
@pytest.mark.parametrize("pack", PACKERS)
def test_bombs_stop_early(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(bytes(64 << 20))
    source = io.BytesIO(packed)
    stream = unpacked(source, len(packed), LimitSettings(max_ratio=50))
    with pytest.raises(RejectError) as caught:
        stream.read()
    assert caught.value.reason == "decompression_bomb"
    assert source.tell() <= (len(packed) + 10 if len(packed) < 1 << 18 else len(packed) // 2)


def test_the_budget_of_decoded_bytes_holds() -> None:
    with pytest.raises(RejectError) as caught:
        inflate(gzip.compress(bytes(3 << 20)), LimitSettings(max_ratio=1e9, decoded_bytes=2 << 20))
    assert caught.value.reason == "over_budget"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_streams_that_give_little_at_a_time_are_read(pack: Callable[[bytes], bytes]) -> None:
    source: Any = Prefetched(pack(b"abc" * 500))
    assert unpacked(source, 100, LIMITS).read() == b"abc" * 500


class Prefetched(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(11, size) if size is not None and size >= 0 else 11)


@given(st.binary(max_size=300), st.sampled_from(range(4)), st.data())
def test_any_damage_gives_bytes_or_a_reason(data: bytes, which: int, draw: st.DataObject) -> None:
    packed = bytearray(PACKERS[which](data))
    for _ in range(draw.draw(st.integers(0, 4))):
        packed[draw.draw(st.integers(0, len(packed) - 1))] = draw.draw(st.integers(0, 255))
    reason = "unreadable"
    try:
        inflate(bytes(packed[: draw.draw(st.integers(0, len(packed)))]), LIMITS)
    except RejectError as error:
        reason = error.reason
    assert reason in ("unreadable", "decompression_bomb", "over_budget")
