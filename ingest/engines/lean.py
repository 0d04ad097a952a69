"""What a process of an ingest job leaves unloaded: it starts sooner, and nothing here changes a result."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Final

__all__ = ["one_blas_thread", "without_main", "without_pandas"]

_BLAS_THREADS: Final = "OPENBLAS_NUM_THREADS"


class _WithoutPandas(MetaPathFinder):
    """Says that there is no pandas."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Find nothing, and let nobody else look for pandas."""
        del path, target
        if fullname == "pandas":
            raise ModuleNotFoundError("an ingest job does without pandas", name=fullname)


@contextmanager
def without_pandas() -> Iterator[None]:
    """While inside, pandas cannot be imported.

    No step of a job needs it, and pyarrow imports it to see whether a list is a Series: a third of a process's start.
    """
    finder = _WithoutPandas()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def without_main() -> Iterator[None]:
    """While inside, a process that is spawned does not import the module that this one runs.

    Of a command that module is the command line; of a script without `if __name__ == "__main__"` it is all its work.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """While inside, numpy is loaded with one thread for linear algebra, here or in a process that is spawned.

    Its threads turn in circles while they wait for work, and a job multiplies matrices of some dozen rows. What a user
    set stays.
    """
    if _BLAS_THREADS in os.environ:
        yield
        return
    os.environ[_BLAS_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[_BLAS_THREADS]
