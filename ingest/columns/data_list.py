"""Columns of a data list, which names raw paths and frames as the index has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ingest.columns.own_rows import Cells, OwnRows
from ingest.raw.table_rows import table_rows
from ingest.source.data_list import places_of
from ingest.source.layout import OwnColumn
from shards.errors import ConfigError


def list_columns(path: Path, source: str, wanted: Mapping[str, OwnColumn]) -> OwnRows:
    """Columns of a data list, of the rows of one source.

    Args:
        path: The list.
        source: The source.
        wanted: New name → what of the list it is.

    Raises:
        ConfigError: The list cannot be read.
        SourceError: It lacks a column.
    """
    cells, places = Cells(wanted), list[tuple[str, str]]()
    try:
        with path.open("rb") as stream:
            for number, row in enumerate(table_rows(stream, path.name)):
                if number == 0:
                    cells.check(row, where=path.name)
                if row.get("source") in (None, "", source):
                    for place in list(places_of(row))[-1:]:
                        places.append(place)
                        cells.add(row)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {type(error).__name__}", hint="check the path") from error
    return cells.done("place", places=places, of_list=True)
