"""Our own errors in reads that pass through Arrow or DuckDB, which keep no more of them than their text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from shards.errors import BiovfmError, NotFoundError, SampleIndexError, StoreError

__all__ = ["as_os_error", "told_in"]

_BEGIN, _BETWEEN, _END = "<<", " || ", ">>"
_KINDS: Final[Mapping[str, type[BiovfmError]]] = {
    "missing: ": NotFoundError,
    "damaged: ": SampleIndexError,
    "store: ": StoreError,
}


def as_os_error(error: StoreError | SampleIndexError) -> OSError:
    """The error for Arrow: its text between marks."""
    kind = next(mark for mark, kind in _KINDS.items() if isinstance(error, kind))
    return OSError(f"{_BEGIN}{kind}{error.message}{_BETWEEN}{error.hint}{_END}")


def told_in(text: str) -> BiovfmError | None:
    """Our own error in what Arrow or DuckDB say of a read that failed; None where there is none."""
    found = re.search(f"{_BEGIN}({'|'.join(_KINDS)})(.*?){re.escape(_BETWEEN)}(.*?){_END}", text, re.DOTALL)
    return None if found is None else _KINDS[found[1]](found[2], hint=found[3])
