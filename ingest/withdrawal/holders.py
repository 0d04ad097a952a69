"""Which locks and pretraining runs held samples that are being withdrawn.

A lock is evaluated on the version that it pins. A run is known by the digests in its newest checkpoint: they are
compared with those of the given locks and of the dataset's versions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ingest.withdrawal.choose import Chosen
from shards.dataset.dataset import Dataset
from shards.errors import BiovfmError, ConfigError, SampleIndexError
from shards.subset.chosen import choose, samples
from shards.subset.finding import Found, find
from shards.subset.lock import Lock

_EVERYTHING = "TRUE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A lock or a run.

    Attributes:
        path: The lock file or the run's folder.
        held: How many of the samples it held; None where that cannot be told.
        advice: What to do, or why nothing can be told.
    """

    path: str
    held: int | None
    advice: str


def holders_of(dataset: Dataset, chosen: Chosen, *, locks: Sequence[Path], runs: Sequence[Path]) -> list[Holder]:
    """Look for what goes in locks and runs; before it goes.

    Raises:
        ConfigError: A lock cannot be read, or a folder is no run's.
    """
    keys = pa.table({"key": chosen.samples["key"]})
    opened = [(path, Lock.read(path)) for path in locks]
    found = [(path, lock, _found(lock, dataset)) for path, lock in opened]
    holders = [_of_lock(path, one, dataset, keys) for path, _, one in found]
    return holders + [_of_run(path, dataset, [(lock, one) for _, lock, one in found], keys) for path in runs]


def _found(lock: Lock, dataset: Dataset) -> Found | str:
    try:
        return find(lock, dataset)
    except BiovfmError as error:
        return error.message


def _of_lock(path: Path, found: Found | str, dataset: Dataset, keys: pa.Table) -> Holder:
    if isinstance(found, str):
        return Holder(path=str(path), held=None, advice=found)
    held = _count_found(dataset, found, keys)
    stem = path.name.removesuffix(".yaml").removesuffix(".yml").removesuffix(".lock")
    advice = f"biovfm subset relock {path} --out {path.with_name(f'{stem}-relocked.lock.yaml')}" if held else ""
    return Holder(path=str(path), held=held, advice=advice)


def _count_found(dataset: Dataset, found: Found, keys: pa.Table) -> int:
    return _count(dataset, found.version, found.where, keys, columns_version=found.columns_version)


def _count(dataset: Dataset, version: int, where: str, keys: pa.Table, *, columns_version: int | None = None) -> int:
    with samples(dataset, version, predicate=where, columns_version=columns_version) as database:
        database.register("gone", keys)
        sql = f"SELECT count(*)::BIGINT FROM samples WHERE ({where}) AND key IN (SELECT key FROM gone)"  # noqa: S608
        ((num,),) = database.sql(sql).fetchall()
    return int(num)


def _of_run(path: Path, dataset: Dataset, locks: Sequence[tuple[Lock, Found | str]], keys: pa.Table) -> Holder:
    order = _order_of(path)
    if not order:
        return Holder(path=str(path), held=None, advice="it has no checkpoint, or one of an earlier release")
    for lock, found in locks:
        if lock.order == order and not isinstance(found, str):
            held = _count_found(dataset, found, keys)
            return Holder(path=str(path), held=held, advice=_advice(path) if held else "")
    for version in range(dataset.version(), -1, -1):
        try:
            if choose(dataset, version, _EVERYTHING, with_samples=False).order_digest() == order:
                held = _count(dataset, version, _EVERYTHING, keys)
                return Holder(path=str(path), held=held, advice=_advice(path) if held else "")
        except SampleIndexError:  # purged, or gone by a vacuum
            continue
    return Holder(path=str(path), held=None, advice="it streamed a lock that was not given, or another dataset")


def _advice(run: Path) -> str:
    advice = "its weights have seen them; train again on a lock without them"
    shown = any(run.glob("reconstructions.*"))
    return f"{advice}; delete {run}/reconstructions.*, which may show them" if shown else advice


def _order_of(run: Path) -> str:
    """The digest of the order that a run streamed, by its newest checkpoint; empty where it has none."""
    if not (run / "recipe.yaml").is_file():
        raise ConfigError(f"{run} is no run folder: it has no recipe.yaml", hint="give the --out of biovfm pretrain")
    records = sorted(run.rglob("meta.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(records):
        try:
            stream: dict[str, Any] = json.loads(path.read_bytes()).get("stream", {})
        except (ValueError, AttributeError):
            continue
        return str(stream.get("order", ""))
    return ""
