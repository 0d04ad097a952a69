"""Lists as spreadsheets and scripts save them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.raw.items import RawItem
from ingest.raw.list_file import listed_items
from ingest.raw.root import RawRoot
from ingest.settings import LimitSettings
from ingest.source.spec import SourceSpec
from shards.errors import SourceError
from tests.ingest.material import encoded, ingest, photo, public_spec, tables, tar_of, write_folder, zip_of

ROWS = "path,group\na.png,p1\n眼底 1.png,p2\n"


def items_of(folder: Path, name: str, data: bytes) -> list[RawItem]:
    (folder / name).write_bytes(data)
    return list(listed_items(RawRoot(str(folder / name)), LimitSettings()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path, {"a.png": b"1", "眼底 1.png": b"22", "d/b.png": b"333"})


@pytest.mark.parametrize(
    "data",
    [
        ROWS.encode(),
        ROWS.encode("utf-8-sig"),
        ROWS.replace("\n", "\r\n").encode(),
        ROWS.replace("\n", "\r").encode(),
        ROWS.replace(",", ";").encode(),
        ROWS.replace(",", "\t").encode(),
        ROWS.encode("utf-16"),
        ROWS.encode("utf-16-le"),
        ROWS.encode("utf-16-be"),
        ROWS.replace("path", " Path ").encode(),
        ROWS.replace("path", "File_Name").replace("group", "Patient_ID").encode(),
        ROWS.replace("a.png", ".\\a.png").encode(),
    ],
)
def test_lists_are_read_as_they_are_saved(folder: Path, data: bytes) -> None:
    found = items_of(folder, "list.csv", data)
    assert [(item.path, item.size, item.stated.group) for item in found] == [
        ("a.png", 1, "p1"),
        ("眼底 1.png", 2, "p2"),
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("path\nMüller.png\n".encode("cp1252"), "UTF-8"),
        ("path\n庭.png\n".encode("cp932"), "UTF-8"),
        (b"name,other\na.png,1\n", "without `path`; its columns are name, other"),
        (b"path,x\na.png," + b"y" * (17 << 20), "no list that can be read"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_in_words(folder: Path, data: bytes, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        items_of(folder, "list.csv", data)


def test_a_list_in_an_old_code_page_fits_files_with_the_same_bytes_in_their_names(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/M\xfcller.png")).write_bytes(b"4444")
    found = items_of(folder, "list.csv", b"path\nM\xfcller.png\n")
    assert [(item.size, item.raw_path) for item in found] == [(4, "M\\xfcller.png")]


def test_paths_that_lead_out_and_files_that_are_not_there_have_a_reason(folder: Path) -> None:
    names = ["../x.png", "/etc/passwd", "d/../../x", "..\\x.png", "C:\\x.png", "gone.png", "d/../a.png", "d"]
    found = items_of(folder, "list.csv", "\n".join(["path", *names]).encode())
    assert {item.path: item.detail for item in found} == {
        **dict.fromkeys(names[:5], "path_traversal"),
        "gone.png": "unreadable:FileNotFoundError",
        "d/../a.png": "",
        "d": "unreadable:OSError",
    }


def test_a_colon_in_a_listed_name_is_no_drive(tmp_path: Path) -> None:
    names = ["col:on.png", "12:30/a.png", "..a.png"]
    folder = write_folder(tmp_path, dict.fromkeys(names, b"1"))
    found = items_of(folder, "list.csv", "\n".join(["path", *names]).encode())
    assert {item.path: item.detail for item in found} == dict.fromkeys(names, "")


def test_members_of_archives_are_named_as_in_the_index(tmp_path: Path) -> None:
    files = {f"d/{number}.png": encoded(photo(number)) for number in range(3)}
    raw = write_folder(tmp_path / "raw", {"x.zip": zip_of(files), "y/z.tar.gz": tar_of(files, "w:gz")})
    names = ["tar://d/2.png::y/z.tar.gz", "zip://d/1.png::x.zip", "tar://d/0.png::y/z.tar.gz", "zip://gone.png::x.zip"]
    (raw / "list.csv").write_text("path,patient\n" + "".join(f"{name},p{n}\n" for n, name in enumerate(names)))
    spec = SourceSpec.model_validate(public_spec().model_dump() | {"layout": {"reader": "list"}})
    report = ingest(raw / "list.csv", tmp_path / "dataset", spec)
    found = tables(tmp_path / "dataset")
    assert sorted(row["raw_path"] for row in found["index"]) == sorted(names[:3])
    assert [(row["raw_path"], row["detail"]) for row in found["rejects"]] == [(names[3], "no such member")]
    assert (report.files, report.kept) == (4, 3)


def test_a_url_to_a_device_is_not_read(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", {"a b.png": encoded(photo(0))})
    (raw / "list.csv").write_text(f"url\nfile:///dev/zero\nfile://{raw / 'a b.png'}\n")
    spec = SourceSpec.model_validate(public_spec().model_dump() | {"layout": {"reader": "list"}})
    report = ingest(raw / "list.csv", tmp_path / "dataset", spec)
    assert (report.kept, report.rejected) == (1, 1), quote("a b.png")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_an_error_in_words(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    with suppress(SourceError):
        items_of(folder, "any.csv", b"path,group\n" + data)


def test_the_list_may_lie_in_a_folder_and_leave_a_path_empty(tmp_path: Path) -> None:
    files = {"list.csv": b"path,label\na.png,x\n,y\n", "notes.csv": b"a,b\n", "a.png": encoded(photo(0))}
    spec = public_spec(layout={"reader": "list", "include": ["list.csv"]})
    report = ingest(write_folder(tmp_path / "raw", files), tmp_path / "d", spec)
    assert (report.kept, report.reasons) == (1, {"unreadable": 1})


def test_columns_that_say_nothing_are_named(folder: Path) -> None:
    table = "path,Patient_ID,subject,label,Operator,laterality\na.png,p1,s1,x,o,left\n"
    (folder / "l.csv").write_text(table)
    unused: dict[str, list[str]] = {}
    (item,) = listed_items(RawRoot(str(folder / "l.csv")), LimitSettings(), unused=unused)
    assert (item.stated.group, item.stated.label) == ("p1", "x")
    assert unused == {"l.csv": ["Operator", "laterality"]}


def test_a_job_names_the_columns_of_its_list_that_it_does_not_use(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", {"a.png": encoded(photo(0)), "l.csv": b"path,patient,weight\na.png,p,70\n"})
    report = ingest(raw / "l.csv", tmp_path / "d", public_spec(layout={"reader": "list"}))
    assert report.notes == ("columns of l.csv that are not used: weight",)
