"""The plan of a withdrawal under way, in `staging/<withdrawal>/`: what a kill leaves is completed from it.

    samples.parquet   `ingest.withdrawal.choose.SAMPLE_COLUMNS` of what goes
    groups.parquet    groups that were asked for
    paths.parquet     raw files of which nothing stays
    plan.json         all else, written last: a withdrawal is under way where it is there

It holds keys and hashes, so it is removed as soon as the withdrawal is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.privacy.tombstones import PREFIX
from shards.dataset.dataset import Dataset
from shards.errors import AlreadyExistsError, NotFoundError, SampleIndexError

_ROOT: Final = f"staging/{PREFIX}"
_PLAN: Final = "plan.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A withdrawal.

    Attributes:
        name: Its name, also that of its commits.
        at: When it was asked for: UTC, ISO 8601.
        reason: One of `shards.schema.WITHDRAWAL_REASONS`.
        asked: Marks of the request.
        samples: Rows of `SAMPLE_COLUMNS`.
        groups: Rows of `source`, `group_id`.
        paths: Rows of `source`, `raw_path`.
        shards: Shards that hold copies without a row.
    """

    name: str
    at: str
    reason: str
    asked: tuple[str, ...]
    samples: pa.Table
    groups: pa.Table
    paths: pa.Table
    shards: tuple[str, ...]


def write_plan(dataset: Dataset, plan: Plan) -> None:
    """Note what is about to be done."""
    for table in ("samples", "groups", "paths"):
        sink = pa.BufferOutputStream()
        pq.write_table(getattr(plan, table), sink, compression="zstd")
        with suppress(AlreadyExistsError):
            dataset.store.put_if_absent(f"staging/{plan.name}/{table}.parquet", sink.getvalue().to_pybytes())
    values = {name: getattr(plan, name) for name in ("name", "at", "reason", "asked", "shards")}
    with suppress(AlreadyExistsError):
        dataset.store.put_if_absent(f"staging/{plan.name}/{_PLAN}", json.dumps(values).encode())


def open_plans(dataset: Dataset) -> Iterator[Plan]:
    """The withdrawals that were begun and not completed."""
    for info in list(dataset.store.list(_ROOT)):
        if info.path.endswith(f"/{_PLAN}"):
            with suppress(NotFoundError):  # somebody else completed it
                yield _read(dataset, info.path.split("/")[1])


def _read(dataset: Dataset, name: str) -> Plan:
    try:
        values = json.loads(dataset.store.read(f"staging/{name}/{_PLAN}"))
        tables = {
            table: pq.read_table(pa.BufferReader(dataset.store.read(f"staging/{name}/{table}.parquet")))
            for table in ("samples", "groups", "paths")
        }
        asked, shards = tuple(values["asked"]), tuple(values["shards"])
        return Plan(name=name, at=values["at"], reason=values["reason"], asked=asked, shards=shards, **tables)
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise SampleIndexError(
            f"{dataset.url}/staging/{name}: the plan of a withdrawal is damaged",
            hint="remove this folder and run `biovfm withdraw` for the same samples again",
        ) from error


def remove_plan(dataset: Dataset, name: str) -> None:
    """Forget a completed withdrawal, `plan.json` first: without it the rest is no plan any more."""
    found = [info.path for info in dataset.store.list(f"staging/{name}/", hidden=True)]
    dataset.store.delete([path for path in found if path.endswith(f"/{_PLAN}")])
    dataset.store.delete([path for path in found if not path.endswith(f"/{_PLAN}")])
