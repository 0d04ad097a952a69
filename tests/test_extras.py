"""The base install is light: what is heavy belongs to an extra, and no module of the base needs it to be loaded."""

from __future__ import annotations

import ast
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MOST_MEGABYTES = 650
OF_EXTRAS = {
    *("ingest/readers/slide.py", "ingest/readers/video.py", "ingest/readers/hdf5.py"),
    *("shards/stream/torch_dataset.py", "shards/decode/kernels/triton_crop.py"),
}
"""Loaded by those alone who have the extra: readers once the libraries of a job are known to be there, the dataset for
torch, and kernels where a trial of Triton begins."""


def closure(requirements: list[str]) -> set[str]:
    """Names of all distributions that requirements bring along in this environment."""
    found: set[str] = set()
    left = [(Requirement(line), "") for line in requirements]
    while left:
        requirement, extra = left.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = requirement.name.lower()
        if (name, extra) == ("biovfm", "") or name in found:
            continue
        found.add(name)
        needs = [Requirement(line) for line in distribution(name).requires or ()]
        left += [(need, wanted) for need in needs for wanted in ("", *requirement.extras)]
    return found


def imported_at_load(path: Path) -> set[str]:
    """Top-level packages that a module imports outside of functions."""
    names: set[str] = set()
    left: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while left:
        node = left.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
        is_type_check = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not is_type_check and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            left += ast.iter_child_nodes(node)
    return names


@pytest.mark.slow
def test_the_base_install_is_small() -> None:
    total = 0
    for name in closure(PROJECT["dependencies"]):
        files = distribution(name).files or ()
        total += sum(Path(str(file.locate())).stat().st_size for file in files if Path(str(file.locate())).is_file())
    assert 300 < total / 2**20 <= MOST_MEGABYTES


@pytest.mark.slow
@pytest.mark.parametrize("package", ["ingest", "shards"])
def test_no_module_of_the_base_imports_an_extra_when_it_is_loaded(package: str) -> None:
    base = closure(PROJECT["dependencies"])
    owners = packages_distributions()
    strays = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / package).rglob("*.py")
        if str(path.relative_to(ROOT)) not in OF_EXTRAS
        for name in imported_at_load(path)
        if name in owners and not {owner.lower() for owner in owners[name]} & (base | {"biovfm"})
    }
    assert not strays


def test_an_import_inside_a_function_is_none_at_load(tmp_path: Path) -> None:
    module = tmp_path / "m.py"
    module.write_text("import a.b\nfrom c import d\nif TYPE_CHECKING:\n    import e\ndef f():\n    import g\n")
    assert imported_at_load(module) == {"a", "c"}
