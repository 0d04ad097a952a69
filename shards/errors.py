"""Every error that a user can meet, in one tree.

    BiovfmError                 something the user can read and act on; exit code 1
    ├── ConfigError             a setting, a YAML file or an argument is wrong, and the user can correct it; exit code 2
    ├── SourceError             a source is unknown, its raw folder is missing or does not look as its spec says
    │   ├── TaskNotFoundError   an evaluation task's images are nowhere to be found
    │   └── UnavailableError    a raw file cannot be read now (rights, network, device); it is pending, not a reject
    ├── MachineError            this machine ran out of space, memory or file handles; the work is to be tried again
    │   └── LibraryError        a package that only some data need is missing or broken here; names its extra
    ├── StoreError              the storage failed, after retries (credentials, network, missing bucket)
    │   ├── NotFoundError       the object is not there
    │   ├── ShortObjectError    the object ends before the bytes that were asked for
    │   └── AlreadyExistsError  a conditional create found the name taken
    ├── ShardError              a shard's bytes are not what the index says (truncated, corrupt, wrong checksum)
    ├── SampleIndexError        the dataset's tables are missing, from another format version, or in conflict
    ├── SubsetError             a lock does not match its dataset, or a selection is empty
    ├── CheckpointError         a checkpoint is missing, incomplete or of another model
    ├── TrainingError           a run diverged or collapsed; says what was seen and which setting to change
    ├── EngineError             a unit of an ingest job failed each time it was tried, or there is no cluster
    └── RunFailedError          a run of a sweep ended with an error; names its log

A bad item in an ingest run is data (a row in `rejects/`), never one of these.
"""

from __future__ import annotations

__all__ = [
    "AlreadyExistsError",
    "BiovfmError",
    "CheckpointError",
    "ConfigError",
    "EngineError",
    "LibraryError",
    "MachineError",
    "NotFoundError",
    "RunFailedError",
    "SampleIndexError",
    "ShardError",
    "ShortObjectError",
    "SourceError",
    "StoreError",
    "SubsetError",
    "TaskNotFoundError",
    "TrainingError",
    "UnavailableError",
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


class TaskNotFoundError(SourceError):
    """An evaluation task's images are nowhere to be found."""


class UnavailableError(SourceError):
    """A raw file cannot be read now (no right to it, network, failing device); it says nothing about the file."""


class MachineError(BiovfmError):
    """This machine has no space, memory or file handles left; the same work may succeed later or elsewhere."""


class LibraryError(MachineError):
    """A package that only some data need is not installed or cannot be loaded here; trying again does not help."""


class StoreError(BiovfmError):
    """The storage failed after all retries."""


class NotFoundError(StoreError):
    """The object is not there."""


class ShortObjectError(StoreError):
    """The object ends before the bytes that were asked for."""


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


class EngineError(BiovfmError):
    """A unit of an ingest job failed every time it was tried, or there is no cluster to run it on."""


class RunFailedError(BiovfmError):
    """A run of a sweep ended with an error."""
