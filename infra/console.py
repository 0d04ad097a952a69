"""What every sub-command says and how: JSON on stdout, progress on stderr, errors in one line."""

from __future__ import annotations

import errno
import functools
import io
import json
import os
import select
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TextIO

from shards.files import json_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


_WIDE = 10_000
"""Columns of an output that is no terminal: nothing is wrapped or cut there."""


LogFormat = Literal["text", "json"]
_UNKNOWN = {"run": None, "rank": None, "step": None}
"""What every object of a JSON log has, as long as it is not known."""


class _JsonLines(io.TextIOBase):
    """Stands in for standard error: lines of text, whoever writes them, become JSON objects, one a line.

    Attributes:
        fields: What each object holds beside `time`, `level` and `message`.
        target: Standard error as it was.
    """

    def __init__(self, fields: dict[str, Any], target: TextIO) -> None:
        self.fields = fields
        self.target = target
        self._rest = ""

    def write(self, text: str) -> int:
        """Take text; whole lines go out."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(None, map(str.rstrip, lines)):
            self.line(line, "warning" if line.startswith("warning: ") else "info")
        return len(text)

    def line(self, message: str, level: str, **more: object) -> None:
        """One object."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {"time": now, "level": level, "message": message, **_UNKNOWN, **self.fields, **more}
        self.target.write(json.dumps(record, default=str) + "\n")
        self.target.flush()

    def fileno(self) -> int:
        """That of standard error, for what writes there beside Python."""
        return self.target.fileno()


def fill_standard_streams() -> None:
    """Open what was closed of standard input, output and error.

    The next file that is opened gets the lowest free number: a shard as number 1 would take what is printed. Writing
    an answer to a closed standard output fails afterwards, as it should.
    """
    for number, (name, flags) in enumerate((("stdin", os.O_RDONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # the lowest free number is this one
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", closefd=False))


def reader_has_left() -> bool:
    """Whether nobody reads standard output any more (`| head`): a broken pipe elsewhere is a failure."""
    waiting = select.poll()
    waiting.register(1, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in waiting.poll(0))


def drop_answer() -> None:
    """Send what standard output still holds, and all that follows, nowhere: it cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


_json_lines: list[_JsonLines] = []
"""Holds the one writer of JSON lines after `log_as("json")`."""


def log_as(log_format: LogFormat, **fields: object) -> None:
    """How lines on standard error look from now on, those of libraries too.

    Args:
        log_format: `json`: one object per line with time, level, message, run, rank and step; null is what no call has
            named.
        fields: Such as run, rank and step; a later call changes those that it names.
    """
    if log_format == "text":
        if _json_lines and sys.stderr is _json_lines[0]:
            sys.stderr = _json_lines[0].target
        _json_lines.clear()
    elif _json_lines:
        _json_lines[0].fields.update(fields)
    else:
        _json_lines.append(_JsonLines(dict(fields), sys.stderr))
        sys.stderr = _json_lines[0]


def log_step(step: int) -> None:
    """The step that lines carry from now on, whoever writes them."""
    if _json_lines:
        _json_lines[0].fields["step"] = step


def logs_json() -> bool:
    """Whether lines on standard error are JSON objects."""
    return bool(_json_lines)


def log_event(message: str, **fields: object) -> None:
    """A line with fields of its own; only where lines are JSON objects, since progress bars show such things else."""
    if _json_lines:
        _json_lines[0].line(message, "info", **fields)


def log_failure(message: str) -> None:
    """The line with which a command fails."""
    if _json_lines:
        _json_lines[0].line(message, "error")
    else:
        sys.stderr.write(f"biovfm: {message}\n")


@functools.cache
def console_class() -> type[Console]:
    """A console that leaves a broken pipe to the command line, which knows whether the reader has left (`| head`)."""
    from rich.console import Console

    class AnswerConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))  # rich itself would exit with code 1

    return AnswerConsole


def stderr() -> Console:
    """The console for progress and remarks; texts are shown as they are, since paths hold brackets and colons."""
    if _json_lines:
        return console_class()(file=_json_lines[0], highlight=False, markup=False, emoji=False, width=_WIDE)  # type: ignore[arg-type]
    return console_class()(stderr=True, highlight=False, markup=False, emoji=False)


def stdout() -> Console:
    """The console for answers to people, in full width where it is a file or a pipe."""
    width = None if sys.stdout.isatty() else _WIDE
    return console_class()(highlight=False, markup=False, emoji=False, width=width)


def number(count: int, noun: str) -> str:
    """`1 orphan`, `2 orphans`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def size(num_bytes: int) -> str:
    """Bytes in the unit that suits them."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if num_bytes >= 1 << power:
            return f"{num_bytes / (1 << power):.1f} {unit}"
    return number(num_bytes, "byte")


def answer(text: str) -> None:
    """Print lines of an answer on standard output."""
    sys.stdout.write(text + "\n")


def answer_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table on standard output, numbers to the right; nothing where there are none."""
    from rich.table import Table

    if not rows:
        return
    table = Table(title=title, title_justify="left", title_style="bold")
    for name, value in rows[0].items():
        table.add_column(name.replace("_", " "), justify="right" if isinstance(value, int) else "left")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    stdout().print(table)


def progress(*, disable: bool = False) -> Progress:
    """A progress bar on standard error; silent when disabled, without a terminal, and in JSON logs."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = stderr()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        disable=disable or logs_json() or not console.is_terminal,  # a file would get the last state of every bar
    )


def emit(result: dict[str, Any]) -> None:
    """Print one object of strict JSON on standard output."""
    sys.stdout.write(json_text(result) + "\n")
