"""`biovfm sources fetch`."""

from __future__ import annotations

import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from cyclopts import Parameter

from infra.console import emit, progress

if TYPE_CHECKING:
    from ingest.source.spec import SourceSpec


def fetch(
    source: str, folder: Path, /, *, workers: int = 4, json_: Annotated[bool, Parameter(name="--json")] = False
) -> int:
    """Download a source's files into a folder where they have open, direct links; print the steps for the others.

    An interrupted download goes on where it stopped. Exit code 1: a file could not be downloaded, or steps are left
    for you.

    Example: `biovfm sources fetch kvasir-capsule raw/kvasir-capsule`

    Parameters
    ----------
    source
        Id of a catalogue source, or a YAML file.
    folder
        Where to download to.
    workers
        Downloads at a time; one host serves two of them at most.
    """
    from ingest.source.fetch import fetch as fetch_links
    from ingest.source.spec import load_spec

    spec = load_spec(source)
    with _Bars() as bars:
        found = fetch_links(spec.links, folder, workers=workers, tell=bars.tell) if spec.links else []
    steps = _steps(source, spec, folder) if not spec.links or spec.access != "open" or _without_link(spec) else []
    failed = [one for one in found if one.state == "failed"]
    if json_:
        emit({"source": spec.id, "folder": str(folder), "files": [asdict(one) for one in found], "steps": steps})
    else:
        lines = [f"{one.state:<10}  {one.name}  {one.error or f'{one.size:,} bytes'}" for one in found]
        sys.stdout.write("\n".join([*lines, *steps]) + "\n")
    return 1 if failed or steps else 0


class _Bars:
    """A bar per download on standard error."""

    def __init__(self) -> None:
        self._progress = progress()
        self._tasks: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def tell(self, name: str, done: int, size: int) -> None:
        """Show how far a download is, in MiB."""
        with self._lock:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=None, note="MiB")
            self._progress.update(self._tasks[name], completed=done >> 20, total=(size >> 20) or None)


def _without_link(spec: SourceSpec) -> list[str]:
    """What the source needs and no link brings: downloads by name, and tables."""
    from ingest.source.globs import expand, glob_regex

    names = [link.file_name for link in spec.links]
    wanted = [name for glob in spec.layout.downloads for name in expand(glob)]
    wanted += [table.path for table in spec.layout.tables if not table.optional]
    lacking = [glob for glob in wanted if not any(glob_regex(glob).fullmatch(name) for name in names)]
    return [glob.removeprefix("**/") for glob in lacking]


def _steps(source: str, spec: SourceSpec, folder: Path) -> list[str]:
    """What a person has to do to get a source, or the rest of one; `source` is its id or YAML file."""
    ways = {
        "registration": "register there, and accept the terms",
        "credentialed": "apply for credentials there, and wait for the approval",
        "gated": "ask for access there, and wait for the approval",
        "mixed": "read there which parts are open, and ask for the others",
    }
    steps = [f"open {spec.url or 'the page of the source (unknown to the catalogue)'}"]
    steps += [ways[spec.access]] if spec.access in ways else []
    packed = f" (packed as {spec.archive})" if spec.archive not in ("", "none") else ""
    if spec.links and spec.access == "open":
        steps.append(f"download {', '.join(_without_link(spec))} into {folder} too: there is no open link to it")
    else:
        steps.append(f"download {spec.layout.wanted}{packed} into {folder}; archives stay packed")
    steps.append(f"biovfm sources check {source} {folder}")
    steps.append(f"biovfm ingest {source} {folder} DATASET")
    return [f"{number}. {step}" for number, step in enumerate(steps, 1)]
