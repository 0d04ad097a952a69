"""What was withdrawn from a dataset and when: for readers who come later with an old lock, version or position."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shards.errors import BiovfmError, SampleIndexError, SubsetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shards.dataset.dataset import Dataset

RELOCK = "`biovfm subset relock OLD.lock.yaml --out NEW.lock.yaml` makes a lock without them"
"""What the reader of an old lock may do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawals:
    """All withdrawals from a dataset, in sum.

    Attributes:
        by_source: Source → withdrawn samples.
        first: Day of the first one, UTC as ISO 8601.
        last: Day of the last one.
        reasons: Their reasons, sorted.
    """

    by_source: Mapping[str, int]
    first: str
    last: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        num = sum(self.by_source.values())
        when = f"on {self.first}" if self.first == self.last else f"from {self.first} to {self.last}"
        return f"{num:,} samples were withdrawn {when} ({', '.join(self.reasons)})"


def withdrawals_of(dataset: Dataset) -> Withdrawals | None:
    """What was withdrawn; None where nothing was, or where it cannot be read."""
    with suppress(BiovfmError):
        if dataset.table("withdrawn") is None:
            return None
        rows = dataset.query(
            "SELECT source, count(*)::BIGINT AS num, min(withdrawn_at) AS first, max(withdrawn_at) AS last, "
            "list(DISTINCT reason) AS reasons FROM withdrawn WHERE kind = 'pixels' GROUP BY source ORDER BY source"
        ).to_pylist()
        if rows:
            return Withdrawals(
                by_source={row["source"]: row["num"] for row in rows},
                first=min(row["first"] for row in rows)[:10],
                last=max(row["last"] for row in rows)[:10],
                reasons=tuple(sorted({reason for row in rows for reason in row["reasons"]})),
            )
    return None


@contextmanager
def naming_withdrawals(dataset: Dataset) -> Iterator[None]:
    """Let an error on other samples say what was withdrawn from the dataset."""
    try:
        yield
    except SubsetError as error:
        withdrawals = withdrawals_of(dataset)
        if withdrawals is None:
            raise
        raise SubsetError(f"{error.message}; {withdrawals}", hint=error.hint) from error


def purged_from_under(dataset: Dataset, shards: Sequence[str]) -> SampleIndexError | None:
    """The error for a reader whose shards a purge has taken; None where all are there, or nothing was withdrawn."""
    withdrawals = withdrawals_of(dataset)
    if withdrawals is None:
        return None
    with suppress(BiovfmError):
        gone = set(shards) - {info.path for info in dataset.store.list("shards/")}
        if gone:
            return SampleIndexError(
                f"{dataset.url}: the version that is read is gone; {withdrawals} and purged", hint=RELOCK
            )
    return None
