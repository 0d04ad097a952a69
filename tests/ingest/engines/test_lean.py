"""What a process of a job leaves unloaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from ingest.engines.base import Task
from ingest.engines.lean import one_blas_thread, without_main, without_pandas
from ingest.engines.local import LocalEngine


def test_pandas_is_hidden_only_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    before = list(sys.meta_path)
    with without_pandas():
        with pytest.raises(ModuleNotFoundError, match="without pandas"):
            find_spec("pandas")
        assert find_spec("json")
    assert sys.meta_path == before


def test_the_main_module_is_back_also_after_an_error() -> None:
    main = sys.modules["__main__"]
    with pytest.raises(ZeroDivisionError), without_main():
        1 / len(vars(sys.modules["__main__"]).get("__file__", ""))
    assert sys.modules["__main__"] is main


@pytest.mark.parametrize("before", [None, "3"])
def test_what_a_user_says_of_blas_threads_stays(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if before is not None:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", before)
    with one_blas_thread():
        assert os.environ["OPENBLAS_NUM_THREADS"] == (before or "1")
    assert os.environ.get("OPENBLAS_NUM_THREADS") == before


def loaded(context: object, names: tuple[str, ...], beat: Callable[[int], None], skip: Mapping[int, str]) -> list[str]:
    """Which of these modules the worker has."""
    del context, skip
    beat(0)
    return [name for name in names if name in sys.modules]


@pytest.mark.process
def test_a_worker_has_neither_pandas_nor_what_its_supervisor_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = ModuleType("__main__")
    main.__file__ = str(tmp_path / "main.py")
    Path(main.__file__).write_text("import colorsys\n")
    monkeypatch.setitem(sys.modules, "__main__", main)
    with LocalEngine(1) as engine:
        tasks = [Task(index=0, payload=("colorsys", "pandas", "ingest.engines.local"))]
        (event,) = [event for event in engine.run(loaded, None, tasks) if event.done]
    assert event.result == ["ingest.engines.local"]
