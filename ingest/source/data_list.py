"""The paper's data list: which raw files, and which frames of them, a dataset was made of.

`biovfm subset export --format tsv` writes one; giving it to `biovfm ingest --only-listed` re-creates that selection
from the raw data. It is a TSV or CSV with the columns `raw_path` and `raw_frame`, and where several sources are
mixed, `source`.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from shards.errors import ConfigError


def load_list(path: Path, source: str) -> Mapping[str, frozenset[str]]:
    """Raw path → frames to take, of one source.

    Raises:
        ConfigError: The list cannot be read, has no `raw_path`, or holds nothing of the source.
    """
    found: dict[str, set[str]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream, delimiter="," if path.suffix.lower() == ".csv" else "\t")
            if "raw_path" not in (rows.fieldnames or ()):
                raise ConfigError(f"{path} has no column raw_path", hint="write it with `biovfm subset export`")
            for row in rows:
                if row.get("source") in (None, "", source):
                    found.setdefault(row["raw_path"], set()).add(row.get("raw_frame") or "")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read {path}: {type(error).__name__}", hint="check the path") from error
    if not found:
        raise ConfigError(f"{path} lists nothing of source {source}", hint="check the source's name")
    return {name: frozenset(frames) for name, frames in found.items()}
