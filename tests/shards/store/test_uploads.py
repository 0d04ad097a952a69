"""An upload whose bytes arrive changed is made again, or is an error; it never stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import StoreError
from shards.store import MIB, StoreSettings
from shards.store.obstore_driver import ObstoreDriver
from shards.store.remote import RemoteStore

DATA = bytes(range(256)) * 5000


class Flipping(ObstoreDriver):
    """Changes one byte of the first uploads on their way."""

    flips = 1

    def create(self, path: str, data: bytes | Path) -> str:
        return super().create(path, self._flipped(data))

    def upload(self, path: str, data: bytes | Path) -> None:
        super().upload(path, self._flipped(data))

    def _flipped(self, data: bytes | Path) -> bytes:
        whole = bytearray(data.read_bytes() if isinstance(data, Path) else data)
        if self.flips:
            self.flips -= 1
            whole[len(whole) // 2] ^= 16
        return bytes(whole)


def flipping(url: str, *, flips: int, single_put_bytes: int, budget_seconds: float = 60.0) -> RemoteStore:
    settings = StoreSettings(budget_seconds=budget_seconds, backoff_seconds=0.05, single_put_bytes=single_put_bytes)
    driver = Flipping(f"{url}/d", settings)
    driver.flips = flips
    return RemoteStore(f"{url}/d", driver, settings)


@pytest.mark.s3
@pytest.mark.parametrize("single_put_bytes", [256 * MIB, 1000])
@pytest.mark.parametrize("is_file", [False, True])
def test_changed_bytes_are_sent_again(bucket: str, tmp_path: Path, single_put_bytes: int, is_file: bool) -> None:
    store = flipping(bucket, flips=2, single_put_bytes=single_put_bytes)
    (tmp_path / "file").write_bytes(DATA)
    store.put_if_absent("x", tmp_path / "file" if is_file else DATA)
    assert store.read("x") == DATA
    assert store.retries == 2
    assert [info.path for info in store.list(hidden=True)] == ["x"]


@pytest.mark.s3
@pytest.mark.parametrize("single_put_bytes", [256 * MIB, 1000])
def test_bytes_that_change_each_time_are_an_error_and_do_not_stay(bucket: str, single_put_bytes: int) -> None:
    store = flipping(bucket, flips=1_000_000, single_put_bytes=single_put_bytes, budget_seconds=2.0)
    with pytest.raises(StoreError, match="other bytes than were sent"):
        store.put_if_absent("x", DATA)
    assert list(store.list(hidden=True)) == []
