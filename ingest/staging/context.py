"""What the units of a job share, and what became of each of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ingest.picture.encoding import Encoding
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class MapContext:
    """What all units of a job share; small, and sent to every worker once.

    Attributes:
        spec: The source.
        settings: The job's settings.
        encoding: The dataset's policy.
        raw_url: Where the raw files lie.
        dataset_url: Where the dataset lies.
        job_id: The job.
        listed: Raw paths and frames to take (`raw_path` → frames), or None for all.
    """

    spec: SourceSpec
    settings: IngestSettings
    encoding: Encoding
    raw_url: str
    dataset_url: str
    job_id: str
    listed: Mapping[str, frozenset[str]] | None = None

    @property
    def staging(self) -> str:
        """The job's folder below the dataset."""
        return f"staging/{self.job_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitReport:
    """What became of a unit.

    Attributes:
        index: The unit.
        files: Raw files read.
        items: Images met, and raw files (or the rest of one) that could not be read.
        kept: Images staged.
        rejected: Rejected images and files, by reason.
        shards: Staged tar → number of samples in it and its SHA-256 (hex), in the order they were begun.
    """

    index: int
    files: int
    items: int
    kept: int
    rejected: Mapping[str, int]
    shards: Mapping[str, tuple[int, str]]

    def to_json(self) -> bytes:
        """The unit's completion marker."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps(values).encode()

    @classmethod
    def from_json(cls, data: bytes) -> UnitReport:
        """A report out of its completion marker."""
        values = json.loads(data)
        values["shards"] = {name: (count, sha256) for name, (count, sha256) in values["shards"].items()}
        return cls(**values)
