"""Rejects that name a sample which was withdrawn since: they name it no more.

A withdrawal cleans the rejects that it finds. A job that was at work meanwhile has compared its images with the index
as it was before, and commits what it found only later.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from ingest.privacy.tombstones import WITHDRAWN
from shards.dataset.dataset import Dataset
from shards.dataset.rewrite import drop_rows
from shards.errors import SampleIndexError

if TYPE_CHECKING:
    from shards.dataset.rewrite import Changed

__all__ = ["naming_no_more", "unname"]

_NAMED = (
    "SELECT key, substr(pixel_sha256, 1, 16) AS head FROM samples "
    "WHERE key IN (SELECT name FROM words) OR substr(pixel_sha256, 1, 16) IN (SELECT name FROM words)"
)


def unname(dataset: Dataset, withdrawals: Collection[str]) -> None:
    """Let rejects name no sample that these withdrawals took, as far as the versions before them can be read.

    Harmless when repeated.

    Args:
        dataset: The dataset.
        withdrawals: Their names, which are those of their commits.
    """
    table = dataset.table("rejects")
    versions = {job["job_id"]: job["version"] for job in dataset.jobs() if job["job_id"] in withdrawals}
    if table is None or not versions:
        return
    words = dataset.query("SELECT DISTINCT regexp_extract(detail, '\\S+$') AS name FROM rejects WHERE detail <> ''")
    for name, version in versions.items():
        taken = _taken(dataset, version, words)
        if not len(taken):
            continue
        drop_rows(
            dataset,
            "rejects",
            lambda batch: pa.array([False] * len(batch), pa.bool_()),
            columns=["detail", "reason"],
            transaction=f"{name}-unnamed-{table.version()}",
            changed=naming_no_more(taken),
        )


def naming_no_more(names: pa.Array) -> Changed:
    """What becomes of rejects that name one of these samples, by key or by the head of its pixel hash.

    An exact copy is withdrawn itself. A near duplicate is another image: it stays what it was, without the name.
    """

    def changed(batch: pa.RecordBatch) -> pa.RecordBatch:
        last = pc.replace_substring_regex(batch["detail"], pattern=r"^.*\s", replacement="")
        copies = pc.is_in(last, value_set=names)
        exact = pc.and_(copies, pc.equal(batch["reason"], "duplicate"))
        batch = _with(batch, "detail", pc.if_else(copies, "", batch["detail"]))
        return _with(batch, "reason", pc.if_else(exact, WITHDRAWN, batch["reason"]))

    return changed


def _taken(dataset: Dataset, version: int, words: pa.Table) -> pa.Array:
    """Keys and heads of the samples among `words` that the commit of a version took out of the index."""
    try:
        before = dataset.query(_NAMED, version=version - 1, words=words)
    except SampleIndexError:  # purged already, or halfway: what was withdrawn is not known any more
        return pa.array([], pa.string())
    after = dataset.query(
        "SELECT key FROM samples WHERE key IN (SELECT key FROM before)", version=version, before=before
    )
    gone = before.filter(pc.invert(pc.is_in(before["key"], value_set=after["key"].combine_chunks())))
    return pa.chunked_array([*gone["key"].chunks, *gone["head"].chunks], pa.string()).combine_chunks()


def _with(batch: pa.RecordBatch, name: str, values: pa.Array) -> pa.RecordBatch:
    at = batch.schema.get_field_index(name)
    return batch.set_column(at, batch.schema.field(at), values)
