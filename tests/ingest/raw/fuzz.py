"""Damaged archives, packed files and lists: each gives files, rows or a reason, in time and in little memory.

    python -m tests.ingest.raw.fuzz --seconds 60 [TARGET ...]

Every target runs in a process of its own for that long, with sound seeds that are changed at random (bits, numbers,
pieces cut out, doubled or swapped). What is raised besides the errors of our own, a crash, more than `CASE_SECONDS` for
one input or more memory than `MEMORY_BYTES` is a finding: its input is kept in the folder that is named. Exit code 1.
"""

from __future__ import annotations

import argparse
import gzip
import io
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn
from unittest.mock import patch

import numpy as np

from ingest.engines.memory import limit_growth
from ingest.job.list import list_raw
from ingest.raw import listing
from ingest.raw.archive_reading import open_items
from ingest.raw.items import RejectError
from ingest.raw.list_file import listed_items
from ingest.raw.packed import inflate
from ingest.raw.root import RawRoot
from ingest.raw.table_rows import table_rows
from ingest.settings import IngestSettings, LimitSettings
from shards.errors import SourceError
from tests.ingest.material import encoded, photo, public_spec, tar_of, zip_of
from tests.ingest.raw.archives import cut_into, spanned_zip64, zstd
from tests.ingest.raw.test_rar_and_7z import rar5, seven_zip

CASE_SECONDS: Final = 10
MEMORY_BYTES: Final = 512 << 20
LIMITS: Final = LimitSettings(decoded_bytes=64 << 20, max_file_bytes=64 << 20)
_INTERESTING: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)

Files = dict[str, bytes]
"""File name → bytes: what one input is."""


def archives(folder: Path) -> None:
    """List a folder and read all that is listed, heads first; all in this process, so that a crash is seen."""
    root = RawRoot(str(folder))
    with patch.object(listing, "available", return_value=False):
        items = list_raw(root.url, public_spec(), IngestSettings(limits=LIMITS)).items
    for item, raw in open_items(root, list(items), LIMITS):
        with suppress(RejectError):
            raw.head(16)
            raw.read()
        assert item.raw_path.isprintable() or item.raw_path


def lists(folder: Path) -> None:
    """Read the list in a folder."""
    name = next(path.name for path in folder.iterdir() if path.name.startswith("list."))
    with suppress(SourceError):
        list(listed_items(RawRoot(str(folder / name)), LIMITS))


def tables(folder: Path) -> None:
    """Read the rows of a table."""
    for path in folder.iterdir():
        with suppress(ValueError), path.open("rb") as stream:
            list(table_rows(stream, path.name, records="a.*" if path.suffix == ".json" else ""))


def packed(folder: Path) -> None:
    """Unpack a file."""
    for path in folder.iterdir():
        with suppress(RejectError):
            inflate(path.read_bytes(), LIMITS)


def _members() -> Files:
    return {"d/a.png": encoded(photo(0)), "b.txt": b"x" * 500, "i.zip": zip_of({"c.png": b"\x89PNG"})}


def _sparse_tar() -> Files:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        with path.open("wb") as file:
            file.write(b"\x89PNG" * 100)
            file.seek(1 << 17)
            file.write(b"end")
        command = ["tar", "-S", "--format=pax", "-C", folder, "-cf", "-", "a.png"]
        return {"s.tar": subprocess.run(command, check=True, capture_output=True).stdout}


def _parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"path": ["a.png", "b.png"], "group": ["x", "y"]}), buffer)
    return buffer.getvalue()


