"""Lists RAR and 7-Zip archives in a process of their own.

libarchive is C code that reads foreign bytes. Where it crashes on an archive, that archive is a reject and the listing
goes on, as the files in it are read by workers that may crash. One process serves all archives of a listing. It is
asked and answers in lines of JSON, so that nothing it says can do more than name files.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import fields, replace
from typing import Any, Final, TextIO, cast

from ingest.raw.archive import top
from ingest.raw.archive_listing import archive_items
from ingest.raw.items import RawItem
from ingest.raw.root import RawRoot
from ingest.settings import LimitSettings
from shards.errors import MachineError

__all__ = ["Apart", "serve"]

_CRASHES: Final = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
_COMMAND: Final = "from ingest.raw.apart import serve; serve()"
_SENT: Final = ("path", "member", "kind", "size", "offset", "check", "stamp", "detail", "parts", "holder", "pieces")
"""Fields that a listing fills."""

Parts = tuple[tuple[str, int], ...]


class Apart:
    """The process that lists such archives; it starts when it is first asked.

    Args:
        limits: Guards against absurd archives.
    """

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self._process: subprocess.Popen[str] | None = None

    def files(self, url: str, base: RawItem) -> Generator[RawItem, None, None]:
        """The files inside one archive, in their order.

        Args:
            url: The raw URL, which other processes see, too.
            base: Path, parts, size and stamp of the archive.

        Raises:
            MachineError: The process ended for another reason than a crash of the library, or met one itself.
        """
        process = self._started()
        complete = False
        try:
            for line in self._answers(process, json.dumps({"url": url, "archive": _told(base)})):
                answer: dict[str, Any] = json.loads(line)
                if "item" in answer:
                    yield _item(answer["item"])
                    continue
                complete = True
                if "error" in answer:
                    raise MachineError(answer["error"], hint=answer["hint"])
                return
            yield self._crashed(process, base)
        finally:
            if not complete:  # what it still has to say would be taken for an answer to the next question
                self.close()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603  # this program itself
                [sys.executable, "-c", _COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            self._send(self._process, json.dumps(self._limits.model_dump()))
        return self._process

    def _answers(self, process: subprocess.Popen[str], asked: str) -> Iterator[str]:
        self._send(process, asked)
        assert process.stdout is not None
        yield from iter(process.stdout.readline, "")

    @staticmethod
    def _send(process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return  # it has ended: what it says next is nothing

    def _crashed(self, process: subprocess.Popen[str], base: RawItem) -> RawItem:
        code = process.wait()
        self.close()
        if -code not in _CRASHES:
            raise MachineError(
                f"the process that lists {base.raw_path} ended with exit code {code}",
                hint="run the same command again; `biovfm doctor` says what this machine has",
            )
        detail = "unreadable_archive:libarchive crashes on it, unpack the archive beside itself first"
        return replace(base, size=0, kind="reject", detail=detail)


def serve() -> None:
    """List the archives that standard input names, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks ends this one
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    limits = LimitSettings.model_validate_json(sys.stdin.readline())
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        _serve_one(RawRoot(asked["url"]), limits, _item(asked["archive"]), answers)


def _serve_one(root: RawRoot, limits: LimitSettings, base: RawItem, answers: TextIO) -> None:
    try:
        stored = root.stored(base.path, base.parts, size=base.size)
        found = archive_items(top(stored, "libarchive"), replace(base, size=0), limits)
        answers.writelines(json.dumps({"item": _told(item)}) + "\n" for item in found)
        last: dict[str, str] = {}
    except MachineError as error:
        last = {"error": error.message, "hint": error.hint}
    answers.write(json.dumps(last) + "\n")
    answers.flush()


def _told(item: RawItem) -> dict[str, Any]:
    """What differs from the defaults."""
    defaults = {field.name: field.default for field in fields(RawItem)}
    told = {name: getattr(item, name) for name in _SENT if getattr(item, name) != defaults[name]}
    if item.holder is not None:
        told["holder"] = _told(item.holder)
    return told


def _item(told: dict[str, Any]) -> RawItem:
    known = {name: told[name] for name in _SENT if name in told}
    for name in ("parts", "pieces"):
        if name in known:
            known[name] = cast("Parts", tuple(tuple(pair) for pair in known[name]))
    if "holder" in known:
        known["holder"] = _item(known["holder"])
    return RawItem(**known)
