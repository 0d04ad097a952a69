"""S3, Google, Azure and plain http through obstore: the fast path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from shards.errors import StoreError
from shards.store.base import ObjectInfo
from shards.store.driver import NOT_A_STORE, DriverError, Kind, RangeReply, kind_of
from shards.store.options import AZURE_SCHEMES, S3_SCHEMES, S3Options, azure_is_plain_http, s3_credentials
from shards.store.settings import MIB, StoreSettings

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = S3_SCHEMES | AZURE_SCHEMES | {"gs", "http", "https"}
_CHUNK_BYTES = 256 << 10
"""A reply that breaks loses what has come of the chunk under way."""
_touched_by_pid = 0
"""The process whose obstore runtime is alive; a fork inherits the number but not the runtime's threads."""


class ObstoreDriver:
    """One bucket and prefix through obstore; the client is made when it is first needed, in each process anew."""

    def __init__(self, url: str, settings: StoreSettings) -> None:
        self._url = url
        self._settings = settings
        self._clients: dict[str, ObjectStore] = {}
        self._pid = 0

    def __getstate__(self) -> tuple[str, StoreSettings]:
        return self._url, self._settings

    def __setstate__(self, state: tuple[str, StoreSettings]) -> None:
        self.__init__(*state)  # type: ignore[misc] # a fresh object, as in the constructor

    def open_range(self, path: str, start: int, length: int, etag: str) -> RangeReply:
        """Ask for a range."""
        import obstore

        options: dict[str, Any] = {"range": (start, start + length)}
        if etag:
            options["if_match"] = etag
        with _failures():
            reply = obstore.get(self._client(), path, options=options)  # type: ignore[arg-type] # a TypedDict
        if reply.range[0] != start:
            raise DriverError("fatal", f"the server answered from byte {reply.range[0]}")
        return RangeReply(total=reply.meta["size"], etag=_strong(reply.meta), chunks=_chunks(reply))

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several small ranges at once, the gaps between them left alone."""
        import obstore

        with _failures():
            if len(ranges) == 1:
                start, length = ranges[0]
                return [obstore.get_range(self._client(), path, start=start, length=length).to_bytes()]
            parts = obstore.get_ranges(
                self._client(), path, starts=[r[0] for r in ranges], lengths=[r[1] for r in ranges], coalesce=0
            )
        return [part.to_bytes() for part in parts]

    def head(self, path: str) -> ObjectInfo:
        """Size and entity tag."""
        import obstore

        with _failures():
            info = _info(meta := obstore.head(self._client(), path))
        if not meta["e_tag"] and self._url.partition("://")[0] not in {"http", "https"}:
            raise DriverError("transient", NOT_A_STORE)
        return info

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        """Everything below a folder."""
        import obstore

        with _failures():
            for batch in obstore.list(self._client(), folder or None, chunk_size=1000):
                yield from map(_info, batch)

    @property
    def uploads_are_checked(self) -> bool:
        """AWS holds every upload against the hash in its signature; other services may not look."""
        options = S3Options.from_environment()
        return self._url.partition("://")[0] in S3_SCHEMES and not options.endpoint and not options.anonymous

    def create(self, path: str, data: bytes | Path) -> str:
        """Create an object in one conditional request."""
        import obstore

        with _failures():
            reply = obstore.put(self._client("write"), path, data, mode="create", use_multipart=False)
        return str(reply["e_tag"] or "")

    def upload(self, path: str, data: bytes | Path) -> None:
        """Write an object in parts."""
        import obstore

        with _failures():
            obstore.put(self._client("write"), path, data, use_multipart=True, chunk_size=16 * MIB, max_concurrency=4)

    def copy(self, source: str, target: str) -> None:
        """Copy inside the store, only where the target's name is free."""
        import obstore

        with _failures():
            obstore.copy(self._client("write"), source, target, overwrite=False)

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects."""
        import obstore

        try:
            with _failures():
                obstore.delete(self._client("write"), list(paths))
        except DriverError as error:
            if error.kind != "missing":
                raise

    def reset(self) -> None:
        """Forget the clients."""
        self._clients.clear()

    def _client(self, use: str = "read") -> ObjectStore:
        global _touched_by_pid  # noqa: PLW0603 - one obstore runtime a process, so one number a process
        pid = os.getpid()
        if _touched_by_pid not in {0, pid}:
            raise StoreError(
                "this process was forked from one that had used object storage, where every read would hang",
                hint='start workers with multiprocessing_context="forkserver" (or "spawn")',
            )
        if use not in self._clients:
            _touched_by_pid = pid
            with _failures():
                self._clients[use] = _make_client(self._url, self._settings, use)
        return self._clients[use]


def _make_client(url: str, settings: StoreSettings, use: str) -> ObjectStore:
    from obstore import store as stores

    scheme, _, rest = url.partition("://")
    client: dict[str, Any] = {"connect_timeout": timedelta(seconds=settings.connect_seconds)}
    if use == "read":
        client["timeout"] = timedelta(seconds=settings.request_seconds)
        client["read_timeout"] = timedelta(seconds=settings.read_seconds)
    else:
        client["timeout"] = timedelta(seconds=settings.write_seconds)
    retry: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=settings.request_seconds)}
    if scheme in S3_SCHEMES:
        options = S3Options.from_environment()
        bucket, _, prefix = rest.partition("/")
        return stores.S3Store(
            bucket,
            prefix=prefix.strip("/") or None,
            config=options.for_obstore(),  # type: ignore[arg-type] # a TypedDict
            client_options={**client, "allow_http": options.allow_http},  # type: ignore[arg-type]
            credential_provider=None if options.anonymous else s3_credentials(),  # type: ignore[arg-type] # a TypedDict
            retry_config=retry,
        )
    if scheme in {"http", "https"}:
        client["allow_http"] = scheme == "http"
        return stores.HTTPStore(url, client_options=client, retry_config=retry)  # type: ignore[arg-type]
    client["allow_http"] = azure_is_plain_http()
    kind = stores.GCSStore if scheme == "gs" else stores.AzureStore
    return kind.from_url(url, client_options=client, retry_config=retry)  # type: ignore[arg-type]


def _chunks(reply: Any) -> Iterator[bytes]:
    with _failures():
        yield from reply.stream(min_chunk_size=_CHUNK_BYTES)  # buffers, joined once by the reader of the range


def _info(meta: Any) -> ObjectInfo:
    return ObjectInfo(
        path=meta["path"], size=meta["size"], etag=_strong(meta), modified=meta["last_modified"].timestamp()
    )


def _strong(meta: Any) -> str:
    """The entity tag, unless it is a weak one, which cannot be asked for with If-Match."""
    etag = str(meta["e_tag"] or "")
    return "" if etag.startswith("W/") else etag


@contextmanager
def _failures() -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except (StoreError, DriverError):
        raise
    except FileNotFoundError as error:
        raise _explained(error, "missing") from None
    except BaseError as error:
        raise _explained(error, _kinds().get(type(error).__name__, "transient")) from None
    except (ConnectionError, TimeoutError, OSError) as error:
        raise _explained(error, "transient") from None
    except NotImplementedError as error:  # what obstore raises of an operation that a store lacks
        raise _explained(error, "unsupported") from None
    except ValueError as error:
        raise _explained(error, "fatal") from None


def _kinds() -> dict[str, Kind]:
    return {
        "AlreadyExistsError": "exists",
        "PreconditionError": "changed",
        "PermissionDeniedError": "denied",
        "UnauthenticatedError": "denied",
        "NotSupportedError": "unsupported",
        "InvalidPathError": "fatal",
        "UnknownConfigurationKeyError": "fatal",
    }


def _explained(error: Exception, kind: Kind) -> DriverError:
    """The server's own code and message, without XML and without the client's debug output."""
    text = str(error).partition("\n\nDebug source")[0]
    status = re.search(r"status code: (\d{3})", text)
    code = re.search(r"<Code>([^<]*)</Code>", text)
    message = re.search(r"<Message>([^<]*)</Message>", text)
    number = int(status[1]) if status else 0
    if code or number:
        text = " ".join(part for part in (status and status[1], code and code[1], message and message[1]) if part)
    else:
        text = unquote(text.rpartition(" - ")[2] or text).replace("\n", " ")[:300]
        text = f"{text} ({_cause(str(error))})" if _cause(str(error)) else text
    return DriverError(kind_of(number, code[1] if code else "", kind), text)


def _cause(text: str) -> str:
    for word, plain in (
        ("TimedOut", "timed out"),
        ("ConnectionRefused", "connection refused"),
        ("ConnectionReset", "connection reset"),
        ("IncompleteMessage", "the reply was cut"),
        ("UnexpectedEof", "the reply was cut"),
        ("dns error", "unknown host"),
    ):
        if word in text:
            return plain
    return ""
