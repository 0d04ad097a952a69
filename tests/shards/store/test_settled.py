"""A reply that was damaged on its way is not the object: it is asked for again until two replies agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import NotFoundError, StoreError
from shards.store import LocalStore, MemoryStore
from shards.store.settled import read_settled


class Distorted(MemoryStore):
    """A memory whose first replies are wrong, each in its own way."""

    def __init__(self, num_wrong: int) -> None:
        super().__init__()
        self.num_wrong = self.num_reads = 0
        self.put_if_absent("a", b"content")
        self.num_wrong, self.num_reads = num_wrong, 0

    def read(self, path: str) -> bytes:
        data = super().read(path)
        self.num_reads += 1
        return data if self.num_reads > self.num_wrong else bytes([self.num_reads]) + data[1:]


@pytest.mark.parametrize("num_wrong", [0, 1, 5])
def test_two_replies_that_agree_are_the_object(num_wrong: int) -> None:
    store = Distorted(num_wrong)
    assert read_settled(store, "a") == b"content"
    assert store.num_reads == num_wrong + 2


def test_replies_that_never_agree_are_an_error_of_the_storage() -> None:
    with pytest.raises(StoreError, match="replies in a row differ"):
        read_settled(Distorted(1_000), "a")


def test_a_local_file_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    assert read_settled(LocalStore(tmp_path), "a") == b"content"
    with pytest.raises(NotFoundError):
        read_settled(LocalStore(tmp_path), "b")
