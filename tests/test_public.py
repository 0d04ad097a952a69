"""The public surface: what each package promises is there, is all there is to use, and costs nothing to import."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shards.subset import Selection, create
from tests.shards.builders import small_dataset

ROOT = Path(__file__).parents[1]
SURFACE = {
    "eval": {
        "Backbone",
        "Measurement",
        "PowerLaw",
        "ProbeResult",
        "Slope",
        "Task",
        "append_results",
        "compare",
        "correlate",
        "evaluate",
        "extract",
        "fit_power_law",
        "fit_slopes",
        "knn",
        "load_backbone",
        "load_task",
        "probe",
        "probe_paper",
        "read_measurements",
        "read_results",
        "side_by_side",
        "task_factors",
        "task_names",
    },
    "eval.probes": {"KS", "append_results", "evaluate", "knn_scores", "predict_knn", "read_results"},
    "ingest": {"load_spec", "run_job"},
    "shards.dataset": {"Dataset"},
    "shards.decode": {"Crops", "Decoder", "DecoderReport", "Mode", "Status", "describe_decoder", "open_decoder"},
    "shards.stream": {"Batch", "Mixture", "Stream", "StreamDataset"},
    "shards.subset": {"Lock", "Selection", "create", "materialize", "verify"},
    "train": {"DeviceBatch", "DeviceStream", "load_recipe", "pretrain"},
}
PUBLIC = {*SURFACE, "shards.errors", "shards.torch_dataset"}
HEAVY = {"torch", "ray", "duckdb", "pandas", "pyarrow", "deltalake", "cv2", "numpy", "timm", "pydantic", "yaml"}
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def typed_names(package: str) -> set[str]:
    """What type checkers see: the names that the package imports for them."""
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    return {alias.name for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names}


@pytest.mark.torch
@pytest.mark.parametrize("package", sorted(SURFACE))
def test_all_is_complete_and_every_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == sorted(SURFACE[package])
    assert typed_names(package) == SURFACE[package]
    assert SURFACE[package] <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name).__doc__ or name == "Mode"
    with pytest.raises(AttributeError, match="has no attribute 'nothing_of_the_kind'"):
        module.nothing_of_the_kind  # noqa: B018


@pytest.mark.parametrize("package", sorted(SURFACE))
def test_no_public_name_is_that_of_a_module_beside_it(package: str) -> None:
    folder = ROOT / package.replace(".", "/")
    assert not SURFACE[package] & {path.stem for path in folder.iterdir()}


@pytest.mark.process
def test_importing_the_packages_imports_nothing_heavy() -> None:
    code = f"import sys, json, {', '.join(SURFACE)}; print(json.dumps([n.split('.')[0] for n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not HEAVY & set(json.loads(done.stdout))


@pytest.mark.torch
def test_earlier_names_are_the_same_objects() -> None:
    from shards import stream, torch_dataset

    assert torch_dataset.StreamDataset is stream.StreamDataset


def test_the_readme_has_snippets() -> None:
    assert SNIPPETS


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_of_the_readme_use_the_public_surface_alone(snippet: str) -> None:
    ours = {"shards", "ingest", "train", "eval", "infra"}
    imported = {
        node.module for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.ImportFrom) and node.module
    }
    imported |= {a.name for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Import) for a in node.names}
    assert {name for name in imported if name.split(".")[0] in ours} <= PUBLIC


@pytest.mark.parametrize(
    "snippet",
    [pytest.param(one, marks=[pytest.mark.torch] if "from train import" in one else []) for one in SNIPPETS],
)
def test_snippets_of_the_readme_run(snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    create(small_dataset("data"), Selection()).write(Path("ct-us.lock.yaml"))
    checkpoint: dict[str, object] = {}
    names = {"rank": 0, "world_size": 1, "steps": 2, "checkpoint": checkpoint}
    exec(compile(snippet.replace("2048", "16"), "README.md", "exec"), names)
    if "checkpoint[" in snippet:
        assert checkpoint
