"""A folder of objects on a disk that fails, or that may not be looked into."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from shards.errors import StoreError
from shards.store import LocalStore


@pytest.mark.skipif(sys.platform != "linux", reason="the file that cannot be read is Linux's")
def test_what_fails_while_it_is_read_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "memory").symlink_to("/proc/self/mem")  # its first page is never there
    store = LocalStore(tmp_path)
    with (
        store.open_stream("memory") as stream,
        pytest.raises(StoreError, match=f"cannot read {tmp_path}/memory: Input"),
    ):
        stream.read(10)
    for read in (store.read, lambda path: store.read_range(path, 0, 9)):
        with pytest.raises(StoreError, match=f"cannot read {tmp_path}/memory"):
            read("memory")


def test_a_folder_that_may_not_be_listed_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.put_if_absent("shards/a/x.tar", b"x")

    def refused(path: Any) -> Any:
        if str(path).endswith("shards/a"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    real = os.scandir
    monkeypatch.setattr(os, "scandir", refused)
    assert list(store.list("nowhere/")) == []
    with pytest.raises(StoreError, match=r"cannot list .*shards/a: Permission denied"):
        list(store.list("shards/"))
