"""What makes two jobs the same: a hash of all that decides their bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from ingest.picture.encoding import Encoding
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec
from shards.dataset.dataset import Dataset

PIPELINE_VERSION = 3
"""Raised when the same raw data would give other bytes."""

_UNRECORDED_VERSION = 2
"""That of the datasets whose `dataset.json` names none."""


def rules_of(
    spec: SourceSpec,
    settings: IngestSettings,
    encoding: Encoding,
    *,
    key_check: str,
    listed: Mapping[str, frozenset[str]] | None = None,
    pipeline: int = PIPELINE_VERSION,
) -> str:
    """Digest (16 hex digits) of all but the raw data that decides what comes of them.

    Fields at their default stay out of it, so a later release that adds a field recognises the jobs of an earlier one;
    so do links and words for people, so that a better note is no other job.
    """
    parts = {
        "pipeline": pipeline,
        "spec": spec.decisive(),
        "settings": settings.model_dump(mode="json", exclude_defaults=True),
        "encoding": encoding.identity(),
        "key": key_check,
        "listed": None if listed is None else sorted((path, *sorted(frames)) for path, frames in listed.items()),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def job_id(source: str, rules: str, listing: str) -> str:
    """The id of a job: the source and 16 hex digits of a hash of rules and raw data.

    Args:
        source: Source id.
        rules: `rules_of` the job.
        listing: Digest of the raw files.
    """
    return f"{source}-{hashlib.sha256(f'{rules} {listing}'.encode()).hexdigest()[:16]}"


def pipeline_of(dataset: Dataset) -> int:
    """The version of the pipeline whose rules a dataset was made by."""
    return int(dataset.settings.get("pipeline_version", _UNRECORDED_VERSION))
