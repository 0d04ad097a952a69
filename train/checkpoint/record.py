"""What a checkpoint says of itself: `meta.json`, written last, with the checksums of all files and its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from shards.errors import CheckpointError
from train.checkpoint.tensors import DamageError

__all__ = ["FORMAT", "META", "Checkpoint", "read_record", "record_text"]

META = "meta.json"
FORMAT = 2
_WITHOUT_SUMS = 1
"""The format of earlier releases: no checksums."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What `meta.json` says.

    Attributes:
        step: Steps done.
        stream: Position of the next batch.
        digest: Of the samples streamed.
        recipe: Resolved.
        code_version: Of the package that wrote it.
        world_size: Ranks that wrote it.
        format: Version of this layout.
        files: Name → `bytes` and `sha256` of every other file; empty in format 1.
    """

    step: int
    stream: Mapping[str, Any]
    digest: str
    recipe: Mapping[str, Any]
    code_version: str
    world_size: int
    format: int = FORMAT
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def record_text(checkpoint: Checkpoint) -> str:
    """The text of `meta.json`."""
    document = asdict(checkpoint)
    return json.dumps({**document, "sha256": _document_sum(document)}, indent=2) + "\n"


def read_record(folder: Path) -> Checkpoint:
    """Read and check the `meta.json` of a checkpoint.

    Raises:
        DamageError: It is missing, cut or changed.
        CheckpointError: A later release wrote it.
        OSError: The machine cannot read it now.
    """
    try:
        document = json.loads((folder / META).read_bytes())
    except FileNotFoundError:
        raise DamageError(f"{META} is missing") from None
    except ValueError:
        raise DamageError(f"{META} is no JSON: it was cut or overwritten") from None
    if not isinstance(document, dict):
        raise DamageError(f"{META} is no JSON object")
    written = document.get("format")
    if isinstance(written, int) and written > FORMAT:
        raise CheckpointError(
            f"{folder / META} has format {written}, this release reads up to {FORMAT}",
            hint="install the biovfm release that wrote it",
        )
    stated = document.pop("sha256", None)
    if written != _WITHOUT_SUMS and stated != _document_sum(document):
        raise DamageError(f"{META} has another checksum")
    names = {item.name for item in fields(Checkpoint)}
    if set(document) != names - ({"files"} if written == _WITHOUT_SUMS else set()):
        raise DamageError(f"{META} has other keys")
    return Checkpoint(**document)


def _document_sum(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
