"""The paper's data list: which raw files, and which frames of them, a dataset was made of.

`biovfm subset export --format tsv` writes one; giving it to `biovfm ingest --only-listed` re-creates that selection
from the raw data. It is a TSV, CSV or Parquet file with the columns `raw_path` and `raw_frame`, and where several
sources are mixed, `source`; text is UTF-8 or UTF-16, as spreadsheets save it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ingest.raw.table_rows import table_rows
from shards.errors import ConfigError, SourceError


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
                    for name, frame in places_of(row):
                        found.setdefault(name, set()).add(frame)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {type(error).__name__}", hint="check the path") from error
    if not found:
        raise ConfigError(f"{path} lists nothing of source {source}", hint="check the source's name")
    return {name: frozenset(frames) for name, frames in found.items()}


def places_of(row: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The raw path and frame of a row; lists of earlier releases have the frame behind a `#` of the path."""
    yield row["raw_path"], row.get("raw_frame") or ""
    path, hash_sign, frame = row["raw_path"].rpartition("#")
    if "raw_frame" not in row and hash_sign:
        yield path, frame


def check_matches(listed: Mapping[str, frozenset[str]], paths: Iterable[str], *, source: str) -> None:
    """Refuse a list that names little of what lies in the raw data: it is of other data, or was changed on its way.

    Args:
        listed: Raw path → frames, as `load_list` gives them.
        paths: The raw paths that there are, as the index would have them.
        source: Source id, for the message.

    Raises:
        SourceError: Less than half of the listed files are there.
    """
    there = len(set(listed) & set(paths))
    wanted = len({name.rpartition("#")[0] or name for name in listed})
    if 2 * there < wanted:
        raise SourceError(
            f"the list names {wanted:,} raw files of {source}, and {there:,} of them are here",
            hint="check the raw folder; raw paths that are hashed match only under the secret that made the list",
        )
