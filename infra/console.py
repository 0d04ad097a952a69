"""What every sub-command says and how: JSON on stdout, progress on stderr, errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shards.files import json_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


_WIDE = 10_000
"""Columns of an output that is no terminal: nothing is wrapped or cut there."""


def stderr() -> Console:
    """The console for progress and remarks; texts are shown as they are, since paths hold brackets and colons."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def stdout() -> Console:
    """The console for answers to people, in full width where it is a file or a pipe."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _WIDE
    return Console(highlight=False, markup=False, emoji=False, width=width)


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
    """A progress bar on standard error; silent when `disable` is set or standard error is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=stderr(),
        disable=disable,
    )


def emit(result: dict[str, Any]) -> None:
    """Print one object of strict JSON on standard output."""
    sys.stdout.write(json_text(result) + "\n")
