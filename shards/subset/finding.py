"""Finds what a lock pins in a dataset, wherever the dataset lies now and whichever of its versions holds it.

The pinned version and selection are tried first, then the other versions, newest first, by their digests; and in a
copy that holds the subset alone, all samples. What is found has the same samples, in the same order or (where the
shards are packed otherwise) in another; or a `SubsetError` says what differs, per source and modality.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from shards.dataset.dataset import Dataset
from shards.dataset.withdrawals import RELOCK, withdrawals_of
from shards.errors import ConfigError, SampleIndexError, SubsetError
from shards.subset.chosen import Chosen, choose_from
from shards.subset.expression import check_expression
from shards.subset.lock import Lock, samples_of, sorted_digest

VERIFIED_SAMPLES = 2_000_000
"""Locks of up to so many samples are compared sample by sample whenever they are opened; larger ones by their order,
which names the shards by their content, and sample by sample where that differs and by `biovfm subset verify`."""
_ALL = "TRUE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How one source and modality differs from what is pinned.

    Attributes:
        source: Source id; empty where the lock does not tell sources apart.
        modality: Modality tag.
        pinned: Samples that the lock pins.
        found: Samples that its selection finds.
        missing: Pinned samples that are not there, withdrawn ones too; None where the lock has no list of keys.
        changed: Samples of the same key and other pixels; None likewise.
        withdrawn: Samples that were withdrawn from the dataset, as many as can be among the missing ones.
    """

    source: str
    modality: str
    pinned: int
    found: int
    missing: int | None = None
    changed: int | None = None
    withdrawn: int = 0

    def __str__(self) -> str:
        where = f"{self.source} {self.modality}".strip()
        if self.missing is not None or self.changed is not None:
            left = max((self.missing or 0) - self.withdrawn, 0)
            counts = [(left, "missing"), (self.changed, "changed"), (self.withdrawn, "withdrawn")]
            return f"{where}: {', '.join(f'{num:,} {word}' for num, word in counts if num)} of {self.pinned:,}"
        if self.found == self.pinned:
            return f"{where}: changed ({self.pinned:,} samples, but not the same)"
        left = self.pinned - self.found - self.withdrawn
        counts = [(left, "missing"), (self.withdrawn, "withdrawn")]
        words = ", ".join(f"{num:,} {word}" for num, word in counts if num) if left >= 0 else "more than pinned"
        return f"{where}: {words} ({self.found:,} of {self.pinned:,})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a lock pins, in a dataset.

    Attributes:
        lock: The lock.
        dataset: Where it was found.
        version: In which index version.
        where: The SQL predicate that picks them there.
        columns_version: Version of the user's own columns that it was evaluated on; None where there were none.
        chosen: Its rows.
        same_order: Whether an epoch has the pinned order; None where the lock does not pin it.
        notes: Lines that the user should see: another version, another dataset, what is not pinned.
    """

    lock: Lock
    dataset: Dataset
    version: int
    where: str
    chosen: Chosen
    same_order: bool | None
    columns_version: int | None = None
    notes: tuple[str, ...] = field(default=())


def find(lock: Lock, dataset: Dataset | str | None = None, *, full: bool = False, keys: Path | None = None) -> Found:
    """Find a lock's samples.

    Args:
        lock: The lock.
        dataset: Where the dataset lies now; where the lock says, without it.
        full: Whether to compare sample by sample whatever the lock's size.
        keys: The lock's list of samples, which tells the selection where its predicate does not.

    Raises:
        SubsetError: The samples are not there; says what differs.
        SampleIndexError: There is no such dataset, or it holds nothing.
    """
    opened = dataset if isinstance(dataset, Dataset) else _open(lock, dataset)
    compared = full or lock.num_samples <= VERIFIED_SAMPLES
    packed: Found | None = None
    for version in _versions(lock, opened):
        for found in _tries(lock, opened, version, compared=compared, keys=keys):
            if found.same_order is not False:
                return found
            packed = packed or found
    if packed is not None:
        return packed
    raise _differs(lock, opened, keys)


def verify(lock: Lock, dataset: Dataset | str | None = None, *, keys: Path | None = None) -> Found:
    """Compare a lock with its dataset, sample by sample.

    Raises:
        SubsetError: The samples are not the ones that were locked; says what differs.
    """
    return find(lock, dataset, full=True, keys=keys)


def version_of(lock: Lock, dataset: Dataset, path: Path) -> int:
    """The version of a dataset in which a lock is found.

    Args:
        lock: The lock.
        dataset: The dataset.
        path: The lock file; a list of keys lies beside it.

    Raises:
        SubsetError: None holds its samples.
    """
    from shards.subset.keys import keys_of

    return find(lock, dataset, keys=keys_of(lock, path)).version


def _open(lock: Lock, url: str | None) -> Dataset:
    try:
        return Dataset.open(url or lock.dataset)
    except SampleIndexError as error:
        if url is not None:
            raise
        raise SampleIndexError(error.message, hint="give `--dataset URL` if it was moved") from error


def _versions(lock: Lock, dataset: Dataset) -> Iterator[int]:
    """The versions that may hold the lock's samples, the most likely first."""
    newest = dataset.version()
    if newest < 0:
        raise SampleIndexError(f"{dataset.url} holds no samples yet", hint="run `biovfm ingest` first")
    order = [lock.index_version, *range(newest, -1, -1)]
    for version in dict.fromkeys(order):
        if 0 <= version <= newest:
            with suppress(SampleIndexError):
                table = dataset.table("index", version=version)
                if table is not None and _num_rows(table) >= lock.num_samples:
                    yield version


def _num_rows(table: Any) -> int:
    actions = pa.table(table.get_add_actions(flatten=True))
    return int(sum(actions["num_records"].to_pylist())) if actions.num_rows else 0


