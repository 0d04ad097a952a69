"""Downloads the files that a source offers under open, direct links.

A download goes to `NAME.part` and gets its name when it is complete and its size and checksum are right; beside it
`NAME.part.json` holds what the server said of it, so that an interrupted one goes on where it stopped, unless the file
has changed there since. At most two downloads run against one host at a time, and a server that asks for a pause
(`Retry-After`) gets it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal
from urllib.parse import urlsplit

from ingest.raw.disguise import HEAD_BYTES, disguise
from ingest.raw.faults import fault_of
from ingest.source.spec import Link
from shards.errors import MachineError, SourceError

__all__ = ["Fetched", "fetch"]

_CHUNK_BYTES: Final = 1 << 20
_TRIES: Final = 6
_LONGEST_PAUSE_SECONDS: Final = 120.0
_TIMEOUT_SECONDS: Final = 60.0
_PER_HOST: Final = 2
_AGENT: Final = "biovfm (research data download)"

Watcher = Callable[[str, int, int], None]
"""Called with a file's name, its bytes so far, and its size (0 while unknown)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What became of one link.

    Attributes:
        name: The file's name in the folder.
        url: Where it comes from.
        state: `downloaded`, `resumed` (the rest of an earlier try), `there` already, or `failed`.
        size: Bytes of the file; 0 where it failed.
        sha256: Its checksum, hex; empty where it failed or was there with nothing to compare with.
        error: Why it failed, and what to do.
    """

    name: str
    url: str
    state: Literal["downloaded", "resumed", "there", "failed"]
    size: int = 0
    sha256: str = ""
    error: str = ""


def fetch(
    links: Sequence[Link],
    folder: Path,
    *,
    workers: int = 4,
    tell: Watcher | None = None,
    pause_seconds: float = 1.0,
) -> list[Fetched]:
    """Download links into a folder; a link that fails does not keep the others from their turn.

    Args:
        links: What to download.
        folder: Where to; made where it is missing.
        workers: Downloads at a time, at most two of them from one host.
        tell: Told how far each download is.
        pause_seconds: The first pause after a failure; each next one is twice as long.

    Returns:
        What became of each link, in their order.

    Raises:
        MachineError: The disk is full.
        SourceError: The folder cannot be made, or two links have one name.
    """
    names = [link.file_name for link in links]
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise SourceError(f"two links are both named {twice}", hint="give one of them another `name` in the YAML")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(f"cannot make {folder}: {error.strerror}", hint="choose another folder") from error
    hosts = _Hosts()
    told = tell or _ignore
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        jobs = [pool.submit(_one, _Download(link, folder, told, pause_seconds), hosts) for link in links]
        try:
            return [job.result() for job in jobs]
        except BaseException:
            hosts.stop.set()
            for job in jobs:
                job.cancel()
            raise


def _ignore(_name: str, _done: int, _size: int) -> None:
    pass


@dataclass(slots=True)
class _Hosts:
    """How many downloads each host may serve at a time, and whether all are to stop."""

    stop: threading.Event = field(default_factory=threading.Event)
    _slots: dict[str, threading.Semaphore] = field(
        default_factory=lambda: defaultdict(lambda: threading.Semaphore(_PER_HOST))
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def turn(self, host: str) -> Iterator[None]:
        with self._lock:
            slot = self._slots[host]
        with slot:
            yield


class _StoppedError(Exception):
    """Another download failed for good, or the user interrupted."""


class _PauseError(Exception):
    """A try failed in a way that another one may not; the server may have said when."""

    def __init__(self, why: str, seconds: float = 0.0) -> None:
        super().__init__(why)
        self.seconds = seconds


@dataclass(slots=True)
class _Download:
    """One link on its way to its file."""

    link: Link
    folder: Path
    tell: Watcher
    pause_seconds: float
    resumed: bool = False

    @property
    def target(self) -> Path:
        return self.folder / self.link.file_name

    @property
    def part(self) -> Path:
        return self.folder / f"{self.link.file_name}.part"

    @property
    def notes(self) -> Path:
        return self.folder / f"{self.link.file_name}.part.json"


def _one(download: _Download, hosts: _Hosts) -> Fetched:
    link = download.link
    name = link.file_name
    try:
        if download.target.is_file():
            return _found(download)
        with hosts.turn(urlsplit(link.url).netloc):
            size, checksum = _with_retries(download, hosts)
    except SourceError as error:
        return Fetched(name=name, url=link.url, state="failed", error=str(error))
    state: Literal["downloaded", "resumed"] = "resumed" if download.resumed else "downloaded"
    return Fetched(name=name, url=link.url, state=state, size=size, sha256=checksum)


def _found(download: _Download) -> Fetched:
    """A file that is there already, checked as far as its link tells."""
    link, target = download.link, download.target
    size = target.stat().st_size
    checksum = _sha256(target) if link.sha256 else ""
    if (link.size is not None and size != link.size) or checksum != link.sha256.lower():
        raise SourceError(f"{target} is not the file that the link names", hint="remove it and fetch again")
    return Fetched(name=link.file_name, url=link.url, state="there", size=size, sha256=checksum)


def _with_retries(download: _Download, hosts: _Hosts) -> tuple[int, str]:
    for attempt in range(_TRIES):
        try:
            return _attempt(download, hosts.stop)
        except _PauseError as error:
            if attempt == _TRIES - 1:
                hint = "the part that is there is kept: run the same command again later"
                raise SourceError(f"{download.link.url}: {error}, {_TRIES} times", hint=hint) from error
            seconds = min(_LONGEST_PAUSE_SECONDS, error.seconds or download.pause_seconds * 2**attempt)
            if hosts.stop.wait(seconds):
                raise _StoppedError from error
    raise AssertionError


def _attempt(download: _Download, stop: threading.Event) -> tuple[int, str]:
    """One request, from where an earlier one stopped; then the checks, and the file gets its name."""
    begun, headers = _resumable(download)
    request = urllib.request.Request(download.link.url, headers={"User-Agent": _AGENT, **headers})  # noqa: S310  # Link allows http and https only
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            if begun and (answer.status != 206 or _first_byte(answer.headers) != begun):
                begun = 0
            download.resumed = begun > 0
            size = begun + int(answer.headers.get("Content-Length") or 0)
            _check_size(download, size if answer.headers.get("Content-Length") else 0, begun)
            _note(download, answer.headers)
            _copy(answer, download, begun, size, stop)
    except urllib.error.HTTPError as error:
        raise _refusal(download, error) from error
    except (OSError, HTTPException) as error:
        fault = fault_of(error)
        if isinstance(fault, MachineError):
            raise fault from error
        raise _PauseError(type(error).__name__) from error
    return _finish(download, size if size > begun else 0)


def _resumable(download: _Download) -> tuple[int, dict[str, str]]:
    """How many bytes an earlier try left, and the headers that ask for the rest of the same file."""
    try:
        notes = json.loads(download.notes.read_bytes())
        begun = download.part.stat().st_size
        tag = str(notes["tag"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, {}
    return (begun, {"Range": f"bytes={begun}-", "If-Range": tag}) if begun and tag else (0, {})


def _first_byte(headers: Message) -> int:
    found = re.match(r"bytes (\d+)-", headers.get("Content-Range") or "")
    return int(found[1]) if found else -1


def _check_size(download: _Download, size: int, begun: int) -> None:
    """Before anything is written: the size that the link states, and the space on the disk."""
    stated = download.link.size
    if size and stated is not None and size != stated:
        hint = "the source has changed its file: correct `size` and `sha256` in the YAML"
        raise SourceError(f"{download.link.url} has {size} bytes, not {stated}", hint=hint)
    free = shutil.disk_usage(download.folder).free
    if size - begun > free:
        hint = "free some space, or choose another folder"
        raise MachineError(f"{download.target} needs {size - begun} bytes, {free} are free", hint=hint)


def _note(download: _Download, headers: Message) -> None:
    """Keep what tells whether the file is still the same: a strong tag, else the time of its last change."""
    tag = headers.get("ETag") or ""
    tag = headers.get("Last-Modified") or "" if tag.startswith("W/") or not tag else tag
    download.notes.write_text(json.dumps({"tag": tag}), encoding="utf-8")


def _copy(answer: Any, download: _Download, begun: int, size: int, stop: threading.Event) -> None:
    name = download.link.file_name
    with download.part.open("r+b" if begun else "wb") as part:
        part.truncate(begun)
        part.seek(begun)
        done = begun
        while data := answer.read(_CHUNK_BYTES):
            if stop.is_set():
                raise _StoppedError
            part.write(data)
            done += len(data)
            download.tell(name, done, size if size > begun else 0)


def _refusal(download: _Download, error: urllib.error.HTTPError) -> Exception:
    url = download.link.url
    if error.code == 416:  # the part is as long as the file or longer: begin anew
        for path in (download.part, download.notes):
            path.unlink(missing_ok=True)
        return _PauseError("HTTP 416")
    if error.code in (408, 425, 429) or error.code >= 500:
        return _PauseError(f"HTTP {error.code}", _retry_after(error.headers))
    if error.code in (401, 403):
        hint = "the source may want you to register first: `biovfm sources show ID` says where"
        return SourceError(f"{url} refuses the download (HTTP {error.code})", hint=hint)
    return SourceError(f"{url} is not there (HTTP {error.code})", hint="look for its new place on the source's page")


def _retry_after(headers: Message) -> float:
    value = headers.get("Retry-After") or ""
    return float(value) if value.isdigit() else 0.0


def _finish(download: _Download, size: int) -> tuple[int, str]:
    """Check a complete part and give it its name."""
    link, part = download.link, download.part
    held = part.stat().st_size
    if size and held < size:
        raise _PauseError(f"ended after {held} of {size} bytes")
    with part.open("rb") as stream:
        told = disguise(stream.read(HEAD_BYTES), link.file_name)
    if told.startswith("a web page"):
        _drop(download)
        hint = "open it in a browser: it may ask for consent or a log-in first"
        raise SourceError(f"{link.url} gives a web page, not {link.file_name}", hint=hint)
    checksum = _sha256(part)
    if (link.sha256 and checksum != link.sha256.lower()) or (link.size is not None and held != link.size):
        _drop(download)
        if download.resumed:
            raise _PauseError("the checksum of a resumed download is wrong")
        hint = "fetch again; if it stays so, the source has changed its file: correct `size` and `sha256` in the YAML"
        raise SourceError(f"{link.url} is not the file that the link names (size or checksum)", hint=hint)
    with part.open("rb+") as stream:
        os.fsync(stream.fileno())
    part.replace(download.target)
    download.notes.unlink(missing_ok=True)
    return held, checksum


def _drop(download: _Download) -> None:
    with suppress(OSError):
        download.part.unlink(missing_ok=True)
        download.notes.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    stream: BinaryIO
    with path.open("rb") as stream:
        while data := stream.read(_CHUNK_BYTES):
            digest.update(data)
    return digest.hexdigest()
