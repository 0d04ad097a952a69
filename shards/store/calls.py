"""Calls of a driver: retried within a budget, run side by side, and named when they fail."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from shards.errors import AlreadyExistsError, NotFoundError, ShortObjectError, StoreError
from shards.store.base import ObjectInfo, join_url
from shards.store.driver import Driver, DriverError
from shards.store.retry import attempt
from shards.store.settings import StoreSettings

Item = TypeVar("Item")
Result = TypeVar("Result")

HINTS = {
    "denied": "check the credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID …); `biovfm doctor URL` says what is refused",
    "bucket": "check the bucket's name and AWS_ENDPOINT_URL",
    "transient": "the storage may be down or slow; run the same command again, or `biovfm doctor URL`",
    "range": "the object was cut; run `biovfm verify` on the dataset",
    "changed": "objects of a dataset are never replaced; run `biovfm verify` on the dataset",
    "unsupported": "`biovfm doctor URL` says what this store can do; BIOVFM_STORE=fsspec takes another client",
    "fatal": "`biovfm doctor URL` says what this store can do",
}


class Calls:
    """How a store calls its driver.

    Args:
        url: The store's URL, for error messages.
        driver: The client library.
        settings: Time limits, retries, requests side by side.

    Attributes:
        retries: Attempts after a failed one, since this object was made.
    """

    def __init__(self, url: str, driver: Driver, settings: StoreSettings) -> None:
        self._url = url
        self._driver = driver
        self._settings = settings
        self.retries = 0
        self._lock = threading.Lock()
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._pid = 0

    def attempt(
        self,
        action: Callable[[], Result],
        cancelled: threading.Event | None = None,
        on_failure: Callable[[DriverError], bool] | None = None,
    ) -> Result:
        """Call `action` until it succeeds, fails for good, or the budget is spent.

        Refused credentials are fetched anew once: they may have expired.
        """
        refreshed = False
        attempts = 0

        def once() -> Result:
            nonlocal attempts
            attempts += 1
            if attempts > 1:
                self.count_retry()
            return action()

        def failed(error: DriverError) -> bool:
            nonlocal refreshed
            again = on_failure(error) if on_failure else False
            if error.kind == "denied" and not refreshed:
                refreshed = again = True
                self._driver.reset()
            return again

        return attempt(
            once,
            self._settings,
            cancelled=cancelled,
            on_failure=failed,
            is_ending=self._interpreter_is_ending,
            what=self._url,
        )

    def count_retry(self) -> None:
        """Count an attempt after a failed one."""
        with self._lock:
            self.retries += 1

    def head(self, path: str) -> ObjectInfo:
        """Size and entity tag of an object."""

        def once() -> ObjectInfo:
            try:
                return self._driver.head(path)
            except DriverError as error:
                if error.kind in {"missing", "denied", "fatal"}:
                    # The reply to HEAD has no body; that to GET says why.
                    self._driver.open_range(path, 0, 1, "")
                raise

        return self.attempt(once)

    def each(self, action: Callable[[Item], Result], items: Sequence[Item]) -> Sequence[Result]:
        """`action` of every item, side by side, in their order."""
        if len(items) <= 1:
            return [action(item) for item in items]
        return list(self.pool("read").map(action, items))

    def pool(self, use: str) -> ThreadPoolExecutor:
        """The threads for one use, made when they are first needed, in each process anew."""
        with self._lock:
            if self._pid != os.getpid():
                self._pools, self._pid = {}, os.getpid()
            if use not in self._pools:
                self._pools[use] = ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix=f"store-{use}")
            return self._pools[use]

    @contextmanager
    def named(self, path: str, offset: int | None = None) -> Iterator[None]:
        """Turn a failed attempt into an error that says where: URL, path, offset."""
        where = join_url(self._url, path) + (f" at offset {offset}" if offset is not None else "")
        try:
            yield
        except DriverError as error:
            if error.kind == "missing":
                raise NotFoundError(f"no such object: {where}") from None
            if error.kind == "exists":
                raise AlreadyExistsError(f"{where} is there already") from None
            failed = ShortObjectError if error.kind == "range" else StoreError
            raise failed(f"{where}: {error.text}", hint=HINTS[error.kind]) from None

    def _interpreter_is_ending(self) -> bool:
        """Executors refuse work from then on; a thread that went on retrying would hold the process back."""
        try:
            self.pool("end").submit(int)
        except RuntimeError:
            return True
        return False