_CSV: Final = 'path,group\na.png,p1\n"b, c.png",p2\nzip://d/a.png::x.zip,p3\n'
TARGETS: Final[dict[str, tuple[Callable[[Path], None], Callable[[], Files]]]] = {
    "zip": (archives, lambda: {"x.zip": zip_of(_members())}),
    "tar": (archives, lambda: {"x.tar": tar_of(_members())}),
    "sparse-tar": (archives, _sparse_tar),
    "packed-tar": (archives, lambda: {"x.tar.gz": tar_of(_members(), "w:gz"), "y.tar.zst": zstd(tar_of(_members()))}),
    "7z": (archives, lambda: {"x.7z": seven_zip(_members())}),
    "rar": (archives, lambda: {"x.rar": rar5(_members())}),
    "cut": (archives, lambda: cut_into(zip_of(_members()), "x.zip", 900, "001")),
    "spanned": (archives, lambda: spanned_zip64({"a.png": b"a" * 99, "b.png": b"b" * 99, "c.png": b"c" * 99})),
    "packed": (packed, lambda: {"a.gz": gzip.compress(b"abc" * 999) * 2, "b.zst": zstd(b"abc" * 999)}),
    "list": (lists, lambda: {"list.csv": _CSV.encode(), "x.zip": zip_of(_members())}),
    "list-utf16": (lists, lambda: {"list.csv": _CSV.encode("utf-16")}),
    "list-parquet": (lists, lambda: {"list.parquet": _parquet()}),
    "tables": (tables, lambda: {"a.json": b'{"a": {"x": {"p": 1}, "y": [1, 2]}}', "b.tsv": b"a\tb\n1\t2\n"}),
}


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A changed copy of some bytes."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 8))):
        if not out:
            break
        at = int(rng.integers(len(out)))
        size = int(rng.integers(1, 64))
        kind = int(rng.integers(6))
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at] = int(rng.integers(256))
        elif kind == 2:
            value = struct.pack("<Q", int(rng.choice(_INTERESTING)))[: int(rng.choice([1, 2, 4, 8]))]
            out[at : at + len(value)] = value
        elif kind == 3:
            del out[at : at + size]
        elif kind == 4:
            out[at:at] = out[at : at + size]
        else:
            del out[at:]
    return bytes(out)


def run_target(name: str, seconds: float, seed: int, keep: Path) -> int:
    """Run inputs of one target; the one that is being run lies in `keep`, so that a crash leaves it behind.

    Returns:
        How many inputs were run.
    """
    check, seeds = TARGETS[name]
    sound = seeds()
    rng = np.random.default_rng(seed)
    count, end = 0, time.monotonic() + seconds
    while count == 0 or time.monotonic() < end:
        files = {path: damaged(data, rng) if rng.random() < 0.8 else data for path, data in sound.items()}
        run_input(check, files if count else sound, keep)
        count += 1
    return count


def run_input(check: Callable[[Path], None], files: Files, keep: Path) -> None:
    """Run one input."""
    for old in keep.iterdir():
        old.unlink()
    for path, data in files.items():
        (keep / path).write_bytes(data)
    signal.alarm(CASE_SECONDS)
    try:
        check(keep)
    finally:
        signal.alarm(0)


def _too_slow(_signal: int, _frame: Any) -> NoReturn:
    raise AssertionError(f"more than {CASE_SECONDS} s for one input")


def _child(name: str, seconds: float, seed: int, keep: Path) -> int:
    signal.signal(signal.SIGALRM, _too_slow)
    limit_growth(MEMORY_BYTES)
    try:
        count = run_target(name, seconds, seed, keep)
    except BaseException:  # noqa: BLE001  # whatever it is, it is the finding
        traceback.print_exc()
        return 1
    print(f"{name}: {count} inputs", flush=True)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run all targets, or some."""
    parser = argparse.ArgumentParser(description="Fuzz archives, packed files and lists.")
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.child:
        return _child(asked.targets[0], asked.seconds, asked.seed, Path(asked.child))
    failed = 0
    for name in asked.targets or TARGETS:
        keep = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
        options = ["--seconds", str(asked.seconds), "--seed", str(asked.seed), "--child", str(keep)]
        command = [sys.executable, "-m", "tests.ingest.raw.fuzz", name, *options]
        code = subprocess.run(command, check=False).returncode
        if code:
            failed += 1
            print(f"{name}: FOUND (exit code {code}), the input is in {keep}", flush=True)
            continue
        for path in keep.iterdir():
            path.unlink()
        keep.rmdir()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
