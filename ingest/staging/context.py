"""What the units of a job share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ingest.picture.encoding import Encoding
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec
from ingest.staging.folder import Staging
from shards.store import open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Rejects that are to be tried again.

    Attributes:
        wanted: Raw path → rejected frames; an empty frame stands for the file.
        kept: Raw path → frames of it that the dataset holds.
        revived: Whether the rejects are duplicates whose original went; other files are read as a whole beside them.
    """

    wanted: Mapping[str, frozenset[str]] = field(default_factory=dict)
    kept: Mapping[str, frozenset[str]] = field(default_factory=dict)
    revived: bool = False

    def revives(self, raw_path: str) -> bool:
        """Whether a file is read for its revived duplicates alone."""
        return self.revived and raw_path in self.wanted

    def takes(self, raw_path: str, frame: str) -> bool:
        """Whether this image is to be tried again."""
        if self.revived and raw_path not in self.wanted:
            return True
        frames = self.wanted.get(raw_path, frozenset())
        return (frame in frames or "" in frames) and frame not in self.kept.get(raw_path, frozenset())


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
        rules: Digest of all but the raw data that decides the job's result.
        listed: Raw paths and frames to take (`raw_path` → frames), or None for all; others are rejects.
        retry: The rejects that are tried again, and nothing else but for revived ones; None where there are none.
    """

    spec: SourceSpec
    settings: IngestSettings
    encoding: Encoding
    raw_url: str
    dataset_url: str
    job_id: str
    rules: str = ""
    listed: Mapping[str, frozenset[str]] | None = None
    retry: Retry | None = None

    def staging(self) -> Staging:
        """The job's staging folder."""
        return Staging(open_store(self.dataset_url), self.job_id)
