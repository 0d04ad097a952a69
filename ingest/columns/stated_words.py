"""The words of tables and lists that go into the shards and the index as they stand: licence, anatomy and label.

Of a source that is not de-identified they are looked at as columns of the user's own are, the whole column at once and
before anything is read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ingest.columns.guard import why_refused
from ingest.columns.kinds import typed
from ingest.raw.table_rows import plain_text
from shards.errors import ConfigError

USES: Final = ("licence", "anatomy", "label")
"""What is said of a file in words that leave the raw data as they stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedWords:
    """What one column of a table or list says in words that are stored.

    Attributes:
        table: Path of the table.
        use: One of `USES`.
        header: The column's name.
        counts: Word → rows that say it.
        allowed: Whether the user has said that nobody can be told by it.
        of_list: Whether the source is a list, so that the command line can allow it.
    """

    table: str
    use: str
    header: str
    counts: Mapping[str, int]
    allowed: bool
    of_list: bool


class WordCounter:
    """Counts what the columns of one table say; see `StatedWords`."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], Counter[str]] = {}

    def add(self, use: str, header: str, word: str, rows: int = 1) -> None:
        """Count rows that say a word, where it is stored; nothing is no word."""
        if word and use in USES:
            self._counts.setdefault((use, header), Counter())[plain_text(word)] += rows

    def done(self, table: str, *, allow: Collection[str], of_list: bool) -> list[StatedWords]:
        """What was counted, column by column.

        Args:
            table: Path of the table.
            allow: Headers by which nobody can be told.
            of_list: Whether the source is a list.
        """
        return [
            StatedWords(table=table, use=use, header=header, counts=counts, allowed=header in allow, of_list=of_list)
            for (use, header), counts in self._counts.items()
        ]


def why_words_are_refused(header: str, counts: Mapping[str, int]) -> str:
    """Why words may name a person; empty where nothing says so.

    Args:
        header: Of their column.
        counts: Word → rows that say it.
    """
    import numpy as np
    import pyarrow as pa

    values, kind = typed(header, pa.chunked_array([pa.array(list(counts), pa.string())]))
    rows = np.repeat(np.arange(len(counts)), np.fromiter(counts.values(), np.int64, len(counts)))
    return why_refused(header, values.take(pa.array(rows)), kind)


def check_words(stated: Iterable[StatedWords]) -> None:
    """Refuse words that may name a person, all columns of the first such table in one message.

    Raises:
        ConfigError: Some may.
    """
    refused: dict[str, list[tuple[StatedWords, str]]] = {}
    for words in stated:
        if not words.allowed and (why := why_words_are_refused(words.header, words.counts)):
            refused.setdefault(words.table, []).append((words, why))
    for table, those in refused.items():
        reasons = "; ".join(f"{words.header} ({words.use}): {why}" for words, why in those)
        raise ConfigError(
            f"{table}: refused, since they may name a person: {reasons}",
            hint=f"these go into the shards or the index as they stand: {_way_out([words for words, _ in those])}",
        )


def _way_out(refused: list[StatedWords]) -> str:
    headers = list(dict.fromkeys(words.header for words in refused))
    allow = f"`allow: {json.dumps(headers, ensure_ascii=False)}`"
    if refused[0].of_list:
        flags = " ".join(f"--allow {header}" for header in headers)
        return (
            f"take them out of the list, or say that nobody can be told by them: {flags} with `biovfm ingest`, or "
            f"{allow} under `layout` in the YAML"
        )
    uses = " and ".join(dict.fromkeys(f"`{words.use}`" for words in refused))
    return f"take {uses} out of the table in the YAML, or say that nobody can be told by them: {allow} beside {uses}"