def _tries(lock: Lock, dataset: Dataset, version: int, *, compared: bool, keys: Path | None) -> Iterator[Found]:
    """What a version holds of the lock: its selection, the listed keys, all samples; only what has its samples."""
    with suppress(SampleIndexError), samples_of(lock, dataset, version, quick=True) as database:
        wheres = [lock.predicate(), _ALL]
        if lock.selection.where:
            check_expression(database, lock.selection.where)
        if keys is not None:
            from shards.subset.keys import LISTED, register_keys

            register_keys(database, keys)
            wheres.insert(1, LISTED)
        for where in dict.fromkeys(wheres):
            likely = compared and version == lock.index_version and where == lock.predicate()
            try:
                chosen = choose_from(database, where, with_samples=likely)
                same = chosen.order_digest() == lock.order if lock.order else None
                if chosen.num_samples != lock.num_samples:
                    continue
                if not chosen.digest and (same is not True or compared):
                    chosen = choose_from(database, where)
            except ConfigError:  # this version has no such column; `differences_of` says so where none has
                continue
            if _same_samples(lock, dataset, version, where, chosen, compared=compared or same is not True):
                yield Found(
                    lock=lock,
                    dataset=dataset,
                    version=version,
                    where=where,
                    chosen=chosen,
                    same_order=same,
                    columns_version=lock.columns_version,
                    notes=_notes(lock, dataset, version),
                )


def _same_samples(lock: Lock, dataset: Dataset, version: int, where: str, chosen: Chosen, *, compared: bool) -> bool:
    if not compared:
        return True
    if lock.order:
        return chosen.digest == lock.digest
    if where != lock.predicate() and where != _ALL:
        return False
    if lock.num_samples > VERIFIED_SAMPLES and len(chosen.shards) == lock.num_shards:
        return True  # `verify` of an earlier format sorts; a stream compares the counts
    return sorted_digest(dataset, version, where) == lock.digest


def _notes(lock: Lock, dataset: Dataset, version: int) -> tuple[str, ...]:
    notes = [lock.unpinned] if lock.unpinned else []
    other = dataset.id
    if lock.dataset_id and other and other != lock.dataset_id:
        notes.append(f"{dataset.url} is another dataset than the one that was locked; it was compared by its digests")
    if version != lock.index_version:
        notes.append(f"found in version {version} of {dataset.url}; the lock was made on version {lock.index_version}")
    return tuple(notes)


def _differs(lock: Lock, dataset: Dataset, keys: Path | None) -> SubsetError:
    differences = differences_of(lock, dataset, keys=keys)
    listed = "; ".join(str(one) for one in differences[:8]) + ("; …" if len(differences) > 8 else "")
    hint = "restore the dataset, or make a new lock with `biovfm subset create`"
    said = f"{dataset.url} has changed under the lock: {listed or 'other samples'}"
    withdrawals = withdrawals_of(dataset)
    if withdrawals is not None and any(one.withdrawn for one in differences):
        return SubsetError(f"{said}; {withdrawals}", hint=RELOCK)
    return SubsetError(said, hint=hint)


def differences_of(lock: Lock, dataset: Dataset, *, keys: Path | None = None) -> Sequence[Difference]:
    """How a dataset differs from a lock, per source and modality; by keys where they are listed."""
    newest = dataset.version()
    version = lock.index_version if 0 <= lock.index_version <= newest else newest
    try:
        with samples_of(lock, dataset, version, quick=True) as database:
            chosen = choose_from(database, lock.predicate(), with_samples=bool(lock.order))
    except SampleIndexError:
        with samples_of(lock, dataset, newest, quick=True) as database:
            chosen = choose_from(database, lock.predicate(), with_samples=bool(lock.order))
        version = newest
    withdrawals = withdrawals_of(dataset)
    taken = withdrawals.by_source if withdrawals else {}
    if keys is not None:
        from shards.subset.keys import compare_keys

        return [
            Difference(source=source, modality=modality, withdrawn=min(taken.get(source, 0), missing), **counts)
            for (source, modality), counts in compare_keys(dataset, version, keys).items()
            if (missing := counts["missing"]) or counts["changed"]
        ]
    if not lock.parts:
        return _by_modality(lock, chosen, sum(taken.values()))
    now = {(part.source, part.modality): part for part in chosen.parts}
    pinned = {(part.source, part.modality): part for part in lock.parts}
    found = []
    for source, modality in sorted({*now, *pinned}):
        was, is_ = pinned.get((source, modality)), now.get((source, modality))
        if was is None or is_ is None or was.digest != is_.digest:
            before, after = was.num_samples if was else 0, is_.num_samples if is_ else 0
            gone = min(taken.get(source, 0), max(before - after, 0))
            found.append(Difference(source=source, modality=modality, pinned=before, found=after, withdrawn=gone))
    return found


def _by_modality(lock: Lock, chosen: Chosen, num_withdrawn: int) -> Sequence[Difference]:
    """The differences of a lock that does not tell sources apart."""
    now: dict[str, int] = {}
    for part in chosen.parts:
        now[part.modality] = now.get(part.modality, 0) + part.num_samples
    differs = [tag for tag in sorted({*now, *lock.counts}) if now.get(tag) != lock.counts.get(tag)]
    fewer = {tag: max(lock.counts.get(tag, 0) - now.get(tag, 0), 0) for tag in differs}
    known = sum(fewer.values()) <= num_withdrawn
    return [
        Difference(
            source="",
            modality=tag,
            pinned=lock.counts.get(tag, 0),
            found=now.get(tag, 0),
            withdrawn=fewer[tag] if known else 0,
        )
        for tag in differs
    ] or [Difference(source="", modality=modality, pinned=num, found=num) for modality, num in lock.counts.items()]
