"""What tests of archives share."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ingest.job.list import list_raw
from ingest.raw.archive_reading import open_items
from ingest.raw.items import RawItem, RejectError
from ingest.raw.root import RawRoot
from ingest.settings import IngestSettings, LimitSettings
from tests.ingest.material import encoded, photo, public_spec, tar_of, zip_of

PNG = encoded(photo(0))
SETTINGS = IngestSettings()


def listed(folder: Path, **layout: object) -> list[RawItem]:
    return list(list_raw(str(folder), public_spec(layout=layout), SETTINGS).items)


def outcome(folder: Path, **layout: object) -> dict[str, str]:
    """Raw path → `ok` or the reason."""
    found = {}
    for item, raw in open_items(RawRoot(str(folder)), listed(folder, **layout), LimitSettings()):
        try:
            found[item.raw_path] = "ok" if raw.read() == PNG else "other bytes"
        except RejectError as error:
            found[item.raw_path] = error.reason
    return found


def everything_inside(outer: dict[str, bytes]) -> dict[str, bytes]:
    """The same archive in every kind of archive."""
    return {
        "stored.zip": zip_of(outer, deflate=False),
        "deflated.zip": zip_of(outer),
        "plain.tar": tar_of(outer),
        "packed.tar.gz": tar_of(outer, "w:gz"),
    }


def cut_into(data: bytes, name: str, size: int, suffix: str) -> dict[str, bytes]:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    letters = suffix == "aa"
    return {
        f"{name}.{chr(97 + n // 26) + chr(97 + n % 26) if letters else str(n + 1).zfill(len(suffix))}": piece
        for n, piece in enumerate(pieces)
    }


def noise(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (80, 80, 3), dtype=np.uint8)


def spanned_zip64(files: dict[str, bytes]) -> dict[str, bytes]:
    """A zip in three parts as APPNOTE has it, with zip64 end records: offsets count from the start of their part."""
    disks = [bytearray(b"PK\x07\x08"), bytearray(), bytearray()]
    directory = b""
    for number, (name, data) in enumerate(files.items()):
        disk = min(2, number * 3 // len(files))
        offset, crc = len(disks[disk]), zlib.crc32(data)
        sizes = struct.pack("<LLLHH", crc, len(data), len(data), len(name), 0)
        disks[disk] += b"PK\x03\x04" + struct.pack("<HHHHH", 45, 0, 0, 0, 33) + sizes + name.encode() + data
        entry = struct.pack("<HHHHHH", 45, 45, 0, 0, 0, 33) + sizes + struct.pack("<HHHLL", 0, disk, 0, 0, offset)
        directory += b"PK\x01\x02" + entry + name.encode()
    start = len(disks[2])
    record_at = start + len(directory)
    count = len(files)
    record = b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 2, 2, count, count, len(directory), start)
    locator = b"PK\x06\x07" + struct.pack("<LQL", 2, record_at, 3)
    end = b"PK\x05\x06" + struct.pack("<HHHHLLH", 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    disks[2] += directory + record + locator + end
    return {"big.z01": bytes(disks[0]), "big.z02": bytes(disks[1]), "big.zip": bytes(disks[2])}


def zstd(data: bytes) -> bytes:
    import pyarrow as pa

    return pa.Codec("zstd").compress(data, asbytes=True)
