"""A store behind a network: ranges, retries and conditional writes over one client library's single attempts."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from shards.errors import NotFoundError
from shards.store.base import HIDDEN, ObjectInfo, is_hidden
from shards.store.calls import Calls
from shards.store.driver import Driver, DriverError
from shards.store.options import redact
from shards.store.range_stream import RangeStream
from shards.store.settings import MIB, StoreSettings

_SMALL_BYTES = 256 << 10
_BATCH_RANGES = 64
_BATCH_BYTES = 16 * MIB
_READINGS: Final[Mapping[bool | None, int]] = {None: 3, True: 4, False: 2}
"""Equal readings that count for more than an entity tag: where nothing is known of tags, by what the last one was."""
_PAGE_OBJECTS = 1000
"""Objects of a full page of a listing."""


class RemoteStore:
    """A folder in object storage.

    Safe to share between threads. Pickles without credentials; each process connects for itself.

    Args:
        url: The folder's URL; a password in it is used but never shown.
        driver: The client library.
        settings: Sizes, time limits, retries.
    """

    def __init__(self, url: str, driver: Driver, settings: StoreSettings) -> None:
        self.url = redact(url.rstrip("/") if not url.endswith("://") else url)
        self.settings = settings
        self._driver = driver
        self._calls = Calls(self.url, driver, settings)
        self._tags_are_md5: bool | None = None

    @property
    def retries(self) -> int:
        """Attempts that followed a failed one, in this process. The client libraries make none of their own."""
        return self._calls.retries

    def __repr__(self) -> str:
        return f"RemoteStore({self.url!r}, {type(self._driver).__name__})"

    def __getstate__(self) -> tuple[str, Driver, StoreSettings]:
        return self.url, self._driver, self.settings

    def __setstate__(self, state: tuple[str, Driver, StoreSettings]) -> None:
        self.__init__(*state)  # type: ignore[misc] # a fresh object, as in the constructor

    def read(self, path: str) -> bytes:
        """The whole object, checked against its entity tag where that is an MD5.

        Some encrypted objects have tags that look like an MD5 and are none: equal readings settle it, more of them
        where a tag of this store has been an MD5, since damage may come twice alike.
        """
        with self._calls.named(path, 0):
            info = self._calls.head(path)
            first: bytes | None = None
            for _ in range(_READINGS[self._tags_are_md5]):
                data = self._read_parts(path, 0, info.size, info.etag)
                if not _etag_differs(info.etag, data):
                    if _etag_is_md5(info.etag):
                        self._tags_are_md5 = True
                    return data
                if first is not None and data != first:
                    raise DriverError("fatal", "readings differ from each other and from the entity tag")
                first = data
            assert first is not None
            self._tags_are_md5 = False
            return first

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`."""
        with self._calls.named(path, start):
            return self._read_parts(path, start, length, "")

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several `(start, length)` ranges in their order. Only the bytes asked for are fetched, never the gaps."""
        results: dict[int, bytes] = {}
        batches = _batches(ranges)
        replies = self._calls.each(lambda batch: self._try_batch(path, ranges, batch), batches)
        for batch, parts in zip(batches, replies, strict=True):
            results.update(zip(batch, parts, strict=False))
        for index, (_, length) in enumerate(ranges):
            if len(results.get(index, b"")) != length:
                results.pop(index, None)
        pieces = [
            (index, *part)
            for index, wanted in enumerate(ranges)
            if index not in results
            for part in self._split(*wanted)
        ]
        for (index, _, _), data in zip(pieces, self._calls.each(partial(self._piece, path), pieces), strict=True):
            results[index] = results.get(index, b"") + data
        return [results.get(index, b"") for index in range(len(ranges))]

    def open_stream(self, path: str, start: int = 0) -> BinaryIO:
        """A stream from `start`. It holds no connection while its reader pauses, and a bounded number of ranges."""
        with self._calls.named(path, start):
            info = self._calls.head(path)

        def fetch(offset: int, length: int, cancelled: threading.Event) -> bytes:
            with self._calls.named(path, offset):
                return self._fetch(path, offset, length, info.etag, cancelled)

        raw = RangeStream(
            fetch=fetch,
            submit=self._calls.pool("read").submit,
            start=start,
            size=info.size,
            range_bytes=self.settings.range_bytes,
            readahead=self.settings.readahead,
        )
        return io.BufferedReader(raw, buffer_size=MIB)

    def stat(self, path: str) -> ObjectInfo:
        """Size and entity tag of one object."""
        with self._calls.named(path):
            return self._calls.head(path)

    def list(self, prefix: str = "", *, hidden: bool = False) -> Iterator[ObjectInfo]:
        """All objects whose path starts with `prefix`, in the order of their paths.

        The listing is held in memory and sorted: stores disagree about the order of `a/b` and `a-b`.
        """
        with self._calls.named(prefix):
            found = self._listed(prefix.rpartition("/")[0])
        wanted = (info for info in found if info.path.startswith(prefix) and (hidden or not is_hidden(info.path)))
        yield from sorted(wanted, key=lambda info: info.path)

    def _listed(self, folder: str) -> Sequence[ObjectInfo]:
        """A listing; one that may end where a page of it was no page of a listing is asked for until two agree.

        Clients read any well-formed XML, such as a login page, as a listing of nothing, which also ends a longer one.
        """
        before: list[ObjectInfo] | None = None
        while True:
            found = self._calls.attempt(lambda: list(self._driver.list(folder)))
            if len(found) % _PAGE_OBJECTS or (before is not None and len(before) == len(found)):
                return found
            before = found

    def put_if_absent(self, path: str, data: bytes | Path) -> ObjectInfo:
        """Create an object from bytes or a local file; it appears whole or not at all.

        Where an attempt broke without a reply and the next one finds the name taken, the object's content decides
        whether that was our own success.
        """
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        with self._calls.named(path):
            if size <= self.settings.single_put_bytes:
                self._create(path, lambda: self._create_checked(path, data), lambda: _sha256(data), size)
                return ObjectInfo(path=path, size=size)
            hidden = f"{path.rpartition('/')[0]}/{HIDDEN}{uuid.uuid4().hex}".lstrip("/")
            try:
                self._calls.attempt(lambda: self._upload_checked(hidden, data))
                self._create(path, lambda: self._driver.copy(hidden, path), lambda: _sha256(data), size)
            finally:
                with suppress(DriverError):
                    self._driver.delete([hidden])
        return ObjectInfo(path=path, size=size)

    def move_if_absent(self, source: str, target: str) -> ObjectInfo:
        """Give an object another name: a conditional copy inside the store, then the old name is deleted."""
        info = self.stat(source)
        with self._calls.named(target):
            self._create(
                target, lambda: self._driver.copy(source, target), lambda: self._remote_sha256(source), info.size
            )
            self._calls.attempt(lambda: self._driver.delete([source]))
        return ObjectInfo(path=target, size=info.size)

    def replace(self, path: str, data: bytes) -> None:
        """Put an object over whatever is there."""
        with self._calls.named(path):
            self._calls.attempt(lambda: self._upload_checked(path, data))

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects; missing ones are no error."""
        for begin in range(0, len(paths), 1000):
            part = paths[begin : begin + 1000]
            with self._calls.named(part[0]):
                self._calls.attempt(partial(self._driver.delete, part))

    def local_path(self, path: str) -> Path | None:  # noqa: ARG002 - the seam's signature
        """None: there is no file."""
        return None

    def _read_parts(self, path: str, start: int, length: int, etag: str) -> bytes:
        return b"".join(self._calls.each(lambda part: self._hedged(path, *part, etag), self._split(start, length)))

    def _split(self, start: int, length: int) -> Sequence[tuple[int, int]]:
        """Offset and length of the requests for a range."""
        step = self.settings.range_bytes
        return [(offset, min(step, start + length - offset)) for offset in range(start, start + length, step)]

    def _piece(self, path: str, piece: tuple[int, int, int]) -> bytes:
        _, offset, length = piece
        with self._calls.named(path, offset):
            return self._hedged(path, offset, length, "")

    def _hedged(self, path: str, start: int, length: int, etag: str) -> bytes:
        """One range; a straggler is asked for a second time, where the settings say so."""
        if not self.settings.hedge_seconds:
            return self._fetch(path, start, length, etag)
        cancelled = threading.Event()
        pool = self._calls.pool("hedge")
        racers: set[Future[bytes]] = {pool.submit(self._fetch, path, start, length, etag, cancelled)}
        done, _ = wait(racers, timeout=self.settings.hedge_seconds)
        if not done:
            racers.add(pool.submit(self._fetch, path, start, length, etag, cancelled))
        try:
            return _first_success(racers)
        finally:
            cancelled.set()

    def _fetch(self, path: str, start: int, length: int, etag: str, cancelled: threading.Event | None = None) -> bytes:
        """One range in one request, taken up again at the byte where a reply broke."""
        parts: list[bytes] = []
        got = 0

        def once() -> None:
            nonlocal got, etag
            if length <= _SMALL_BYTES and not etag and not got:
                parts.extend(self._driver.read_ranges(path, [(start, length)]))
                got = len(parts[0])
                if got == length:
                    return
            reply = self._driver.open_range(path, start + got, length - got, etag)
            etag = etag or reply.etag
            for chunk in reply.chunks:
                parts.append(chunk)
                got += len(chunk)
                if cancelled and cancelled.is_set():
                    raise DriverError("fatal", "the reader was closed")
            if got != length:
                short = reply.total is not None and start + length > reply.total
                raise DriverError("range" if short else "transient", f"the reply ended after {got} of {length} bytes")

        if length:
            self._calls.attempt(once, cancelled)
        return b"".join(parts)

    def _try_batch(self, path: str, ranges: Sequence[tuple[int, int]], batch: Sequence[int]) -> Sequence[bytes]:
        """A first attempt at many small ranges at once; empty where it failed, so that each is tried alone."""
        try:
            return self._driver.read_ranges(path, [ranges[index] for index in batch])
        except DriverError:
            self._calls.count_retry()
            return []

    def _create_checked(self, path: str, data: bytes | Path) -> None:
        """One attempt to create an object; where the store holds other bytes than were sent, they go again."""
        etag = self._driver.create(path, data)
        if _etag_is_md5(etag) and _md5(data) == etag.strip('"'):
            return
        self._read_back(path, data)

    def _upload_checked(self, path: str, data: bytes | Path) -> None:
        self._driver.upload(path, data)
        self._read_back(path, data)

    def _read_back(self, path: str, data: bytes | Path) -> None:
        """Compare what the store holds with what was sent, unless the store itself has done that.

        Raises:
            DriverError: It differs; the object is deleted, and another attempt may do better.
        """
        try:
            if self._driver.uploads_are_checked or self._remote_sha256(path) == _sha256(data):
                return
        except NotFoundError:
            raise DriverError("transient", "the store took the object and does not have it") from None
        self._driver.delete([path])
        raise DriverError("transient", "the store holds other bytes than were sent")

    def _create(self, path: str, action: Callable[[], None], digest: Callable[[], str], size: int) -> None:
        """Run a conditional write; a name that is taken after a lost reply may be our own success."""
        lost_reply = False

        def note(error: DriverError) -> bool:
            nonlocal lost_reply
            lost_reply = lost_reply or error.kind == "transient"
            return False

        try:
            self._calls.attempt(action, on_failure=note)
        except DriverError as error:
            if error.kind != "exists" or not lost_reply:
                raise
            there = self._calls.head(path)
            if there.size != size or self._remote_sha256(path) != digest():
                raise

    def _remote_sha256(self, path: str) -> str:
        digest = hashlib.sha256()
        with self.open_stream(path) as stream:
            while block := stream.read(MIB):
                digest.update(block)
        return digest.hexdigest()


def _batches(ranges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Indices of small ranges, grouped within the limits of one batch."""
    batches: list[list[int]] = []
    total = 0
    for index, (_, length) in enumerate(ranges):
        if not 0 < length <= _SMALL_BYTES:
            continue
        if not batches or len(batches[-1]) == _BATCH_RANGES or total + length > _BATCH_BYTES:
            batches.append([])
            total = 0
        batches[-1].append(index)
        total += length
    return batches


def _first_success(racers: set[Future[bytes]]) -> bytes:
    while True:
        done, racers = wait(racers, return_when=FIRST_COMPLETED)
        for future in done:
            if not future.exception() or not racers:
                return future.result()


def _etag_differs(etag: str, data: bytes) -> bool:
    return _etag_is_md5(etag) and _md5(data) != etag.strip('"')


def _etag_is_md5(etag: str) -> bool:
    """Whether an entity tag looks like an MD5 of the content, as that of plain S3 objects is."""
    return re.fullmatch(r'"?[0-9a-f]{32}"?', etag) is not None


def _md5(data: bytes | Path) -> str:
    if isinstance(data, Path):
        with data.open("rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _sha256(data: bytes | Path) -> str:
    if isinstance(data, Path):
        with data.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return hashlib.sha256(data).hexdigest()
