"""A folder held against the description of its source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.job.survey import Survey, hours_on_one_core, survey
from ingest.settings import IngestSettings
from ingest.source.layout import Grouping
from ingest.source.spec import SourceSpec
from tests.ingest.material import encoded, photo, public_spec, tar_of, write_folder, zip_of

PNG = encoded(photo(0))


def spec_of(expected: int | None = None, **layout: Any) -> SourceSpec:
    return public_spec(layout={"include": ["**/images/*.png"], **layout}, expected_images=expected)


def look(folder: Path, spec: SourceSpec, *, deep: bool = False) -> Survey:
    return survey(str(folder), spec, IngestSettings(), deep=deep)


def members(*names: str) -> dict[str, bytes]:
    return dict.fromkeys(names, PNG)


def test_a_complete_source(tmp_path: Path) -> None:
    names = members("images/a1.png", "images/a2.png", "images/b1.png", "masks/a1.png", "what.txt")
    folder = write_folder(tmp_path, {"all.zip": zip_of(names)})
    spec = spec_of(3, downloads=["all.zip"], left_out={"masks": ["**/masks/**"]})
    spec = spec.model_copy(update={"grouping": Grouping(by="path", pattern="([ab])\\d")})
    found = look(folder, spec)
    assert found.problems == found.warnings == []
    assert (found.num_files, found.num_images, found.num_groups, found.largest_group) == (3, 3, 2, 2)
    assert (found.left_out, found.unknown) == ({"masks": 1}, {"txt": 1})
    assert found.examples["masks"] == ["all.zip/masks/a1.png"]
    assert found.parts[0].examples == [f"all.zip/images/{name}.png" for name in ("a1", "a2", "b1")]
    assert found.downloads == ["all.zip"]
    assert hours_on_one_core(found, spec) > 0


@pytest.mark.parametrize(
    ("names", "missing", "problem"),
    [
        (("p1.zip", "p3.zip"), ["p2.zip"], True),
        (("p1.zip", "p2.zip", "p3.zip"), [], False),
        (("other.zip",), [], False),
    ],
)
def test_downloads(tmp_path: Path, names: tuple[str, ...], missing: list[str], *, problem: bool) -> None:
    folder = write_folder(tmp_path, {name: zip_of(members(f"images/{name}.png")) for name in names})
    found = look(folder, spec_of(downloads=["p{1..3}.zip"]))
    assert found.missing_downloads == missing
    assert bool(found.problems) == problem


def test_archives_that_belong_to_nothing_are_unexpected(tmp_path: Path) -> None:
    packed = {"p1.zip": zip_of(members("images/1.png")), "m.zip": zip_of(members("masks/1.png"))}
    packed |= {"odd.zip": zip_of({"a.doc": b"x"}), "odd.tar.gz": tar_of({"b.doc": b"x"}, "w:gz")}
    folder = write_folder(tmp_path, packed)
    left_out = {"masks": ["**/masks/**"]}
    found = look(folder, spec_of(downloads=["p1.zip"], left_out=left_out))
    assert found.unexpected == ["odd.tar.gz", "odd.zip"]
    assert look(folder, spec_of(left_out=left_out)).unexpected == ["odd.zip"]


def test_compressed_tars_are_looked_into_only_when_asked(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"a.tar.gz": tar_of(members("images/1.png", "images/2.png"), "w:gz")})
    found = look(folder, spec_of(2))
    assert (found.unopened, found.num_files, found.problems, found.state) == (1, 0, [], "unknown")
    found = look(folder, spec_of(2), deep=True)
    assert (found.unopened, found.num_files, found.problems, found.state) == (0, 2, [], "complete")


@pytest.mark.parametrize(("expected", "problems", "warnings"), [(100, 1, 0), (8, 0, 1), (10, 0, 0), (None, 0, 0)])
def test_the_number_of_images(tmp_path: Path, expected: int | None, problems: int, warnings: int) -> None:
    folder = write_folder(tmp_path, members(*(f"images/{n}.png" for n in range(10))))
    found = look(folder, spec_of(expected))
    assert (len(found.problems), len(found.warnings)) == (problems, warnings)


def test_images_of_files_with_several_are_estimated_or_not_known(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"a.nii.gz": b"x", "b.nii.gz": b"x"})
    assert look(folder, public_spec(layout={"reader": "nifti", "images_per_file": 40})).num_images == 80
    assert look(folder, public_spec(layout={"reader": "nifti"})).num_images is None


def test_rows_by_frame_tell_the_number_of_images_and_groups(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"x.npy": b"x", "m.csv": b"i,wsi\n0,a\n1,a\n2,b\n"})
    table = {"path": "m.csv", "per_frame": True, "of": ["x.npy"], "group": ["wsi"]}
    found = look(folder, public_spec(layout={"include": ["x.npy"], "reader": "numpy", "tables": [table]}))
    assert (found.num_images, found.num_groups) == (3, 2)


def test_a_missing_table_is_a_problem_and_the_rest_is_told(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, members("images/1.png"))
    found = look(folder, spec_of(tables=[{"path": "train.txt", "select": "listed"}]))
    assert found.num_files == 1
    assert "lacks the table train.txt" in found.problems[0]


def test_what_a_table_says_and_leaves_out(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, members("images/1.png", "images/2.png") | {"t.csv": b"f,p\n1.png,a\n"})
    found = look(folder, spec_of(tables=[{"path": "t.csv", "key": "f", "select": "listed", "group": ["p"]}]))
    assert (found.tables, found.left_out) == ({"t.csv": 1}, {"table": 1, "unlisted": 1})


def test_an_archive_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    files = {"good.zip": zip_of(members("images/1.png")), "bad.zip": b"PK\3\4 no more"}
    found = look(write_folder(tmp_path, files), spec_of())
    assert found.num_files == 1
    assert any("bad.zip cannot be read" in problem for problem in found.problems)


def test_a_folder_that_holds_nothing_of_the_source(tmp_path: Path) -> None:
    found = look(write_folder(tmp_path, {"readme.md": b"x"}), spec_of(5))
    assert found.problems == ["no file is taken"]


def test_a_part_that_is_missing(tmp_path: Path) -> None:
    parts = [{"name": "a", "include": ["a/*"]}, {"name": "b", "include": ["b/*"]}]
    spec = public_spec(
        layout={"reader": "images", "parts": [*parts, {"name": "c", "include": ["c/*"], "optional": True}]}
    )
    found = look(write_folder(tmp_path, members("a/1.png")), spec)
    assert found.problems == ["nothing is there of b"]


def test_the_same_images_in_another_form_are_taken_only_alone(tmp_path: Path) -> None:
    parts = [{"name": "png", "include": ["*.png"]}, {"name": "jpg", "include": ["*.jpg"], "fallback": True}]
    spec = public_spec(layout={"reader": "images", "parts": parts})
    found = look(write_folder(tmp_path / "both", members("1.png", "1.jpg")), spec)
    assert (found.num_files, found.left_out, found.problems) == (1, {"copies": 1}, [])
    found = look(write_folder(tmp_path / "one", members("1.jpg")), spec)
    assert (found.num_files, found.parts[1].num_files) == (1, 1)
