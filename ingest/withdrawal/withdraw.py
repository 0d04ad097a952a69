"""The steps of a withdrawal: plan → tombstones → shards, index and fingerprints → the other tables.

Tombstones come first, so that a job that commits meanwhile either finds them or is found: after the commit of the index
the request is evaluated again, until nothing matches. Each step is a transaction of its own, known by the withdrawal's
name, so a withdrawal that was killed is completed from its plan by the next `biovfm withdraw` on the dataset.

Older versions, and what they name, stay until the purge (`ingest.withdrawal.purge`): whoever streams reads on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import SecretStr

from ingest.job.secret_check import pin_secret
from ingest.job.unname import naming_no_more
from ingest.privacy.tombstones import PREFIX, Marker, tombstones_of
from ingest.withdrawal.choose import Asked, Chosen, choose
from ingest.withdrawal.journal import Plan, open_plans, remove_plan, write_plan
from shards.dataset.columns import FOLDER as COLUMNS_FOLDER
from shards.dataset.dataset import Dataset
from shards.dataset.removal import remove_samples
from shards.dataset.rewrite import drop_rows
from shards.errors import SampleIndexError, StoreError
from shards.schema import withdrawn_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

_TRIES: Final = 10
_BATCH_ROWS: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """What a withdrawal did.

    Attributes:
        names: Of the withdrawals, in the order of their commits; more than one where a job committed meanwhile.
        num_samples: Samples that went.
        num_copies: Of these, copies without a row in the index.
        num_files: Raw files of which nothing stays.
        by_source: Source → samples that went.
        completed: Withdrawals that were begun earlier and are complete now.
        repeated: Whether all of it was withdrawn before.
        version: Index version afterwards.
    """

    names: tuple[str, ...]
    num_samples: int
    num_copies: int
    num_files: int
    by_source: dict[str, int]
    completed: tuple[str, ...]
    repeated: bool
    version: int


def withdraw(
    dataset: Dataset,
    asked: Asked,
    secret: SecretStr,
    *,
    reason: str = "consent",
    progress: Callable[[str], None] | None = None,
) -> Withdrawn:
    """Take samples out of the newest version of a dataset and keep them out.

    Args:
        dataset: The dataset.
        asked: What is to go.
        secret: The dataset's secret; the tombstones hang on it.
        reason: One of `shards.schema.WITHDRAWAL_REASONS`.
        progress: Called with a line as each step begins.

    Raises:
        ConfigError: The secret is missing, or another one.
        SampleIndexError: Nothing matches, or the dataset holds nothing.
        StoreError: The storage failed.
        ShardError: A shard does not hold what the index says.
    """
    tell = progress or _ignore
    pin_secret(dataset, secret, for_tombstones=True)
    marker = Marker(secret)
    completed = complete(dataset, marker, tell)
    done: list[tuple[Plan, Chosen]] = []
    for _ in range(_TRIES):
        tell("looking for what goes")
        chosen = choose(dataset, asked, secret)
        if chosen.is_empty:
            break
        plan = _plan(chosen, asked, marker, reason)
        write_plan(dataset, plan)
        _carry_out(dataset, plan, marker, tell)
        done.append((plan, chosen))
    else:
        raise StoreError(f"{dataset.url}: jobs bring the samples back all the time", hint="run the same command again")
    repeated = not done and not completed
    if repeated:
        _require_asked(dataset, asked, secret)
    return _outcome(dataset, done, completed, repeated=repeated)


def complete(dataset: Dataset, marker: Marker, progress: Callable[[str], None] | None = None) -> tuple[str, ...]:
    """Complete the withdrawals that were begun and killed; gives their names."""
    tell = progress or _ignore
    names = []
    for plan in open_plans(dataset):
        tell(f"completing {plan.name}, which was interrupted")
        _carry_out(dataset, plan, marker, tell)
        names.append(plan.name)
    return tuple(names)


def _ignore(_line: str) -> None:
    pass


def require_match(dataset: Dataset, chosen: Chosen, asked: Asked, secret: SecretStr) -> None:
    """Refuse a request of which `withdraw` would say that nothing matches; changes nothing.

    Args:
        dataset: The dataset.
        chosen: What the request takes.
        asked: The request.
        secret: The dataset's secret; may be empty where nothing was ever withdrawn.

    Raises:
        SampleIndexError: Nothing matches.
    """
    if chosen.is_empty and not any(True for _ in open_plans(dataset)):
        _require_asked(dataset, asked, secret)


def _require_asked(dataset: Dataset, asked: Asked, secret: SecretStr) -> None:
    """Refuse a request that matches nothing, unless the same was withdrawn before."""
    if not _was_asked(dataset, asked, secret):
        raise SampleIndexError(
            f"nothing in {dataset.url} matches", hint="check the spelling; `biovfm stats` shows the sources"
        )


def _was_asked(dataset: Dataset, asked: Asked, secret: SecretStr) -> bool:
    tombstones = tombstones_of(dataset, secret)
    marks = asked.marks(Marker(secret))
    return tombstones is not None and bool(marks) and tombstones.marks["asked"].issuperset(marks)


def _plan(chosen: Chosen, asked: Asked, marker: Marker, reason: str) -> Plan:
    """The plan; the same choice of the same version has the same name."""
    texts = [*chosen.samples["key"].to_pylist(), *chosen.paths["raw_path"].to_pylist()]
    name = PREFIX + marker.asked("plan", f"{chosen.version}\0" + "\0".join(texts), "")[:16]
    return Plan(
        name=name,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        reason=reason,
        asked=tuple(asked.marks(marker)),
        samples=chosen.samples,
        groups=chosen.groups,
        paths=chosen.paths,
        shards=chosen.shards,
    )


def _outcome(
    dataset: Dataset, done: Sequence[tuple[Plan, Chosen]], completed: tuple[str, ...], *, repeated: bool
) -> Withdrawn:
    by_source: dict[str, int] = {}
    for plan, _ in done:
        for source in plan.samples["source"].to_pylist():
            by_source[source] = by_source.get(source, 0) + 1
    return Withdrawn(
        names=tuple(plan.name for plan, _ in done),
        num_samples=sum(by_source.values()),
        num_copies=sum(chosen.num_copies for _, chosen in done),
        num_files=sum(len(plan.paths) for plan, _ in done),
        by_source=dict(sorted(by_source.items())),
        completed=completed,
        repeated=repeated,
        version=dataset.version(),
    )


def _carry_out(dataset: Dataset, plan: Plan, marker: Marker, tell: Callable[[str], None]) -> None:
    """All steps; those that are done already do nothing."""
    tell("writing tombstones")
    dataset.append("withdrawn", plan.name, lambda: _tombstones(plan, marker))
    if len(plan.samples):
        tell(f"taking {len(plan.samples):,} samples out of their shards")
        summary = {"source": "withdraw", "reason": plan.reason, "kept": 0, "rejected": 0, "items": 0}
        remove_samples(
            dataset, plan.samples["key"].combine_chunks(), transaction=plan.name, summary=summary, shards=plan.shards
        )
    tell("taking their rows out of the other tables")
    _clean_rejects(dataset, plan)
    _clean_raw_files(dataset, plan)
    _clean_columns(dataset, plan)
    remove_plan(dataset, plan.name)


def _tombstones(plan: Plan, marker: Marker) -> pa.RecordBatchReader:
    schema = withdrawn_schema()

    def rows() -> Iterator[dict[str, Any]]:
        for row in plan.samples.to_pylist():
            yield {"kind": "pixels", "source": row["source"], "mark": marker.pixels(row["pixel_sha256"])}
            place = marker.origin(row["source"], row["raw_path"], row["raw_frame"])
            yield {"kind": "origin", "source": row["source"], "mark": place}
        for row in plan.groups.to_pylist():
            group = marker.group(row["source"], row["group_id"])
            yield {"kind": "group", "source": row["source"], "mark": group}
        for mark in plan.asked:
            yield {"kind": "asked", "source": "", "mark": mark}

    def batches() -> Iterator[pa.RecordBatch]:
        same = {"withdrawal": plan.name, "withdrawn_at": plan.at, "reason": plan.reason}
        waiting: list[dict[str, Any]] = []
        for row in rows():
            waiting.append({**row, **same})
            if len(waiting) == _BATCH_ROWS:
                yield pa.RecordBatch.from_pylist(waiting, schema=schema)
                waiting = []
        if waiting:
            yield pa.RecordBatch.from_pylist(waiting, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _joined(table: pa.Table | pa.RecordBatch, *names: str) -> pa.Array:
    """Columns as one text per row."""
    return pc.binary_join_element_wise(*(table[name].cast(pa.string()) for name in names), "\0")


def _values(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _clean_rejects(dataset: Dataset, plan: Plan) -> None:
    """Remove the rejects of what goes; copies of it from elsewhere stay rejects and name it no more."""
    places = _values(_joined(plan.samples, "source", "raw_path", "raw_frame"))
    files = _values(_joined(plan.paths, "source", "raw_path"))
    heads = pc.utf8_slice_codeunits(plan.samples["pixel_sha256"], 0, 16)
    named = _values(pa.chunked_array([*plan.samples["key"].chunks, *heads.chunks], pa.string()))

    def gone(batch: pa.RecordBatch) -> pa.Array:
        of_file = pc.is_in(_joined(batch, "source", "raw_path"), value_set=files)
        return pc.or_(of_file, pc.is_in(_joined(batch, "source", "raw_path", "raw_frame"), value_set=places))

    drop_rows(
        dataset,
        "rejects",
        gone,
        columns=["source", "raw_path", "raw_frame", "detail", "reason"],
        transaction=f"{plan.name}-rejects",
        changed=naming_no_more(named),
    )


def _clean_raw_files(dataset: Dataset, plan: Plan) -> None:
    files = _values(_joined(plan.paths, "source", "raw_path"))
    drop_rows(
        dataset,
        "raw_files",
        lambda batch: pc.is_in(_joined(batch, "source", "raw_path"), value_set=files),
        columns=["source", "raw_path"],
        transaction=f"{plan.name}-raw-files",
    )


def _clean_columns(dataset: Dataset, plan: Plan) -> None:
    """Remove what the user's own columns say of what goes."""
    keys = _values(plan.samples["key"])
    drop_rows(
        dataset,
        COLUMNS_FOLDER,
        lambda batch: pc.is_in(batch["key"], value_set=keys),
        columns=["key"],
        transaction=f"{plan.name}-columns",
    )
