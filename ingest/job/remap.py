"""What becomes of the locks of a dataset whose raw data are ingested again into a new one, by the newest rules.

A lock goes on naming the old dataset, which stays as it is. Which of its samples the new dataset holds is told by where
they came from: source, raw path and frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from ingest.job.secret_check import pin_secret, require_secret
from ingest.privacy.tombstones import has_tombstones
from shards.dataset.dataset import Dataset
from shards.errors import BiovfmError
from shards.schema import withdrawn_schema
from shards.subset.lock import Lock, is_lock


@dataclass(frozen=True, slots=True, kw_only=True)
class LockFate:
    """What the new dataset holds of a lock's samples.

    Attributes:
        path: The lock.
        samples: Its samples.
        same: Those that are there with the same pixels.
        changed: Those that are there with other pixels, by the new rules.
        missing: Those that are not there: their source was not ingested yet, or they are rejected or moved now.
    """

    path: Path
    samples: int
    same: int
    changed: int
    missing: int

    def __str__(self) -> str:
        return (
            f"{self.path} stays valid for the old dataset; of its {self.samples:,} samples the new one holds "
            f"{self.same:,} with the same pixels, {self.changed:,} with other pixels, and {self.missing:,} not (yet)"
        )


def carry_tombstones(old: Dataset, new: Dataset, secret: SecretStr) -> None:
    """Let what was withdrawn from a dataset stay out of another one; harmless when repeated.

    Raises:
        ConfigError: The secret, by which tombstones are known, is missing or another one.
    """
    if not has_tombstones(old):
        return
    require_secret(old, secret)
    pin_secret(new, secret)
    table = old.table("withdrawn")
    assert table is not None
    rows = old.query("SELECT * FROM withdrawn").cast(withdrawn_schema())
    new.append("withdrawn", f"remapped-{old.id}-{table.version()}", rows)


def locks_of(dataset: Dataset, folders: Iterable[Path]) -> Iterator[tuple[Path, Lock]]:
    """The locks in some folders that pin a dataset."""
    paths = {path.resolve(): path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.y*ml"))}
    for path in paths.values():
        try:
            lock = Lock.read(path) if is_lock(path) else None
            same = lock is not None and Dataset.open(lock.dataset).url == dataset.url
        except BiovfmError:  # a lock of another dataset, or of another release
            continue
        if lock is not None and same:
            yield path, lock


def fate_of(path: Path, lock: Lock, old: Dataset, new: Dataset) -> LockFate:
    """Look the samples of a lock up in the new dataset."""
    pinned = old.query(
        f"SELECT source, raw_path, raw_frame, pixel_sha256 FROM samples WHERE {lock.predicate()}",  # noqa: S608
        version=lock.index_version,
    )
    found = new.query(
        "SELECT count(*) FILTER (found.pixel_sha256 = pinned.pixel_sha256)::BIGINT, count(found.key)::BIGINT "
        "FROM pinned LEFT JOIN samples found USING (source, raw_path, raw_frame)",
        pinned=pinned,
    )
    same, there = (int(column[0].as_py()) for column in found.columns)
    return LockFate(path=path, samples=len(pinned), same=same, changed=there - same, missing=len(pinned) - there)
