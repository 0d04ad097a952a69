"""Folders of masks are told by their names, and never take images with them."""

from __future__ import annotations

from ingest.job.mask_folders import MaskFolders


def test_the_innermost_folder_counts_and_one_with_other_files_beside_is_none() -> None:
    files = [["X-SEG", "images"], ["X-SEG", "masks", "a"], ["labels", "a"], ["other"], []]
    folders = MaskFolders(files)
    assert [folders.of(file) for file in files] == ["", "X-SEG/masks", "labels", "", ""]
    assert list(folders.globs({"X-SEG/masks": 2, "labels": 1})) == [("**/masks/**", 2), ("**/labels/**", 1)]


def test_a_name_that_other_folders_have_too_is_said_with_its_path() -> None:
    files = [["p1", "seg", "images"], ["p1", "seg", "masks"], ["p2", "Seg"]]
    folders = MaskFolders(files)
    assert [folders.of(file) for file in files] == ["", "p1/seg/masks", "p2/Seg"]
    assert list(folders.globs({"p2/Seg": 3})) == [("p2/Seg/**", 3)]


def test_outer_folders_may_say_nothing() -> None:
    folders = MaskFolders([["masks of 2020", "a"], ["masks of 2020", "gt"]], 1)
    assert (folders.of(["masks of 2020", "a"]), folders.of(["masks of 2020", "gt"])) == ("", "masks of 2020/gt")


def test_a_folder_with_folders_of_images_deep_inside_is_none_at_any_level() -> None:
    files = [["annotations", "v1-seg", "images"], ["annotations", "v1-seg", "gt"], ["annotations", "x"]]
    folders = MaskFolders(files)
    assert [folders.of(file) for file in files] == ["", "annotations/v1-seg/gt", ""]
