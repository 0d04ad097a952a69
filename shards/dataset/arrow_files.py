"""The Parquet files of a table on object storage, as Arrow reads them: through the store, with its retries.

deltalake's own file system gives up where the answer to a read breaks off; a question that has run for minutes would
end with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from shards.errors import NotFoundError, StoreError
from shards.store import Store

if TYPE_CHECKING:
    from pyarrow import fs

_BEGIN, _BETWEEN, _END = "<<store: ", " || ", ">>"
_MISSING = "missing: "


class _StoreFiles(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """A folder of a store for fsspec, for reading alone.

    Args:
        store: The folder.
        sizes: Sizes in bytes of the files that are known, by path; the others are asked for.
    """

    protocol = "biovfm-table"
    cachable = False

    def __init__(self, store: Store, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self._store = store
        self._sizes = sizes

    def info(self, path: str, **_: object) -> dict[str, Any]:
        """Name, size and type of a file."""
        size = self._sizes[path] if path in self._sizes else self._store.stat(path).size
        return {"name": path, "size": size, "type": "file"}

    def _open(self, path: str, mode: str = "rb", **_: object) -> _File:
        return _File(self, path, mode, cache_type="none", size=self.info(path)["size"])

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`.

        Raises:
            OSError: The storage failed. Arrow and DuckDB pass on no more than its text (see `store_error`).
        """
        try:
            return self._store.read_range(path, start, end - start)
        except StoreError as error:
            kind = _MISSING if isinstance(error, NotFoundError) else ""
            raise OSError(f"{_BEGIN}{kind}{error.message}{_BETWEEN}{error.hint}{_END}") from error


class _File(AbstractBufferedFile):  # type: ignore[misc] # likewise
    """A file that is read in exactly the ranges that Arrow asks for."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        found: bytes = self.fs.read_range(self.path, start, end)
        return found


def store_error(text: str) -> StoreError | None:
    """The store's own error in what Arrow or DuckDB say of a read that failed; None where the store did not fail."""
    found = re.search(f"{_BEGIN}({_MISSING})?(.*?){re.escape(_BETWEEN)}(.*?){_END}", text, re.DOTALL)
    return None if found is None else (NotFoundError if found[1] else StoreError)(found[2], hint=found[3])


def arrow_files(store: Store, sizes: Mapping[str, int]) -> fs.FileSystem:
    """A file system for Arrow whose root is the folder of a store.

    Args:
        store: The table's folder.
        sizes: Sizes in bytes of its files, by path; a file that is not among them costs a request more.
    """
    from pyarrow import fs

    return fs.PyFileSystem(fs.FSSpecHandler(_StoreFiles(store, sizes)))
