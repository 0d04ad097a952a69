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


def job_id(spec: SourceSpec, settings: IngestSettings, listing: str, encoding: Encoding, key_check: str) -> str:
    """The id of a job: the source and 16 hex digits of a hash of all that decides its bytes.

    Fields at their default stay out of it, so a later release that adds a field recognises the jobs of an earlier one.
    """
    parts = {
        "pipeline": PIPELINE_VERSION,
        "spec": spec.model_dump(mode="json", exclude_defaults=True),
        "settings": settings.model_dump(mode="json", exclude_defaults=True),
        "listing": listing,
        "encoding": encoding.identity(),
        "key": key_check,
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{spec.id}-{digest[:16]}"


def pipeline_of(dataset: Dataset) -> int:
    """The version of the pipeline whose rules a dataset was made by."""
    return int(dataset.settings.get("pipeline_version", _UNRECORDED_VERSION))


def digest_of(listed: Mapping[str, frozenset[str]] | None) -> str:
    """Digest of a list of images to take; empty without one."""
    if listed is None:
        return ""
    rows = sorted((path, *sorted(frames)) for path, frames in listed.items())
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
