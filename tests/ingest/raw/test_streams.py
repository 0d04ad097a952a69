"""The streams that archives are read through, against plain bytes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.raw.items import RejectError
from ingest.raw.root import RawRoot
from ingest.raw.streams import Joined, Limited, Shared, Sparse, Window, is_bomb, sound_pieces, spool
from ingest.settings import LimitSettings
from tests.ingest.material import write_folder

DATA = bytes(range(256)) * 4
LIMITS = LimitSettings()
moves = st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 300)), max_size=8)


def same_reads(stream: io.RawIOBase, expected: bytes, steps: list[tuple[int, int]]) -> None:
    reader = io.BufferedReader(stream, 16)
    for offset, size in steps:
        assert reader.seek(offset) == offset
        assert reader.read(size) == expected[offset : offset + size]
    reader.seek(0)
    assert reader.read() == expected


@given(st.integers(0, 1024), st.integers(0, 1200), moves)
def test_a_window_is_a_file_of_its_own(offset: int, size: int, steps: list[tuple[int, int]]) -> None:
    expected = DATA[offset : offset + size]
    same_reads(Window(io.BytesIO(DATA), offset, len(expected)), expected, steps)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=5), moves)
def test_parts_are_read_as_one(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], steps: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    expected = (DATA * 2)[: sum(sizes)]
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    files = {f"{n}": expected[start : start + size] for n, (start, size) in enumerate(zip(starts, sizes, strict=True))}
    write_folder(folder, files)
    joined = Joined(RawRoot(str(folder)).open, [(name, len(data)) for name, data in files.items()])
    assert joined.starts == starts
    same_reads(joined, expected, steps)


def test_few_of_many_parts_are_open_at_a_time(tmp_path: Path) -> None:
    files = {f"{number:04d}": DATA[number % 256 : number % 256 + 3] for number in range(300)}
    write_folder(tmp_path, files)
    joined = Joined(RawRoot(str(tmp_path)).open, [(name, 3) for name in files])
    expected = b"".join(files.values())
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.exists() else 0
    same_reads(joined, expected, [(at, 5) for at in (899, 0, 450, 3, 898)])
    assert before == 0 or len(list(descriptors.iterdir())) < before + 30


def test_an_overlay_is_read_in_place_of_what_lies_there(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": DATA[:100], "b": DATA[100:200]})
    joined = Joined(RawRoot(str(tmp_path)).open, [("a", 100), ("b", 100)])
    joined.overlay(95, b"0123456789")
    assert io.BufferedReader(joined).read() == DATA[:95] + b"0123456789" + DATA[105:200]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), max_size=6), st.integers(0, 50), moves)
def test_a_sparse_member_is_its_pieces_and_zeros(
    gaps: list[tuple[int, int]], rest: int, steps: list[tuple[int, int]]
) -> None:
    expected, stored, pieces = bytearray(), b"head", []
    for gap, length in gaps:
        expected += bytes(gap)
        pieces.append((len(expected), length))
        part = DATA[len(stored) % 200 : len(stored) % 200 + length]
        expected, stored = expected + part, stored + part
    expected += bytes(rest)
    assert sound_pieces(pieces, len(expected))
    same_reads(Sparse(io.BytesIO(stored), 4, len(expected), pieces), bytes(expected), steps)


@pytest.mark.parametrize("pieces", [[(0, 5), (4, 1)], [(5, 1), (0, 1)], [(0, 11)], [(-1, 2)], [(0, -1)]])
def test_maps_of_sparse_members_that_cannot_be_are_told(pieces: list[tuple[int, int]]) -> None:
    assert not sound_pieces(pieces, 10)


def test_a_limited_stream_ends() -> None:
    limited = Limited(io.BytesIO(DATA), 10)
    assert [limited.read(7), limited.read(), limited.read(5)] == [DATA[:7], DATA[7:10], b""]


def test_a_shared_view_leaves_the_file_open() -> None:
    spooled = io.BytesIO(DATA)
    for _ in range(2):
        with Shared(spooled) as view:
            assert view.read() == DATA
    assert not spooled.closed


def test_spooling_stops_at_a_bomb_and_keeps_what_is_sound() -> None:
    with spool(io.BytesIO(DATA), 1, LIMITS) as spooled:
        assert spooled.read() == DATA
    with pytest.raises(RejectError, match="decompression_bomb"):
        spool(io.BytesIO(bytes(5 << 20)), 100, LIMITS)


def test_bombs_are_told_by_their_sizes() -> None:
    assert not is_bomb(1 << 20, 1, LIMITS)
    assert is_bomb((1 << 20) + 1, 100, LIMITS)
    assert is_bomb(LIMITS.max_file_bytes + 1, 1e12, LIMITS)
    assert not is_bomb(LIMITS.max_file_bytes + 1, 1e12, LIMITS, whole=True)
