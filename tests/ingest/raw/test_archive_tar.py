"""Tars and packed files: every packing, sparse members, one pass."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from ingest.job.list import cut_units
from ingest.raw.archive_reading import open_items
from ingest.raw.items import RawItem
from ingest.raw.root import RawRoot
from ingest.settings import IngestSettings, LimitSettings
from tests.ingest.material import tar_of, write_folder, zip_of
from tests.ingest.raw.archives import PNG, everything_inside, listed, outcome, zstd


def test_units_never_cut_a_compressed_tar() -> None:
    items = [RawItem(path=f"{i}.png", size=10) for i in range(3)]
    items += [RawItem(path="a.tar.gz", member=str(i), kind="stream", size=10, offset=i) for i in range(5)]
    items += [RawItem(path="z.png", size=10)]
    units = cut_units(items, IngestSettings(unit_bytes=20))
    assert [len(unit.items) for unit in units] == [2, 6, 1]
    assert [item for unit in units for item in unit.items] == items


def test_gzipped_members_and_volumes_are_unpacked_by_name(tmp_path: Path) -> None:
    files = {"a.ppm.gz": gzip.compress(PNG)}
    write_folder(tmp_path, everything_inside({"i.zip": zip_of(files), "b.ppm.gz": gzip.compress(PNG)}))
    found = outcome(tmp_path)
    assert len(found) == 8
    assert set(found.values()) == {"ok"}


@pytest.mark.process
@pytest.mark.skipif(shutil.which("tar") is None, reason="no GNU tar on this machine")
@pytest.mark.parametrize(
    "options", [["--format=gnu"], ["--format=pax", "--sparse-version=1.0"], ["--format=pax", "-z"]]
)
def test_sparse_members_give_their_true_bytes(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "files").mkdir()
    with (tmp_path / "files" / "a.png").open("wb") as file:
        file.write(PNG)
        file.seek(1 << 20)
        file.write(b"end")
        file.truncate((1 << 20) + 70_000)
    (tmp_path / "files" / "b.png").write_bytes(PNG)
    (tmp_path / "raw").mkdir()
    name = tmp_path / "raw" / ("x.tar.gz" if "-z" in options else "x.tar")
    subprocess.run(["tar", "-S", *options, "-C", tmp_path / "files", "-cf", name, "a.png", "b.png"], check=True)
    seen = {}
    for item, raw in open_items(RawRoot(str(tmp_path / "raw")), listed(tmp_path / "raw"), LimitSettings()):
        seen[item.member] = raw.read()
        assert raw.head(8) == PNG[:8]
    assert seen == {name: (tmp_path / "files" / name).read_bytes() for name in ("a.png", "b.png")}


@pytest.mark.parametrize("extension", ["tar.bz2", "tar.xz", "tar.zst", "tzst"])
def test_tars_of_every_packing_are_read(tmp_path: Path, extension: str) -> None:
    packed = {"bz2": bz2.compress, "xz": lzma.compress}.get(extension[-3:].lstrip("."), zstd)
    write_folder(tmp_path, {f"x.{extension}": packed(tar_of({"a.png": PNG}))})
    assert outcome(tmp_path) == {f"tar://a.png::x.{extension}": "ok"}


def test_single_packed_files_are_read_whatever_packed_them(tmp_path: Path) -> None:
    packed = {"a.png.bz2": bz2.compress(PNG), "a.png.xz": lzma.compress(PNG), "a.png.zst": zstd(PNG)}
    write_folder(tmp_path, {**packed, "a.png.gz": PNG, "x.zip": zip_of(packed)})
    assert outcome(tmp_path) == {
        "bz2://a.png::a.png.bz2": "ok",
        "gzip://a.png::a.png.gz": "ok",
        "xz://a.png::a.png.xz": "ok",
        "zstd://a.png::a.png.zst": "ok",
        **{f"zip://{name}::x.zip": "ok" for name in packed},
    }
