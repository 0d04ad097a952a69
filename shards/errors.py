"""Every error that a user can meet, in one tree.

    BiovfmError                 something the user can read and act on; exit code 1
    ├── ConfigError             a setting, a YAML file or an argument is wrong (the user's to mend); exit code 2
    ├── SourceError             a source is unknown, its raw folder is missing or does not look as its spec says
    ├── StoreError              the storage failed, after retries (credentials, network, missing bucket)
    │   ├── NotFoundError       the object is not there
    │   └── AlreadyExistsError  a conditional create found the name taken
    ├── ShardError              a shard's bytes are not what the index says (truncated, corrupt, wrong checksum)
    ├── SampleIndexError             the dataset's tables are missing, from another format version, or in conflict
    ├── SubsetError             a lock does not match its dataset, or a selection is empty
    ├── CheckpointError         a checkpoint is missing, incomplete or of another model
    └── TrainingError           a run diverged or collapsed; says what was seen and which setting to change

A bad item in an ingest run is data (a row in `rejects/`), never one of these.
"""

from __future__ import annotations

__all__ = [
    "AlreadyExistsError",
    "BiovfmError",
    "CheckpointError",
    "ConfigError",
    "NotFoundError",
    "SampleIndexError",
    "ShardError",
    "SourceError",
    "StoreError",
    "SubsetError",
    "TrainingError",
]


class BiovfmError(Exception):
    """Base of all errors meant for the user.

    Args:
        message: What happened and where (source, shard, key, offset, URL), in one line.
        hint: What to type or change next; printed after the message.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} — {self.hint}" if self.hint else self.message


class ConfigError(BiovfmError):
    """A setting, a YAML file or an argument is wrong."""

    exit_code = 2


class SourceError(BiovfmError):
    """A source is unknown, its raw folder is missing, or it does not look as its spec says."""


class StoreError(BiovfmError):
    """The storage failed after all retries."""


class NotFoundError(StoreError):
    """The object is not there."""


class AlreadyExistsError(StoreError):
    """A conditional create found the name taken."""


class ShardError(BiovfmError):
    """A shard's bytes are not what the index says."""


class SampleIndexError(BiovfmError):
    """The dataset's tables are missing, from another format version, or in conflict."""


class SubsetError(BiovfmError):
    """A lock does not match its dataset, or a selection is empty."""


class CheckpointError(BiovfmError):
    """A checkpoint is missing, incomplete or of another model."""


class TrainingError(BiovfmError):
    """A run diverged or collapsed."""
