"""Probe results on disk: one `ProbeResult` per line of strict JSON, appended by any number of jobs at once.

A line is written by one call, under a lock of the file and after a line break where the last line lacks one: a job
that was killed in the middle of its line costs that line alone. A result that is in the file already is not written
again. Numbers that are not finite are null.

On object storage, where nothing can be appended, results lie in a folder with an object per result, named after what it
says: any number of jobs add to it at once, and the same result again adds nothing.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from eval.scoring.bootstrap import Interval
from eval.scoring.delong import Bounds
from shards.errors import AlreadyExistsError, ConfigError, StoreError
from shards.files import json_text
from shards.store import Store, open_store

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What the system says of a disk and not of the path that was given."""
_UNLIKE_IN_REPEATS = frozenset({"seconds"})
"""Fields in which the same probe differs when it is run again."""
_NUMBERS = ("metrics", "val_metrics", "auc_bounds")
"""Fields in which null stands for a number that is not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """One classifier on one task.

    Attributes:
        task: MedMNIST's flag.
        kind: One of MedMNIST's four kinds.
        protocol: `linear`, `knn` or `paper`.
        backbone: What the user typed.
        seed: Of random weights, few-shot draws and shuffling.
        metrics: Metric → value and interval on the test split.
        val_metrics: Metric → value on the validation split.
        thresholds: With the best Matthews correlation on the validation split, one a label.
        settings: Chosen on the validation split.
        num_train: Images that were fitted on.
        num_val: Images of the validation split.
        num_test: Images of the test split.
        seconds: To fit and predict, from cached features.
        provenance: Digests, sizes, versions and the trainer's own notes.
        scores_path: `.npz` with labels and scores of the test split, for paired comparisons.
        auc_bounds: Interval of the AUC by the rule of `eval.scoring.delong`, with its method; None in older files.
        notes: What a reader of the numbers must know, one sentence each.
    """

    task: str
    kind: str
    protocol: str
    backbone: str
    seed: int
    metrics: dict[str, Interval]
    val_metrics: dict[str, float]
    thresholds: list[float]
    settings: dict[str, Any]
    num_train: int
    num_val: int
    num_test: int
    seconds: float
    provenance: dict[str, Any] = field(default_factory=dict)
    scores_path: str = ""
    auc_bounds: Bounds | None = None
    notes: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As one JSON object; a metric that has no value on this test split is null."""
        record = asdict(self)
        defined = {name: math.isfinite(interval.value) for name, interval in self.metrics.items()}
        record["metrics"] = {name: found if defined[name] else None for name, found in record["metrics"].items()}
        return record

    def bounds(self, metric: str) -> Bounds:
        """The interval to show: of the AUC the one that its rule chose, of other metrics the bootstrap's."""
        if metric == "auc" and self.auc_bounds:
            return self.auc_bounds
        found = self.metrics[metric]
        return Bounds(lower=found.lower, upper=found.upper, method="bootstrap")

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> ProbeResult:
        """From one JSON object."""
        known = {**record, **{key: _from_null(record[key]) for key in _NUMBERS if record.get(key) is not None}}
        known["metrics"] = {name: _interval(value) for name, value in known["metrics"].items()}
        if known.get("auc_bounds"):
            known["auc_bounds"] = Bounds(**known["auc_bounds"])
        return cls(**known)


def append_results(place: Path | str, results: Iterable[ProbeResult]) -> int:
    """Append one line per result that the file does not hold yet; makes the folder where it is missing.

    Args:
        place: The file, or the URL of a folder of results.
        results: New results.

    Returns:
        Lines (or objects) written.

    Raises:
        ConfigError: The file cannot be written.
        StoreError: The folder of results cannot, or the disk is full or failing.
    """
    lines = [json_text(result.record()).encode() for result in results]
    if is_url(place):
        return _put(open_store(str(place)), lines)
    path = Path(place)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            before = file.readall()
            known = {_identity(line) for line in before.splitlines()}
            new = {identity: line for line in lines if (identity := _identity(line)) not in known}
            repair = b"\n" if before and not before.endswith(b"\n") else b""
            if new:
                _write_whole(file, repair + b"".join(line + b"\n" for line in new.values()), len(before))
    except OSError as error:
        fails = StoreError if error.errno in _DISK else ConfigError
        raise fails(f"cannot write {path}: {error.strerror}", hint="pass another --out FILE") from error
    return len(new)


def is_url(place: Path | str) -> bool:
    """Whether results are kept on object storage."""
    return isinstance(place, str) and "://" in place


def _put(store: Store, lines: Iterable[bytes]) -> int:
    written = 0
    for line in lines:
        name = f"{hashlib.sha256(_identity(line).encode()).hexdigest()[:24]}.jsonl"
        with suppress(AlreadyExistsError):
            store.put_if_absent(name, line + b"\n")
            written += 1
    return written


def _write_whole(file: FileIO, data: bytes, before: int) -> None:
    """Append all of `data`, or nothing: what a full disk cut off is taken away again."""
    try:
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
    except OSError:
        file.truncate(before)
        raise


def _identity(line: bytes) -> str:
    """What two lines of the same probe have in common; a line that is no result is like itself alone."""
    try:
        record = json.loads(line)
        return json.dumps(
            {key: value for key, value in record.items() if key not in _UNLIKE_IN_REPEATS}, sort_keys=True
        )
    except (ValueError, AttributeError):
        return line.decode(errors="replace")


def _lines_of(place: Path | str) -> list[bytes]:
    """The lines of a file, or those of all objects of a folder of results in the order in which they were written."""
    hint = "biovfm probe CHECKPOINT --out results.jsonl writes one"
    if is_url(place):
        store = open_store(str(place))
        items = sorted(store.list(), key=lambda item: (item.modified, item.path))
        lines = [line for item in items if item.path.endswith(".jsonl") for line in store.read(item.path).splitlines()]
        if not lines:
            raise ConfigError(f"there are no results in {place}", hint=hint)
        return lines
    path = Path(place)
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError as error:
        raise ConfigError(f"there is no {path}", hint=hint) from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check the path") from error


def read_results(place: Path | str) -> list[ProbeResult]:
    """All results of a file; a line that is no result is named in a warning and left out.

    Args:
        place: JSON lines of `biovfm probe`, or the URL of a folder of results.

    Raises:
        ConfigError: The file cannot be read, or none of its lines is a result.
        StoreError: The folder of results cannot be read.
    """
    lines = _lines_of(place)
    results: list[ProbeResult] = []
    bad: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            results.append(ProbeResult.from_record(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            bad.append(f"{place}:{number} is no probe result ({error})")
    if bad and not results:
        raise ConfigError(bad[0], hint="biovfm probe CHECKPOINT --out results.jsonl writes another file")
    for mistake in bad:
        logging.getLogger(__name__).warning("%s: the line is skipped", mistake)
    return results


def _interval(record: Any) -> Interval:
    """One metric of a line; null is a metric without a value."""
    if isinstance(record, float) and math.isnan(record):
        return Interval(value=math.nan, mean=math.nan, lower=math.nan, upper=math.nan)
    return Interval(**{key: float(number) for key, number in record.items()})


def _from_null(value: Any) -> Any:
    """Null back to NaN, at any depth."""
    if isinstance(value, dict):
        return {key: _from_null(item) for key, item in value.items()}
    return math.nan if value is None else value
