"""What the pages ask of a dataset."""

from __future__ import annotations

from typing import Any

from shards.dataset.dataset import Dataset
from shards.dataset.query import quote
from shards.dataset.summary import Summary, summarise
from shards.errors import ShardError
from shards.read.locations import Location
from shards.read.remote import open_reader
from shards.schema import INDEX_COLUMNS, is_name


class Browser:
    """Reads a dataset for people to look at; always its newest version.

    Args:
        url: The dataset.
    """

    def __init__(self, url: str) -> None:
        self._dataset = Dataset.open(url)
        self._reader = open_reader(self._dataset.store)

    def summary(self) -> Summary:
        """The dataset's figures."""
        return summarise(self._dataset)

    def keys(self, modality: str, *, start: int, num: int) -> list[str]:
        """Keys of a modality in their order, `num` from `start` on."""
        where = f"modality = {quote(modality)}"
        return [row["key"] for row in self._select("key", f"{where} ORDER BY key LIMIT {num} OFFSET {start}")]

    def row(self, key: str) -> dict[str, Any] | None:
        """The index row of a sample, None where there is none."""
        if not is_name(key):
            return None
        rows = self._select(", ".join(INDEX_COLUMNS), f"key = {quote(key)}")
        return rows[0] if rows else None

    def image(self, key: str) -> tuple[bytes, str] | None:
        """A sample's compressed image and extension, None where there is none.

        Raises:
            ShardError: The bytes are not what the index says.
        """
        row = self.row(key)
        if row is None:
            return None
        place = Location(
            key=key,
            shard=row["shard"],
            offset=row["byte_offset"],
            length=row["byte_length"],
            crc32c=row["crc32c"],
        )
        (data,) = self._reader.read([place])
        if isinstance(data, ShardError):
            raise data
        return bytes(data), row["extension"]

    def _select(self, columns: str, where: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._dataset.query(
            f"SELECT {columns} FROM samples WHERE {where}"  # noqa: S608 - quoted
        ).to_pylist()
        return rows
