"""Globs with braces: what they match, what they expand to, and how names are put together again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.source.globs import any_of, collapse, expand, glob_regex


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("images_{001..012}.tar.gz/**", "images_007.tar.gz/images/1.png", True),
        ("images_{001..012}.tar.gz/**", "images_013.tar.gz/images/1.png", False),
        ("{train,val}/*.png", "val/1.PNG", True),
        ("{train,val}/*.png", "test/1.png", False),
        ("*.tar", "a/b.tar", True),
        ("a.b", "axb", False),
    ],
)
def test_globs_match(glob: str, path: str, matches: bool) -> None:
    assert bool(glob_regex(glob).fullmatch(path)) == matches


def test_no_globs_match_nothing() -> None:
    assert not any_of(()).fullmatch("")
    assert not any_of(()).fullmatch("a")


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("a.zip", ["a.zip"]),
        ("p{1..3}.zip", ["p1.zip", "p2.zip", "p3.zip"]),
        ("p{08..10}.zip", ["p08.zip", "p09.zip", "p10.zip"]),
        ("{a,b}{1..2}", ["a1", "a2", "b1", "b2"]),
    ],
)
def test_braces_are_expanded(glob: str, names: list[str]) -> None:
    assert expand(glob) == names


def test_runs_of_names_are_told_in_short() -> None:
    names = ["a.csv", *expand("images_{003..011}.tar.gz"), "z1.zip", "z2.zip"]
    assert collapse(names) == ["a.csv", "images_{003..011}.tar.gz", "z1.zip, z2.zip"]


@given(st.integers(0, 900), st.integers(2, 30))
def test_collapse_undoes_expand(first: int, count: int) -> None:
    glob = f"x_{{{first:04d}..{first + count:04d}}}.zip"
    assert collapse(expand(glob)) == [glob]
