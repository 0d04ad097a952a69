"""Any other URL, and any URL on request, through fsspec (for S3: s3fs)."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from shards.store.base import ObjectInfo
from shards.store.driver import NOT_A_STORE, DriverError, Kind, RangeReply, kind_of
from shards.store.options import S3_SCHEMES, S3Options, fsspec_options, redact
from shards.store.settings import StoreSettings

_WRITER = "writer"


class FsspecDriver:
    """One folder through fsspec; the file system is made when it is first needed, in each process anew."""

    def __init__(self, url: str, settings: StoreSettings) -> None:
        self._url = url
        self._settings = settings
        self._made: dict[tuple[int, str], tuple[Any, str]] = {}

    def __getstate__(self) -> tuple[str, StoreSettings]:
        return self._url, self._settings

    def __setstate__(self, state: tuple[str, StoreSettings]) -> None:
        self.__init__(*state)  # type: ignore[misc] # a fresh object, as in the constructor

    def open_range(self, path: str, start: int, length: int, etag: str) -> RangeReply:  # noqa: ARG002
        """Fetch a range; fsspec cannot ask for one version only."""
        data = self.read_ranges(path, [(start, length)])[0]
        total = None if len(data) == length else self.head(path).size
        return RangeReply(total=total, etag="", chunks=iter([data]))

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several small ranges at once."""
        system, root = self._system()
        name = _join(root, path)
        with _failures():
            if len(ranges) == 1:
                start, length = ranges[0]
                return [bytes(system.cat_file(name, start=start, end=start + length))]
            starts = [start for start, _ in ranges]
            ends = [start + length for start, length in ranges]
            return [bytes(part) for part in system.cat_ranges([name] * len(ranges), starts, ends, on_error="raise")]

    def head(self, path: str) -> ObjectInfo:
        """Size and entity tag."""
        system, root = self._system()
        with _failures():
            found = system.info(_join(root, path))
        if found.get("type") == "directory":
            raise DriverError("missing", "a folder")
        info = _info(path, found)
        if not info.etag and self._url.partition("://")[0] in S3_SCHEMES:
            raise DriverError("transient", NOT_A_STORE)
        return info

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        """Everything below a folder."""
        system, root = self._system()
        below = root.rstrip("/") + "/" if root else ""
        with _failures():
            try:
                found = system.find(_join(root, folder), detail=True)
            except FileNotFoundError:
                found = {}
            if not found and self._conditional(system) and not system.exists(root.partition("/")[0]):
                raise DriverError("bucket", "the bucket is not there")
        for name, info in found.items():
            if info.get("type") != "directory":
                yield _info(name.removeprefix(below), info)

    @property
    def uploads_are_checked(self) -> bool:
        """AWS holds every upload against the checksum that goes with it; other services may not look."""
        options = S3Options.from_environment()
        return self._url.partition("://")[0] in S3_SCHEMES and not options.endpoint and not options.anonymous

    def create(self, path: str, data: bytes | Path) -> str:
        """Create an object: conditionally on S3; elsewhere by a check, a temporary name and a rename."""
        system, root = self._system("write")
        target = _join(root, path)
        with _failures():
            if self._conditional(system):
                self._create_conditionally(system, target, data)
                return str(system.info(target, refresh=True).get("ETag") or "")
            if system.exists(target):
                raise DriverError("exists", "the name is taken")
            folder, _, name = target.rpartition("/")
            system.makedirs(folder, exist_ok=True)
            partial = f"{folder}/.partial-{os.getpid()}-{name}"
            self._write(system, partial, data)
            system.mv(partial, target)
        return ""

    def upload(self, path: str, data: bytes | Path) -> None:
        """Write an object of any size."""
        system, root = self._system("write")
        with _failures():
            self._write(system, _join(root, path), data)

    def copy(self, source: str, target: str) -> None:
        """Copy by reading and creating: fsspec has no conditional copy."""
        system, root = self._system("write")
        with _failures():
            data = system.cat_file(_join(root, source))
        self.create(target, data)

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects."""
        system, root = self._system("write")
        for path in paths:
            with _failures():
                try:
                    system.rm_file(_join(root, path))
                except FileNotFoundError:
                    continue

    def reset(self) -> None:
        """Forget the file system."""
        self._made.clear()

    def _system(self, use: str = "read") -> tuple[Any, str]:
        made = (os.getpid(), use)
        if made not in self._made:
            with _failures():
                self._made[made] = _make_system(self._url, self._settings, use)
        return self._made[made]

    def _conditional(self, system: Any) -> bool:
        protocol = system.protocol if isinstance(system.protocol, tuple) else (system.protocol,)
        return bool(S3_SCHEMES & set(protocol))

    def _create_conditionally(self, system: Any, target: str, data: bytes | Path) -> None:
        # aiohttp silently repeats a PUT whose reply was lost, and would meet itself: the object says who wrote it.
        writer = {_WRITER: uuid.uuid4().hex}
        try:
            if isinstance(data, Path):
                system.put_file(str(data), target, mode="create", Metadata=writer)
            else:
                system.pipe_file(target, data, mode="create", Metadata=writer)
        except OSError as error:
            taken = isinstance(error, FileExistsError) or (
                error.errno == errno.EINVAL and "pre-condition" in str(error).lower()
            )
            if not taken:
                raise
            if system.metadata(target, refresh=True).get(_WRITER) != writer[_WRITER]:
                raise DriverError("exists", "the name is taken") from None

    def _write(self, system: Any, target: str, data: bytes | Path) -> None:
        if isinstance(data, Path):
            system.put_file(str(data), target)
        else:
            system.pipe_file(target, data)


def _make_system(url: str, settings: StoreSettings, use: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    options = fsspec_options(url)
    if url.partition("://")[0] in S3_SCHEMES:
        options["config_kwargs"] |= {
            "connect_timeout": settings.connect_seconds,
            "read_timeout": settings.read_seconds if use == "read" else settings.write_seconds,
            "retries": {"total_max_attempts": 1},
            "max_pool_connections": 2 * settings.concurrency,
        }
        options["default_block_size"] = settings.range_bytes
        options["max_concurrency"] = 1
        # A cached file system would go on with the credentials of its first day.
        options["skip_instance_cache"] = True
    system, root = url_to_fs(url, **options)
    if hasattr(system, "retries"):
        system.retries = 1
    return system, root.rstrip("/")


def _info(path: str, found: dict[str, Any]) -> ObjectInfo:
    changed = next((found[key] for key in ("LastModified", "mtime", "updated", "created") if key in found), 0.0)
    modified = changed.timestamp() if isinstance(changed, datetime) else changed
    return ObjectInfo(
        path=path,
        size=int(found["size"] or 0),
        etag=str(found.get("ETag") or ""),
        modified=float(modified) if isinstance(modified, int | float) else 0.0,
    )


def _join(root: str, path: str) -> str:
    return f"{root}/{path}" if root and path else root or path


_KINDS: tuple[tuple[type[Exception], Kind], ...] = (
    (FileNotFoundError, "missing"),
    (IsADirectoryError, "missing"),
    (NotADirectoryError, "missing"),
    (FileExistsError, "exists"),
    (PermissionError, "denied"),
    (NotImplementedError, "unsupported"),  # what file systems raise of an operation that they lack
    (ImportError, "fatal"),
    (ValueError, "fatal"),
)


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except DriverError:
        raise
    except Exception as error:  # noqa: BLE001 - each file system has its own errors; all end here as failed attempts
        raise _explained(error) from None


def _explained(error: Exception) -> DriverError:
    """What went wrong by the error's type and, for S3, by the server's own code, which s3fs keeps in the cause."""
    kind: Kind = next((kind for family, kind in _KINDS if isinstance(error, family)), "transient")
    name = type(error).__name__
    if "Credential" in name or name == "ClientAuthenticationError":
        kind = "denied"
    reply = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
    text = redact(str(error)).replace("\n", " ")[:300] or name
    if isinstance(reply, dict):
        code = str(reply.get("Error", {}).get("Code", ""))
        status = int(reply.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return DriverError(kind_of(status, code, kind), f"{status} {code} {text}")
    if kind == "transient" and "range" in text.lower() and "satisf" in text.lower():
        kind = "range"
    return DriverError(kind, f"{name}: {text}" if kind == "transient" else text)
