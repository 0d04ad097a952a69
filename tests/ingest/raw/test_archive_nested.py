"""Archives inside archives are read once more, and counted together."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.job.list import cut_units, list_raw
from ingest.raw.archive_reading import open_items
from ingest.raw.items import RejectError
from ingest.raw.root import RawRoot
from ingest.settings import IngestSettings, LimitSettings
from tests.ingest.material import public_spec, tar_of, write_folder, zip_of
from tests.ingest.raw.archives import PNG, everything_inside, listed, outcome


def test_archives_inside_archives_are_read_once_more(tmp_path: Path) -> None:
    files = {"b.png": PNG, "a.png": PNG}
    inner = {"i.zip": zip_of(files), "j.tar": tar_of(files), "k.tgz": tar_of(files, "w:gz"), "c.png": PNG}
    write_folder(tmp_path, everything_inside(inner))
    found = outcome(tmp_path)
    assert set(found.values()) == {"ok"}
    assert len(found) == 4 * 7
    assert "zip://a.png::tar://i.zip::plain.tar" in found
    assert [path for path in found if path.endswith("stored.zip")] == [
        "zip://c.png::stored.zip",
        "zip://a.png::zip://i.zip::stored.zip",
        "zip://b.png::zip://i.zip::stored.zip",
        "tar://a.png::zip://j.tar::stored.zip",
        "tar://b.png::zip://j.tar::stored.zip",
        "tar://b.png::zip://k.tgz::stored.zip",
        "tar://a.png::zip://k.tgz::stored.zip",
    ]


def test_a_third_level_and_broken_inner_archives_are_items_with_a_reason(tmp_path: Path) -> None:
    deep = zip_of({"two.zip": zip_of({"three.zip": zip_of({"a.png": PNG}), "b.png": PNG}), "bad.zip": b"PK\x03\x04 no"})
    write_folder(tmp_path, {"one.zip": deep})
    assert outcome(tmp_path) == {
        "zip://b.png::zip://two.zip::one.zip": "ok",
        "zip://bad.zip::one.zip": "unreadable_archive",
        "zip://three.zip::zip://two.zip::one.zip": "unreadable_archive",
    }


def test_units_cut_inner_archives_only_where_they_lie_in_place(tmp_path: Path) -> None:
    inner = {"i.zip": zip_of({f"{i}.png": PNG for i in range(4)}, deflate=False)}
    write_folder(tmp_path, everything_inside(inner))
    units = cut_units(listed(tmp_path), IngestSettings(unit_bytes=1))
    assert sorted(len(unit.items) for unit in units) == [1] * 8 + [4, 4]
    for unit in units:
        for _, raw in open_items(RawRoot(str(tmp_path)), list(unit.items), LimitSettings()):
            assert raw.read() == PNG


@pytest.mark.slow
def test_a_bomb_in_two_layers_is_rejected(tmp_path: Path) -> None:
    zeros = b"\0" * (3 << 20)
    layer = {"i.zip": zip_of({f"{i}.png": zeros for i in range(40)})}
    settings = LimitSettings(max_ratio=1100)
    for name, data in everything_inside(layer).items():
        write_folder(tmp_path / name, {name: data})
        items = list(list_raw(str(tmp_path / name), public_spec(), IngestSettings(limits=settings)).items)
        outer_ratio = len(layer["i.zip"]) / len(data)
        assert outer_ratio > 3 or name in ("stored.zip", "plain.tar")
        reasons = set()
        for _, raw in open_items(RawRoot(str(tmp_path / name)), items, settings):
            try:
                reasons.add("ok" if raw.read() == zeros else "other")
            except RejectError as error:
                reasons.add(error.reason)
        assert reasons == ({"ok"} if outer_ratio <= 3 else {"decompression_bomb"}), name
