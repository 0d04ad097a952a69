"""Imports run one way: infra → (ingest | train, eval) → shards; nobody imports infra. Within a package likewise."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "shards": set(),
    "ingest": {"shards"},
    "train": {"shards"},
    "eval": {"shards"},
    "infra": {"shards", "ingest", "train", "eval"},
}
MOST_ROOMS = {"shards": 13, "ingest": 13, "eval": 13, "infra": 14}
"""Modules and folders directly below a package: as many as a reader can keep in mind."""


def imported_packages(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names & set(MAY_IMPORT)


@pytest.mark.slow
@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_package_imports_only_what_the_layout_allows(package: str) -> None:
    wrong = {
        str(path.relative_to(ROOT)): sorted(bad)
        for path in (ROOT / package).rglob("*.py")
        if (bad := imported_packages(path) - MAY_IMPORT[package] - {package})
    }
    assert not wrong


def rooms_of(package: str) -> dict[str, list[Path]]:
    """The modules and folders directly below a package, and the modules of each; its `__init__` is none."""
    found: dict[str, list[Path]] = {}
    for path in sorted((ROOT / package).iterdir()):
        inner = [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))
        if inner and path.stem != "__init__":
            found[path.stem] = inner
    return found


def imported_rooms(source: str, package: str, rooms: set[str]) -> set[str]:
    """The rooms of the package that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith(f"{package}.")} & rooms


def circle_of(arrows: dict[str, set[str]]) -> list[str]:
    """Rooms that import each other in a circle; empty where there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", sorted(MOST_ROOMS))
def test_package_has_few_rooms(package: str) -> None:
    rooms = rooms_of(package)
    assert 1 < len(rooms) <= MOST_ROOMS[package], sorted(rooms)


@pytest.mark.slow
@pytest.mark.parametrize("package", sorted({*MOST_ROOMS, "train"}))
def test_rooms_of_a_package_import_each_other_one_way(package: str) -> None:
    rooms = rooms_of(package)
    arrows = {
        room: set().union(*(imported_rooms(path.read_text(encoding="utf-8"), package, set(rooms)) for path in paths))
        - {room}
        for room, paths in rooms.items()
    }
    assert any(arrows.values())
    assert not circle_of(arrows)


def test_a_circle_is_seen() -> None:
    source = "from shards.b.c import d\nfrom shards import a\n\ndef late() -> None:\n    import shards.c\n"
    assert imported_rooms(source, "shards", {"a", "b", "c", "d"}) == {"a", "b", "c"}
    assert set(circle_of({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}
    assert not circle_of({"a": {"b", "c"}, "b": {"c"}})
