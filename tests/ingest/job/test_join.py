"""Tables of a source: what they say of its files, and which files they select."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.job.join import join_all
from ingest.job.list import list_raw
from ingest.job.tables import read_table
from ingest.raw.items import RawItem
from ingest.raw.root import RawRoot
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec
from shards.errors import ConfigError, SourceError
from tests.ingest.material import encoded, ingest, photo, public_spec, tables, tar_of, write_folder, zip_of

PNG = encoded(photo(0))


def spec_of(*source_tables: dict[str, Any], **layout: Any) -> SourceSpec:
    return public_spec(layout={"include": ["*.png"], "tables": list(source_tables), **layout})


def listed(folder: Path, spec: SourceSpec) -> dict[str, RawItem]:
    return {item.inner_path: item for item in list_raw(str(folder), spec, IngestSettings()).items}


def raw(tmp_path: Path, table: str, text: str | bytes, *names: str) -> Path:
    data = text.encode() if isinstance(text, str) else text
    return write_folder(tmp_path / "raw", {table: data, **dict.fromkeys(names or ("i/a.png", "i/b.png"), PNG)})


@pytest.mark.parametrize(
    ("match", "key"),
    [("name", "a.png"), ("name", "somewhere/else/a.png"), ("stem", "a"), ("stem", "a.png"), ("path", "i/a.png")],
)
def test_a_file_is_found_by_name_stem_or_path(tmp_path: Path, match: str, key: str) -> None:
    folder = raw(tmp_path, "t.csv", f"file,patient\n{key},p1\nzzz,p2\n")
    found = listed(folder, spec_of({"path": "t.csv", "key": "file", "match": match, "group": ["patient"]}))
    assert {path: item.stated.group for path, item in found.items()} == {"i/a.png": "p1", "i/b.png": ""}


def test_a_file_is_found_by_an_expression(tmp_path: Path) -> None:
    folder = raw(tmp_path, "t.csv", "study,patient\ns1,p1\n", "s1/1.png", "s2/1.png")
    table = {"path": "t.csv", "key": "study", "match": "pattern", "pattern": "([^/]+)/[^/]+$", "select": "listed"}
    assert list(listed(folder, spec_of(table))) == ["s1/1.png"]


@pytest.mark.slow
def test_columns_say_modality_licence_group_and_label_in_words_of_ours(tmp_path: Path) -> None:
    files = {"t.csv": b"id,what,terms,lesion,patient,dx\na,MRI,CC0,,p1,nevus\nb,CT,,l2,,\n"}
    folder = write_folder(tmp_path / "raw", files | {f"{n}.png": encoded(photo(s)) for s, n in enumerate("ab")})
    spec = public_spec(
        modality=("CT", "MR"),
        modality_rule={"by": "list"},
        licence="MIT",
        layout={
            "include": ["*.png"],
            "tables": [
                {
                    "path": "t.csv",
                    "key": "id",
                    "match": "stem",
                    "modality": "what",
                    "licence": "terms",
                    "group": ["patient", "lesion"],
                    "label": "dx",
                    "values": {"what": {"MRI": "MR"}},
                }
            ],
        },
    )
    assert ingest(folder, tmp_path / "d", spec).kept == 2
    rows = {row["raw_path"]: row for row in tables(tmp_path / "d")["index"]}
    assert {path: (row["modality"], row["licence"]) for path, row in rows.items()} == {
        "a.png": ("MR", "CC0"),
        "b.png": ("CT", "MIT"),
    }
    [tar] = (tmp_path / "d/shards/test/mr").glob("*.tar")
    assert b'"label": "nevus"' in tar.read_bytes() or b'"label":"nevus"' in tar.read_bytes()


@pytest.mark.parametrize(
    ("table", "taken"),
    [
        ({"select": "listed"}, ["a.png", "b.png"]),
        ({"select": "listed", "where": {"split": ["train"]}}, ["a.png"]),
        ({"select": "unlisted", "where": {"split": ["test"]}}, ["a.png", "c.png"]),
        ({"select": "listed", "where": {"split": ["train"]}, "of": ["a.png", "b.png"]}, ["a.png", "c.png"]),
    ],
)
def test_a_table_selects(tmp_path: Path, table: dict[str, Any], taken: list[str]) -> None:
    folder = raw(tmp_path, "t.csv", "id,split\na.png,train\nb.png,test\n", "a.png", "b.png", "c.png")
    assert list(listed(folder, spec_of({"path": "t.csv", "key": "id", **table}))) == taken


def test_a_list_of_names_selects_members_of_compressed_tars_and_what_is_left_is_counted(tmp_path: Path) -> None:
    files = {"images/1.png": PNG, "images/2.png": PNG, "images/3.png": PNG}
    folder = write_folder(tmp_path / "raw", {"a.tar.gz": tar_of(files, "w:gz"), "z.txt": b"3.png\n1.png\n"})
    listing = list_raw(str(folder), spec_of({"path": "z.txt", "select": "listed"}), IngestSettings())
    assert [item.member for item in listing.items] == ["images/1.png", "images/3.png"]
    assert listing.ignored == {"unlisted": 1, "table": 1}


def test_a_table_inside_an_archive_and_of_several_files(tmp_path: Path) -> None:
    files = {
        "all.zip": zip_of({"m/one.csv": b"id,p\na,p1\n", "a.png": PNG, "b.png": PNG}),
        "two.csv": b"id,p\nb,p2\n",
    }
    table = {"path": "{one,two}.csv", "key": "id", "match": "stem", "group": ["p"]}
    found = listed(write_folder(tmp_path / "raw", files), spec_of(table))
    assert [item.stated.group for item in found.values()] == ["p1", "p2"]


def test_nested_json_with_the_case_as_group(tmp_path: Path) -> None:
    cases = {"u/1": {"S": [{"m": ["CT"], "f": ["data/a.png", "data/b.png"]}]}, "u/2": {"S": [{"m": [], "f": []}]}}
    folder = raw(tmp_path, "t.json", json.dumps(cases))
    table = {"path": "t.json", "records": "*.S.*", "key": "f", "group": ["@1"], "modality": "m"}
    found = listed(folder, spec_of(table))
    assert {item.stated[:2] for item in found.values()} == {("CT", "u/1")}


def test_rows_by_frame_tell_the_slides_inside_one_array(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "raw", {"meta.csv": b"i,wsi\n0,s1\n1,s1\n2,s2\n"})
    np.save(folder / "x.npy", np.stack([photo(seed) for seed in range(3)]))
    table = {"path": "meta.csv", "per_frame": True, "of": ["x.npy"], "group": ["wsi"]}
    spec = public_spec(layout={"include": ["*.npy"], "tables": [table]})
    assert ingest(folder, tmp_path / "d", spec).kept == 3
    groups = {row["raw_frame"]: row["group_id"] for row in tables(tmp_path / "d")["index"]}
    assert groups["f000000"] == groups["f000001"] != groups["f000002"]


def test_the_table_itself_may_be_the_raw_url(tmp_path: Path) -> None:
    folder = raw(tmp_path, "t.csv", "id\nb.png\n")
    spec = spec_of({"path": "t.csv", "key": "id", "select": "listed"})
    assert list(listed(folder / "t.csv", spec)) == ["i/b.png"]
    assert ingest(folder / "t.csv", tmp_path / "d", spec).kept == 1


@pytest.mark.parametrize(
    ("table", "text", "says"),
    [
        ({"path": "u.csv", "key": "id", "group": ["p"]}, "id,p\n", "lacks the table u.csv"),
        ({"path": "t.csv", "key": "idd", "group": ["p"]}, "id,p\na,b\n", "no column idd — did you mean id"),
        ({"path": "t.csv", "key": "id", "select": "listed", "where": {"p": ["x"]}}, "id,p\na,b\n", "lists no file"),
        ({"path": "t.csv", "key": "id", "select": "listed"}, "id,p\n", "lists no file"),
        ({"path": "t.json", "key": "id", "select": "listed"}, "{", "lacks the table"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(tmp_path: Path, table: dict[str, Any], text: str, says: str) -> None:
    folder = raw(tmp_path, "t.csv", text)
    with pytest.raises(SourceError, match=says):
        listed(folder, spec_of(table))


def test_a_broken_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read the table t\.json"):
        listed(raw(tmp_path, "t.json", "{"), spec_of({"path": "t.json", "key": "id", "group": ["p"]}))


def test_an_optional_table_may_be_missing(tmp_path: Path) -> None:
    spec = spec_of({"path": "u.csv", "key": "id", "select": "listed", "optional": True})
    assert list(listed(raw(tmp_path, "t.csv", ""), spec)) == ["i/a.png", "i/b.png"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"path": "t.csv", "group": ["p"]}, "columns need a `key`"),
        ({"path": "t.csv", "key": "a", "match": "pattern"}, "`pattern` belongs to"),
        ({"path": "t.csv", "per_frame": True, "group": ["p"]}, "`per_frame` goes by position"),
        ({"path": "t.csv", "kye": "a"}, "did you mean 'key'"),
    ],
)
def test_mistakes_in_a_table_are_named(table: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        spec_of(table)


def test_other_words_in_a_table_are_another_listing(tmp_path: Path) -> None:
    folder, spec = (
        raw(tmp_path, "t.csv", "id,p\na,p1\n"),
        spec_of({"path": "t.csv", "key": "id", "group": ["p"], "match": "stem"}),
    )
    first = list_raw(str(folder), spec, IngestSettings()).digest
    (folder / "t.csv").write_text("id,p\na,p2\n")
    assert list_raw(str(folder), spec, IngestSettings()).digest != first


def test_a_table_says_its_word_of_the_files_that_it_lists(tmp_path: Path) -> None:
    folder = raw(tmp_path, "t.csv", "file,patient\na.png,p1\n")
    (table,) = spec_of({"path": "t.csv", "key": "file", "group": ["patient"], "select": "listed"}).layout.tables
    join = read_table(RawRoot(str(folder)), table, [RawItem(path="t.csv", size=22)], IngestSettings().limits)
    assert join.rows == 1
    found = join_all(RawItem(path="i/a.png"), [join])
    assert found is not None
    assert found.stated.group == "p1"
    assert join_all(RawItem(path="i/b.png"), [join]) is None
