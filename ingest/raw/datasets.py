"""Datasets of this project that lie below a raw URL: what they hold was ingested once and is no raw data there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ingest.raw.compact import Compact
from ingest.raw.faults import fault_of
from ingest.raw.root import RawRoot, Walked
from shards.schema import MADE_BY, SETTINGS_FILE

__all__ = ["DATASET", "files_without_datasets"]

DATASET: Final = "dataset of biovfm"
"""The kind as which such a folder is counted, once each."""
_MOST_BYTES: Final = 1 << 16


def files_without_datasets(root: RawRoot) -> Compact[Walked]:
    """Every file below a raw URL, in order; a folder that is a dataset is one entry that is left alone.

    The folder of the raw URL itself is taken as it is: somebody may ingest the shards of another.

    Raises:
        UnavailableError: A remote folder, or what says whether it is a dataset, cannot be read now.
    """
    walked = Compact(root.walk())
    suffix = f"/{SETTINGS_FILE}"
    folders = [file.path.removesuffix(suffix) for file in walked if _may_be(file, suffix) and _is_one(root, file.path)]
    return Compact(_without(walked, folders)) if folders else walked


def _may_be(file: Walked, suffix: str) -> bool:
    is_file = not (file.ignored or file.rejected or file.unavailable)
    return is_file and file.path.endswith(suffix) and file.size <= _MOST_BYTES


def _is_one(root: RawRoot, path: str) -> bool:
    """Whether a file is what a dataset says of itself; `dataset.json` is the name of others' files, too."""
    try:
        with root.open(path) as stream:
            found = json.loads(stream.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    except Exception as error:  # each file system has errors of its own
        raise fault_of(error) or error from error
    return isinstance(found, dict) and found.get("created_by") == MADE_BY and "format_version" in found


def _without(walked: Iterable[Walked], folders: Sequence[str]) -> Iterator[Walked]:
    told: set[str] = set()
    for file in walked:
        folder = next((folder for folder in folders if file.path.startswith(f"{folder}/")), "")
        if not folder:
            yield file
        elif folder not in told:
            told.add(folder)
            yield Walked(folder, ignored=DATASET)
