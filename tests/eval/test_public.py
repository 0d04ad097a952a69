"""What `import eval` offers: complete, and light until it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import eval as package

SOURCE = Path(package.__file__ or "").read_text(encoding="utf-8")


def test_every_name_resolves_and_none_is_missing() -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert sorted(package.__all__) == package.__all__
    assert set(package.__all__) <= set(dir(package))


def test_what_type_checkers_see_is_what_programs_get() -> None:
    seen = {
        alias.name: node.module
        for node in ast.walk(ast.parse(SOURCE))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("eval.")
        for alias in node.names
    }
    assert set(seen) == set(package.__all__)
    assert {name: getattr(package, name).__module__ for name in seen} == seen


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'prob'"):
        _ = package.prob


def test_the_import_is_light() -> None:
    code = "import sys, eval; print(sorted({'torch', 'numpy', 'timm', 'scipy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
