"""The drawing at the top of the error tree is the tree, and there is no error for users outside it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from shards import errors
from shards.errors import BiovfmError

ROOT = Path(__file__).parents[1]
PACKAGES = ("shards", "ingest", "train", "eval", "infra")


def drawn() -> list[tuple[int, str]]:
    """Depth and name of every line of the drawing."""
    assert errors.__doc__
    lines = [re.match(r"(?P<rule>[ │├└─]*)(?P<name>\w+Error)\b", line) for line in errors.__doc__.splitlines()]
    return [((len(line["rule"]) - 4) // 4, line["name"]) for line in lines if line]


def test_the_drawing_is_the_tree() -> None:
    path: list[str] = []
    for depth, name in drawn():
        path = [*path[:depth], name]
        bases = [base.__name__ for base in getattr(errors, name).__bases__]
        assert bases == [path[-2] if depth else "Exception"], name
    assert sorted(name for _, name in drawn()) == sorted(errors.__all__)


def test_all_is_complete() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert defined == set(errors.__all__)


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_no_error_for_users_is_defined_elsewhere(package: str) -> None:
    known = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, BiovfmError)}
    strays = {
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in (ROOT / package).rglob("*.py")
        if path != ROOT / "shards" / "errors.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id in known for base in node.bases)
    }
    assert not strays
