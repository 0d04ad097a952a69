"""What every sub-command says and how: JSON on stdout, progress on stderr, errors in one line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from shards.files import json_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def stderr() -> Console:
    """The console for people; standard output is for results only."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


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
