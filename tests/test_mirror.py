"""Every module that has a part in what a dataset holds is called by some test, not only by the modules that use it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imported_by(path: Path) -> set[str]:
    """Modules that a file imports, and for each name of a module `module.name`, which may be a module too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["ingest/job", "ingest/staging", "ingest/duplicates", "ingest/raw"])
def test_every_module_is_imported_by_a_test(folder: str) -> None:
    modules = {".".join((*Path(folder).parts, path.stem)) for path in (ROOT / folder).glob("[!_]*.py")}
    tested = set[str]().union(*map(imported_by, (ROOT / "tests").rglob("test_*.py")))
    assert modules
    assert sorted(modules - tested) == []
