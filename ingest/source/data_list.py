"""The paper's data list: which raw files, and which frames of them, a dataset was made of.

`biovfm subset export --format tsv` writes one; giving it to `biovfm ingest --only-listed` re-creates that selection
from the raw data. It is a TSV, CSV or Parquet file with the columns `raw_path` and `raw_frame`, and where several
sources are mixed, `source`; text is UTF-8 or UTF-16, as spreadsheets save it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ingest.raw.table_rows import table_rows
from shards.errors import ConfigError


def load_list(path: Path, source: str) -> Mapping[str, frozenset[str]]:
    """Raw path → frames to take, of one source.

    Raises:
        ConfigError: The list cannot be read, has no `raw_path`, or holds nothing of the source.
    """
    found: dict[str, set[str]] = {}
    try:
        with path.open("rb") as stream:
            for row in table_rows(stream, path.name):
                if "raw_path" not in row:
                    raise ConfigError(f"{path} has no column raw_path", hint="write it with `biovfm subset export`")
                if row.get("source") in (None, "", source):
                    found.setdefault(row["raw_path"], set()).add(row.get("raw_frame") or "")
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {type(error).__name__}", hint="check the path") from error
    if not found:
        raise ConfigError(f"{path} lists nothing of source {source}", hint="check the source's name")
    return {name: frozenset(frames) for name, frames in found.items()}
