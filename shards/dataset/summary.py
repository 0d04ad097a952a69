"""The figures of a dataset: what is in it, what was rejected and why, and that the counts add up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from shards.dataset.columns import describe_columns
from shards.dataset.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures of one dataset.

    Attributes:
        url: The dataset.
        encoding: The encoding policy, all keys.
        version: Index version.
        num_samples: Samples.
        num_shards: Shards.
        num_bytes: Compressed image bytes.
        by_modality: `modality, sources, groups, samples, bytes` of each modality, most samples first.
        by_source: `source, modality, licence, samples` of each source, modality and licence.
        columns: What each column of the user's own holds (`shards.dataset.columns.ColumnFacts`).
        rejects: `source, reason, images` of the committed jobs.
        jobs: `job_id, version, source, files, items, kept, rejected` of the committed jobs; files and items are what
            the job itself counted, kept and rejected are counted in the tables.
    """

    url: str
    encoding: dict[str, Any]
    version: int
    num_samples: int
    num_shards: int
    num_bytes: int
    by_modality: list[dict[str, Any]]
    by_source: list[dict[str, Any]]
    columns: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    jobs: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def summarise(dataset: Dataset) -> Summary:
    """Count a dataset."""
    jobs = dataset.jobs()
    committed = [job["job_id"] for job in jobs]
    version = dataset.version()
    with dataset.database("samples", "rejects", version=version if version >= 0 else None) as database:
        tables = {name: database.sql(sql).to_arrow_table().to_pylist() for name, sql in _SAMPLE_QUERIES.items()}
        counts = database.sql(_REJECTED, params=[committed]).to_arrow_table().to_pylist()
        tables["rejects"] = database.sql(_REJECTS, params=[committed]).to_arrow_table().to_pylist()
    kept = {row["job_id"]: row["kept"] for row in tables["by_job"]}
    rejected = {row["job_id"]: row["rejected"] for row in counts}
    (totals,) = tables["totals"]
    return Summary(
        url=dataset.url,
        encoding=dict(dataset.settings.get("encoding", {})),
        version=version,
        num_samples=totals["samples"],
        num_shards=totals["shards"],
        num_bytes=int(totals["bytes"] or 0),
        by_modality=tables["by_modality"],
        by_source=tables["by_source"],
        columns=[asdict(facts) for facts in describe_columns(dataset)],
        rejects=tables["rejects"],
        jobs=[
            {
                "job_id": job["job_id"],
                "version": job["version"],
                "source": job.get("source", ""),
                "files": job.get("files", 0),
                "items": job.get("items", job.get("listed", 0)),
                "kept": kept.get(job["job_id"], 0),
                "rejected": rejected.get(job["job_id"], 0),
            }
            for job in jobs
        ],
    )


_SAMPLE_QUERIES = {
    "totals": """SELECT count(*) AS samples, count(DISTINCT shard) AS shards,
        sum(byte_length)::BIGINT AS bytes FROM samples""",
    "by_modality": """SELECT modality, count(DISTINCT source) AS sources, count(DISTINCT group_id) AS groups,
        count(*) AS samples, sum(byte_length)::BIGINT AS bytes FROM samples GROUP BY 1 ORDER BY samples DESC, 1""",
    "by_source": """SELECT source, modality, licence, count(*) AS samples
        FROM samples GROUP BY 1, 2, 3 ORDER BY 1, 2, samples DESC, 3""",
    "by_job": "SELECT job_id, count(*) AS kept FROM samples GROUP BY 1",
}
_REJECTED = "SELECT job_id, count(*) AS rejected FROM rejects WHERE list_contains($1, job_id) GROUP BY 1"
_REJECTS = """SELECT source, reason, count(*) AS images FROM rejects WHERE list_contains($1, job_id)
    GROUP BY 1, 2 ORDER BY 1, 2"""
