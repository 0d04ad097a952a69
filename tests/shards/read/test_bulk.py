"""Bulk reading of local shards: the right bytes, checked, into buffers that are not touched while anybody looks."""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import ShardError
from shards.read.bulk import BulkReader, ReadStatus, native_library
from shards.read.local import FileReader
from shards.read.locations import Location
from shards.store import LocalStore

LIBRARY = native_library()
needs_native = pytest.mark.skipif(LIBRARY is None, reason="the extension is not built, or there is no fast CRC here")


@pytest.fixture
def places(tmp_path: Path) -> list[Location]:
    rng = np.random.default_rng(3)
    found = []
    for shard in ("a.tar", "b.tar"):
        images = [rng.bytes(int(size)) for size in rng.integers(1, 60_000, 40)]
        offset, content = 0, b""
        for number, image in enumerate(images):
            content += b"\0" * 512 + image
            found.append(Location(f"{shard}-{number}", shard, offset + 512, len(image), google_crc32c.value(image)))
            offset = len(content)
        (tmp_path / shard).write_bytes(content)
    return found


def expected(folder: Path, location: Location) -> bytes:
    return (folder / location.shard).read_bytes()[location.offset : location.offset + location.length]


@needs_native
@given(data=st.binary(max_size=300), repeats=st.integers(1, 120), portable=st.booleans(), start=st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_the_checksum_is_crc32c(data: bytes, repeats: int, start: int, *, portable: bool) -> None:
    assert LIBRARY is not None
    content = (b"x" * start + data * repeats)[start:]
    buffer = ctypes.create_string_buffer(b"x" * start + content)
    address = ctypes.addressof(buffer) + start
    assert LIBRARY.bv_crc32c(address, len(content), portable) == google_crc32c.value(content)


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_native), False])
def test_samples_come_as_they_are(tmp_path: Path, places: list[Location], *, native: bool) -> None:
    reader = FileReader(LocalStore(tmp_path))
    if not native:
        reader._bulk = None
    order = np.random.default_rng(1).permutation(len(places)).tolist()
    read = reader.read([places[number] for number in order])
    assert [bytes(blob) for blob in read] == [expected(tmp_path, places[number]) for number in order]


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_native), False])
def test_flipped_and_missing_bytes_are_bad_samples(tmp_path: Path, places: list[Location], *, native: bool) -> None:
    content = bytearray((tmp_path / "b.tar").read_bytes())
    flipped, cut = places[45], places[-1]
    content[flipped.offset + flipped.length // 2] ^= 1
    (tmp_path / "b.tar").write_bytes(content[:-1])
    reader = FileReader(LocalStore(tmp_path))
    if not native:
        reader._bulk = None
    read = reader.read(places)
    bad = [number for number, blob in enumerate(read) if isinstance(blob, ShardError)]
    assert bad == [45, len(places) - 1]
    assert flipped.key in str(read[45])
    assert cut.key in str(read[-1])


@needs_native
def test_a_file_that_cannot_be_read_has_its_status(tmp_path: Path) -> None:
    assert LIBRARY is not None
    folder = os.open(tmp_path, os.O_RDONLY)
    _, status = BulkReader(LIBRARY).read([folder, 10_000], [0, 0], [5, 5], [0, 0])
    os.close(folder)
    assert status.tolist() == [ReadStatus.FAILED, ReadStatus.FAILED]


@needs_native
def test_views_that_are_kept_keep_their_bytes_and_others_make_room(tmp_path: Path, places: list[Location]) -> None:
    reader = FileReader(LocalStore(tmp_path))
    assert reader._bulk is not None
    kept = [reader.read([place])[0] for place in places[:20]]
    for _ in range(50):
        reader.read(places)
    assert [bytes(blob) for blob in kept] == [expected(tmp_path, place) for place in places[:20]]
    assert len(reader._bulk._pool) <= 22


@needs_native
def test_threads_do_not_share_a_buffer(tmp_path: Path, places: list[Location]) -> None:
    reader = FileReader(LocalStore(tmp_path))
    wanted = [expected(tmp_path, place) for place in places]

    def work(seed: int) -> bool:
        order = np.random.default_rng(seed).permutation(len(places)).tolist()
        read = reader.read([places[number] for number in order])
        return [bytes(blob) for blob in read] == [wanted[number] for number in order]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(80)))
