"""What a store can do, found out by doing it in a folder of its own that is deleted afterwards."""

from __future__ import annotations

import os
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from shards.errors import AlreadyExistsError, NotFoundError, StoreError
from shards.store import MIB, Store, StoreSettings, join_url, open_store, storage_options
from shards.store.calls import HINTS
from shards.store.options import S3_SCHEMES, credential_source, require_plain, service

_PART_BYTES = 6 * MIB
_SPEED_BYTES = 16 * MIB
_SKEW_SECONDS = 60.0
_REFUSED = ("SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check.

    Attributes:
        name: What was checked.
        ok: Whether it works.
        detail: What was seen; nothing secret.
        missing: What this store cannot do, in words, and what that means; empty where `ok`.
        unsafe: It answered, but not as it must.
        hopeless: Nothing else can work either.
    """

    name: str
    ok: bool
    detail: str = ""
    missing: str = ""
    unsafe: bool = False
    hopeless: bool = False


def probe(url: str, settings: StoreSettings | None = None) -> Iterator[Finding]:
    """Check a store: credentials, listing, writes, ranges, parts, renames, index commits, clock and speed.

    Everything is written below `<url>/.biovfm-doctor-<random>/` and deleted at the end.

    Args:
        url: The folder of a dataset, or where one is to be.
        settings: Time limits; by default those of the environment, with at most 15 s of attempts for each step.
    """
    require_plain(url)
    settings = settings or StoreSettings.from_environment()
    settings = replace(settings, budget_seconds=min(settings.budget_seconds, 15.0))
    if url.partition("://")[0] in S3_SCHEMES:
        found = _check("credentials", credential_source, missing="no request can be signed")
        yield found
        if not found.ok:
            return
    folder = f".biovfm-doctor-{uuid.uuid4().hex[:12]}"
    store = open_store(url, settings)
    listed = _check("list", lambda: _list(store, folder, service(url)), missing=_UNLISTED, is_first=True)
    yield listed
    if listed.hopeless:
        return
    missing = _READ_ONLY if listed.ok else _NOTHING
    wrote = _check("conditional put", lambda: _conditional_put(store, folder), missing=missing)
    yield wrote
    if not wrote.ok and not wrote.unsafe:
        yield _check("range reads", lambda: _ranges_of_anything(store), missing="samples cannot be read by range")
        return
    try:
        yield from _written_checks(url, store, folder, settings)
    finally:
        store.delete([info.path for info in store.list(folder + "/")])


_UNLISTED = "finished work cannot be found again"
_READ_ONLY = "objects cannot be created here: datasets can be read, not written"
_NOTHING = "nothing can be written here either; the reason is above"


def _written_checks(url: str, store: Store, folder: str, settings: StoreSettings) -> Iterator[Finding]:
    big = os.urandom(_PART_BYTES)
    steps: list[tuple[str, Callable[[], str], str]] = [
        ("range reads", lambda: _ranges(store, folder, big), "samples cannot be read by range"),
        (
            "multipart",
            lambda: _parts(url, folder, big, replace(settings, single_put_bytes=MIB)),
            f"objects above {settings.single_put_bytes >> 20} MiB cannot be written",
        ),
        ("rename", lambda: _rename(store, folder), "staged shards cannot be moved into place"),
        ("index commit", lambda: _commit(url, folder), "the sample index cannot be written"),
        ("clock", lambda: _clock(store, folder), "requests are refused where clocks differ by 15 minutes"),
        ("throughput", lambda: _speed(store, folder), "training would wait for data"),
        ("delete", lambda: _delete(store, folder), "staging cannot be swept; use a lifecycle rule"),
    ]
    for name, action, missing in steps:
        yield _check(name, action, missing=missing)


def _check(name: str, action: Callable[[], str], *, missing: str, is_first: bool = False) -> Finding:
    try:
        return Finding(name=name, ok=True, detail=action())
    except StoreError as error:
        hopeless = _hopeless(error) if is_first else ""
        return Finding(name=name, ok=False, detail=_told(error), missing=hopeless or missing, hopeless=bool(hopeless))
    except _UnsafeError as error:
        return Finding(name=name, ok=False, detail=str(error), missing=str(error), unsafe=True)


def _told(error: StoreError) -> str:
    """The error; without a hint that sends back here."""
    return error.message if "biovfm doctor" in error.hint else str(error)


def _hopeless(error: StoreError) -> str:
    """Why no other check can do better; empty where one may."""
    if error.hint == HINTS["bucket"]:
        return "the bucket is not there: create it, or correct its name or AWS_ENDPOINT_URL"
    if error.hint == HINTS["transient"]:
        return "the storage does not answer: check AWS_ENDPOINT_URL, proxies and the network"
    if any(code in error.message for code in _REFUSED):
        return "the credentials are refused: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    return ""


class _UnsafeError(Exception):
    """The store answered, but not as it must; the message says what that means."""


def _list(store: Store, folder: str, service: str) -> str:
    found = len(list(islice(store.list(folder + "/"), 2)))
    if found:
        raise _UnsafeError("the listing shows objects that are not there")
    return f"{service} answers".lstrip()


def _conditional_put(store: Store, folder: str) -> str:
    store.put_if_absent(f"{folder}/once", b"first")
    try:
        store.put_if_absent(f"{folder}/once", b"other")
    except AlreadyExistsError:
        if store.read(f"{folder}/once") == b"first":
            return "a taken name is refused"
    raise _UnsafeError(
        "an object could be created twice: the store ignores If-None-Match, so that two jobs may overwrite each other "
        "and index commits may be lost; write from one process at a time, or use another store"
    )


def _ranges(store: Store, folder: str, data: bytes) -> str:
    store.put_if_absent(f"{folder}/ranges", data)
    wanted = [(0, 10), (1000, 300_000), (len(data) - 7, 7), (5_000_000, 1)]
    if store.read_ranges(f"{folder}/ranges", wanted) != [data[start : start + size] for start, size in wanted]:
        raise _UnsafeError("ranges come back with other bytes than were written")
    try:
        store.read_range(f"{folder}/ranges", len(data) - 5, 10)
    except StoreError:
        return "exact"
    raise _UnsafeError("a range past the end is not refused")


def _ranges_of_anything(store: Store) -> str:
    try:
        path = store.stat("dataset.json").path
    except NotFoundError:
        path = next((info.path for info in store.list() if info.size >= 16), "")
    if not path:
        raise StoreError("there is nothing to read here", hint="check the folder's name")
    if store.read_range(path, 5, 7) != store.read_range(path, 0, 16)[5:12]:
        raise _UnsafeError("ranges come back with other bytes than the whole")
    return f"exact ({path})"


def _parts(url: str, folder: str, data: bytes, settings: StoreSettings) -> str:
    store = open_store(url, settings)
    store.put_if_absent(f"{folder}/parts", data)
    if store.read(f"{folder}/parts") != data:
        raise _UnsafeError("an object uploaded in parts has other bytes")
    return "uploads in parts appear whole"


def _rename(store: Store, folder: str) -> str:
    store.put_if_absent(f"{folder}/old", b"renamed")
    store.move_if_absent(f"{folder}/old", f"{folder}/new")
    if store.read(f"{folder}/new") != b"renamed":
        raise _UnsafeError("a renamed object has other bytes")
    try:
        store.move_if_absent(f"{folder}/new", f"{folder}/once")
    except AlreadyExistsError:
        return "a taken name is refused"
    raise _UnsafeError("a rename goes over an object that is there")


def _commit(url: str, folder: str) -> str:
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake
    from deltalake.exceptions import DeltaError

    table, options = join_url(url, folder, "table"), storage_options(url)
    try:
        for number in (1, 2):
            write_deltalake(table, pa.table({"number": [number]}), mode="append", storage_options=options)
        version = DeltaTable(table, storage_options=options).version()
    except (DeltaError, OSError, ValueError) as error:
        raise StoreError(f"deltalake: {str(error).splitlines()[0]}", hint="see the credentials above") from None
    return f"version {version} after two commits"


def _clock(store: Store, folder: str) -> str:
    before = time.time()
    store.put_if_absent(f"{folder}/clock", b"now")
    after = time.time()
    modified = store.stat(f"{folder}/clock").modified
    if not modified:
        return "the store tells no time"
    skew = min(modified + 1 - before, 0.0) or max(modified - after, 0.0)
    if abs(skew) > _SKEW_SECONDS:
        raise _UnsafeError(f"this machine's clock is off by {-skew:.0f} s; set it by NTP")
    return f"within {abs(skew) + 1:.0f} s"


def _speed(store: Store, folder: str) -> str:
    data = os.urandom(_SPEED_BYTES)
    begin = time.perf_counter()
    store.put_if_absent(f"{folder}/speed", data)
    wrote = time.perf_counter() - begin
    begin = time.perf_counter()
    if store.read_range(f"{folder}/speed", 0, len(data)) != data:
        raise _UnsafeError("the bytes read are not those written")
    read = time.perf_counter() - begin
    waits = []
    for start in range(0, 8 * MIB, MIB):
        begin = time.perf_counter()
        store.read_range(f"{folder}/speed", start, 1000)
        waits.append(time.perf_counter() - begin)
    size = _SPEED_BYTES / MIB
    return (
        f"reads {size / read:.0f} MiB/s, writes {size / wrote:.0f} MiB/s, "
        f"a small range takes {1000 * statistics.median(waits):.1f} ms"
    )


def _delete(store: Store, folder: str) -> str:
    store.delete([info.path for info in store.list(folder + "/")])
    left = [info.path for info in store.list(folder + "/")]
    if left:
        raise _UnsafeError(f"{len(left)} objects are still listed after they were deleted")
    return "nothing is left behind"
