"""Rounds of measurements, each in a process of its own, and what they come to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.bench.peers.contestants import Contestant
from infra.bench.peers.corpus import Corpus
from infra.bench.peers.environments import PeerError, interpreter, last_line
from infra.bench.peers.formats import FORMATS, written

ROOT: Final = Path(__file__).resolve().parents[3]
LIMIT_SECONDS: Final = 150
SPAN: Final = {"A": (4, 16), "B": (4, 16), "C": (4, 72), "M": (4, 10)}
"""Batches left out at the start, and the last one measured."""
Figures = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one contestant did in one workload: a measurement a round, or why there is none."""

    contestant: Contestant
    workload: str
    rounds: tuple[Figures, ...]
    failure: str = ""

    def median(self, name: str) -> float:
        """The median of a figure over the rounds."""
        return statistics.median(figures[name] for figures in self.rounds)

    @property
    def best(self) -> float:
        """Images a second of the best round."""
        return max(figures["images_per_second"] for figures in self.rounds)


def race(
    contestants: Sequence[Contestant],
    workloads: Sequence[str],
    corpus: Corpus,
    environments: Path,
    *,
    rounds: int,
    batch: int,
    spans: Mapping[str, tuple[int, int]] = SPAN,
    say: Callable[[str], None],
) -> list[Row]:
    """Measure everyone in every workload, one after the other within a round, so that all see the same neighbours.

    An interrupt ends it early, with what has been measured.
    """
    taken: dict[tuple[str, str], list[Figures]] = {}
    failures: dict[tuple[str, str], str] = {}
    ready: dict[str, tuple[Path, Path]] = {}
    for contestant in contestants:
        try:
            ready[contestant.name] = _prepared(contestant, corpus, environments, say)
        except PeerError as error:
            failures.update({(contestant.name, workload): str(error) for workload in contestant.workloads})
    entries = [(who, what) for what in workloads for who in contestants if what in who.workloads]
    try:
        for number, who, what in _turns(rounds, entries, failures):
            try:
                figures = measure(who, what, *ready[who.name], batch=batch, span=spans[what])
            except PeerError as error:
                failures[who.name, what] = str(error)
                say(f"round {number}  {what}  {who.label}: {error}")
                continue
            taken.setdefault((who.name, what), []).append(figures)
            rate, cpu = figures["images_per_second"], figures["cpu_seconds_per_1000"]
            say(f"round {number}  {what}  {who.label}: {rate:,.0f} images/s, {cpu:.3f} CPU s per 1000")
    except KeyboardInterrupt:
        say("stopped; the table holds what was measured until now")
    return [_row(who, what, taken, failures) for who, what in entries]


def _turns(
    rounds: int, entries: Sequence[tuple[Contestant, str]], failures: Mapping[tuple[str, str], str]
) -> Iterator[tuple[int, Contestant, str]]:
    """Who runs when; nobody again who has failed."""
    for number in range(1, rounds + 1):
        for who, what in entries:
            if (who.name, what) not in failures:
                yield number, who, what


def _row(
    who: Contestant,
    what: str,
    taken: Mapping[tuple[str, str], Sequence[Figures]],
    failures: Mapping[tuple[str, str], str],
) -> Row:
    found = tuple(taken.get((who.name, what), ()))
    failure = failures.get((who.name, what), "" if found else "not run")
    return Row(contestant=who, workload=what, rounds=found, failure=failure)


def _prepared(
    contestant: Contestant, corpus: Corpus, environments: Path, say: Callable[[str], None]
) -> tuple[Path, Path]:
    """The Python and the data of a contestant."""
    python = interpreter(contestant, environments, say=say)
    if contestant.corpus in FORMATS:
        return python, written(corpus, contestant.corpus)
    folder = corpus.folder / contestant.corpus
    if not folder.exists():
        say(f"writing the corpus for {contestant.label}")
        partial = corpus.folder / f"{contestant.corpus}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        files = written(corpus, "files")
        _call(contestant, python, "--data", str(partial), "--write-from", str(files), limit=4 * LIMIT_SECONDS)
        partial.rename(folder)
    return python, folder


def measure(
    contestant: Contestant, workload: str, python: Path, data: Path, *, batch: int, span: tuple[int, int]
) -> Figures:
    """One measurement in a process of its own.

    Raises:
        PeerError: It failed, or took longer than `LIMIT_SECONDS`.
    """
    _warm(data)
    what = ("--data", str(data), "--workload", workload, "--variant", contestant.variant)
    size = ("--batch", str(batch), "--first", str(span[0]), "--last", str(span[1]))
    output = _call(contestant, python, *what, *size, limit=LIMIT_SECONDS)
    figures: Figures = json.loads(last_line(output))
    return figures


def _call(contestant: Contestant, python: Path, *options: str, limit: float) -> str:
    command = [str(python), "-m", f"infra.bench.peers.loaders.{contestant.script}", *options]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = clean | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "errors").open("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise PeerError(f"no answer within {limit:g} s") from None
        finally:
            _end_group(process.pid)
            process.wait()
        errors.seek(0)
        if process.returncode:
            raise PeerError(last_line(errors.read()) or f"ended with {process.returncode}")
    return output


def _end_group(group: int) -> None:
    """End what a loader leaves running: its worker processes are in its session."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _warm(folder: Path) -> None:
    """Read every file, so that all find the page cache warm."""
    buffer = bytearray(1 << 20)
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass
