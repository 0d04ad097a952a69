"""How well tables fit the files of a source, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.cli import main
from infra.commands._tables import match_text
from ingest.job.list import check_told, list_raw
from ingest.job.survey import Survey, survey
from ingest.job.table_match import TableMatch
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec
from shards.errors import SourceError
from tests.ingest.material import encoded, ingest, photo, public_spec, tar_of, write_folder

PNG = encoded(photo(0))
TABLE: dict[str, Any] = {"path": "t.csv", "key": "id", "match": "stem", "group": ["p"]}


def spec_of(*source_tables: dict[str, Any], **more: Any) -> SourceSpec:
    return public_spec(layout={"include": ["**/*.png"], "tables": list(source_tables)}, **more)


def raw(tmp_path: Path, text: str, *names: str, **others: str) -> Path:
    files = {"t.csv": text.encode(), **{f"{name}.csv": other.encode() for name, other in others.items()}}
    return write_folder(tmp_path / "raw", files | dict.fromkeys(names, PNG))


def matches(folder: Path, spec: SourceSpec) -> list[TableMatch]:
    return list(list_raw(str(folder), spec, IngestSettings()).matches)


def look(folder: Path, spec: SourceSpec, *, deep: bool = False) -> Survey:
    return survey(str(folder), spec, IngestSettings(), deep=deep)


def test_rows_and_files_are_counted(tmp_path: Path) -> None:
    text = "id,p,dx\na,p1,x\nb,p1,x\nb,p2,x\nb,p1,y\nb,p1,x\nzz,p3,x\n,p3,x\n"
    [match] = matches(raw(tmp_path, text, "a.png", "b.png", "c.png"), spec_of({**TABLE, "label": "dx"}))
    assert (match.table, match.rows, match.matched, match.unmatched) == ("t.csv", 7, 5, 2)
    assert (match.contradictory, match.other_group) == (2, 1)
    assert (match.files, match.without, match.near, match.fault) == (3, 1, 0, "")
    assert match_text(match) == (
        "5 about files + 2 about none; 2 contradict an earlier row, which counts (1 in the group); 1 file without a row"
    )


def test_a_row_about_several_files_and_files_in_several_folders(tmp_path: Path) -> None:
    text = "left,right,p\na,b,p1\nc,d,p2\n"
    folder = raw(tmp_path, text, "a.png", "b.png", "1/c.png", "2/c.png")
    [match] = matches(folder, spec_of({**TABLE, "key": ["left", "right"]}))
    assert (match.rows, match.matched, match.contradictory, match.without) == (2, 2, 0, 0)


def test_a_table_that_selects_says_nothing_of_files_without_a_row(tmp_path: Path) -> None:
    folder = raw(tmp_path, "id\na\nzz\n", "a.png", "b.png")
    [match] = matches(folder, spec_of({"path": "t.csv", "key": "id", "match": "stem", "select": "listed"}))
    assert (match.rows, match.matched, match.files, match.without) == (2, 1, 1, 0)


def test_rows_about_files_that_another_table_leaves_out_are_about_files(tmp_path: Path) -> None:
    folder = raw(tmp_path, "id,p\na,p1\nb,p2\n", "a.png", "b.png", train="name\na.png\n")
    train = {"path": "train.csv", "key": "name", "select": "listed"}
    first, second = matches(folder, spec_of(train, TABLE))
    assert (first.matched, second.matched, second.files, second.without) == (1, 2, 1, 0)


def test_rows_by_the_numbers_of_images(tmp_path: Path) -> None:
    table = {"path": "t.csv", "per_frame": True, "of": ["a.png"], "group": ["p"]}
    [match] = matches(raw(tmp_path, "p\np1\np2\n", "a.png", "b.png"), spec_of(table))
    assert (match.rows, match.matched, match.files, match.without) == (2, 2, 1, 0)
    [match] = matches(raw(tmp_path / "other", "p\np1\np2\n", "b.png"), spec_of(table))
    assert (match.matched, match.files, match.fault) == (0, 0, "")


def test_a_table_of_patients_that_is_about_no_file_is_refused(tmp_path: Path) -> None:
    folder = raw(tmp_path, "id,p\nimg_1,p1\nimg_2,p1\n", "IMG_1.png", "IMG_2.png", "extra.png")
    with pytest.raises(SourceError, match=r"none of its 2 rows is about any of the 3 files — 2 files would have a row"):
        ingest(folder, tmp_path / "d", spec_of(TABLE))
    assert not (tmp_path / "d").exists()
    found = look(folder, spec_of(TABLE))
    assert found.state == "incomplete"
    assert "2 files would have a row if upper and lower case did not count" in found.problems[0]


@pytest.mark.parametrize(
    ("names", "keys", "match", "near"),
    [
        (("A.png", "B.png"), ("a", "b"), "stem", 2),
        (("1/A.png", "2/A.png"), ("a",), "stem", 2),
        (("A.png",), ("a", "a"), "stem", 1),
        (("1/A.png", "2/a.PNG.png"), ("1/a.png",), "path", 1),
        (("AA.png", "Aa.png"), ("aa",), "stem", 0),
        (("A.png", "B.png"), ("b", "c"), "stem", 1),
        (("AA.png",), ("aa", "aA"), "stem", 0),
        (("A.png", "a.png"), ("a",), "stem", 0),
        (("A.png",), ("x",), "stem", 0),
    ],
)
def test_files_that_only_the_case_of_letters_parts_from_rows(
    tmp_path: Path, names: tuple[str, ...], keys: tuple[str, ...], match: str, near: int
) -> None:
    folder = raw(tmp_path, "".join(f"{key},p1\n" for key in ("id", *keys)).replace("id,p1", "id,p"), *names)
    [found] = matches(folder, spec_of({**TABLE, "match": match}))
    assert found.near == near


@pytest.mark.slow
def test_some_files_without_a_row_are_told_and_taken(tmp_path: Path) -> None:
    files = {"t.csv": b"id,p\na,p1\nb,p1\nb,p2\n", **{f"{name}.png": encoded(photo(ord(name))) for name in "abC"}}
    folder = write_folder(tmp_path / "raw", files)
    (folder / "t.csv").write_bytes(files["t.csv"] + b"c,p3\n")
    report = ingest(folder, tmp_path / "d", spec_of(TABLE))
    assert report.kept == 3
    [note] = report.notes
    assert note.startswith("1 file without a row would have one if upper and lower case did not count: write the names")
    [said] = json.loads(json.dumps(report.to_dict()))["matches"]
    assert (said["rows"], said["matched"], said["other_group"], said["without"]) == (4, 3, 1, 1)
    assert ingest(folder, tmp_path / "d", spec_of(TABLE)).matches == report.matches
    found = look(folder, spec_of(TABLE))
    assert found.problems == []
    assert found.warnings[0] == "1 row names another group of a file than an earlier row of t.csv, which counts"
    assert found.warnings[1:] == [note]


def test_files_that_have_a_group_by_another_table_need_none_of_this_one(tmp_path: Path) -> None:
    folder = raw(tmp_path, "id,p\na,p1\n", "a.png", test="id,p\nz,p1\n")
    spec = spec_of(TABLE, {**TABLE, "path": "test.csv"})
    check_told(list_raw(str(folder), spec, IngestSettings()), spec)
    (folder / "b.png").write_bytes(PNG)
    with pytest.raises(SourceError, match=r"test\.csv is to say what belongs together"):
        check_told(list_raw(str(folder), spec, IngestSettings()), spec)


def test_archives_that_are_not_looked_into_may_hold_the_files(tmp_path: Path) -> None:
    folder = raw(tmp_path, "id,p\na,p1\n", "z.png")
    (folder / "x.tar.gz").write_bytes(tar_of({"a.png": PNG}, "w:gz"))
    found = look(folder, spec_of(TABLE))
    assert (found.problems, found.matches, found.tables) == ([], [], {"t.csv": 1})
    assert look(folder, spec_of(TABLE), deep=True).matches[0].matched == 1


def test_archives_that_cannot_be_read_now_may_hold_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from ingest.job import list as listing

    every = listing.all_items

    def some_away(*words: Any, **flags: Any) -> Any:
        for item in every(*words, **flags):
            yield replace(item, kind="unavailable", detail="no right") if item.path == "x.zip" else item

    folder = raw(tmp_path, "id,p\na,p1\n", "z.png", "x.zip")
    monkeypatch.setattr(listing, "all_items", some_away)
    [match] = matches(folder, spec_of(TABLE))
    assert (match.matched, match.is_whole, match.fault) == (0, False, "")


def test_the_command_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = raw(tmp_path, "id,p\nimg_1,p1\n", "IMG_1.png")
    path = tmp_path / "s.yaml"
    table = "{path: t.csv, key: id, match: stem, group: [p]}"
    path.write_text(f"id: s\nmodality: [CT]\ndeidentified: true\nlayout: {{include: ['*.png'], tables: [{table}]}}\n")
    assert main(["sources", "check", str(path), str(folder)]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "t.csv: 1 row = 0 about files + 1 about none; 1 file without a row" in shown
    assert "PROBLEM t.csv is to say what belongs together" in shown
    assert "write the names in t.csv as the files have them" in shown
    words = ["ingest", str(path), str(folder), str(tmp_path / "d"), "--workers", "0"]
    assert main(words) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("biovfm: t.csv is to say")
    (folder / "t.csv").write_text("id,p\nIMG_1,p1\n")
    assert main(words) == 0
    assert "1 rows of t.csv = 1 about files + 0 about none" in " ".join(capsys.readouterr().out.split())
