"""A selection evaluated once, on the whole table of one version: the bitmap of what is in, and its digests.

*Which samples*: each sample is the line `<key> <pixel_sha256>`; the digest is the sum of the lines' MD5s, read as
little-endian 128-bit numbers, modulo 2^128. A sum does not depend on the order, so nothing is sorted: 21 million rows
take seconds and little memory; and the sum of a whole is the sum of its parts, so each source and modality has its own.
MD5 serves as a mixing function over lines that hold a SHA-256 already; it finds accidents, it is no signature.

*In which order*: the order of an epoch follows from the names of the shards and from which rows of each are in. The
digest is the SHA-256 of both: per shard, by name, a line with the name, the number of selected rows and one bit per
index row (position in the tar), 64 to a word, as far as the last that is in.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shards.dataset.columns import join_samples
from shards.dataset.dataset import Dataset
from shards.dataset.direct import direct_rows, read_by_arrow, register_rows
from shards.dataset.query import ask_tables, connect, is_of_the_network, scan, told_plainly
from shards.errors import ConfigError, SampleIndexError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MEMORY = "500MB"
"""What DuckDB may take for a selection; beyond it, sorts and groups go to the temporary folder."""
_THREADS = 4
"""Each thread holds a few column chunks; more of them would not fit into `MEMORY`."""
SECONDS = 600.0
"""How long a selection may take."""
_ALL = "TRUE"
DIGEST_PREFIX = "md5sum128:"
_WORD = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The selected samples of one source and modality; the digest is empty where it was not asked for."""

    source: str
    modality: str
    num_samples: int
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which rows of an index version are in.

    Attributes:
        shards: Paths of the shards that hold selected samples, sorted.
        counts: `(S,)` int64, selected samples of each.
        words: uint64, the bits of all shards that are not dense, one after the other; bit `i` of word `w` of a shard
            stands for its row `64 w + i`.
        starts: `(S + 1,)` int64, where each shard's words begin. A dense shard, whose first `counts` rows are in and no
            others, has none.
        parts: By source and modality.
        digest: Of the samples; empty where it was not asked for.
    """

    shards: Sequence[str]
    counts: NDArray[np.int64]
    words: NDArray[np.uint64]
    starts: NDArray[np.int64]
    parts: tuple[Part, ...]
    digest: str = ""

    @property
    def num_samples(self) -> int:
        """Selected samples."""
        return int(self.counts.sum())

    def contains(self, shard: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether rows of a shard (positions in its tar) are in.

        Args:
            shard: Number of the shard in `shards`.
            rows: `(n,)` positions.
        """
        words = self.words[self.starts[shard] : self.starts[shard + 1]]
        if not len(words):
            dense: NDArray[np.bool_] = rows < self.counts[shard]
            return dense
        inside = rows < len(words) * _WORD
        at = np.where(inside, rows, 0)
        bits = (words[at // _WORD] >> (at % _WORD).astype(np.uint64)) & np.uint64(1)
        found: NDArray[np.bool_] = inside & (bits != 0)
        return found

    def positions(self, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of rows among all selected ones, shard by shard in the order of the rows.

        Args:
            shards: `(n,)` numbers in `shards`; negative for rows of other shards.
            rows: `(n,)` positions in their tars.

        Returns:
            `(n,)` int64; -1 for a row that is not in.
        """
        inside = (shards >= 0) & (len(self.shards) > 0)
        number = np.where(inside, shards, 0)
        first = np.concatenate([[0], np.cumsum(self.counts)])[number]
        begin, end = self.starts[number], self.starts[number + 1]
        dense = begin == end
        before = np.concatenate([[0], np.cumsum(np.bitwise_count(self.words), dtype=np.int64)])
        at = np.minimum(begin + rows // _WORD, np.maximum(end - 1, 0))
        word = self.words[at] if len(self.words) else np.zeros(len(rows), np.uint64)
        bit = np.uint64(1) << (rows % _WORD).astype(np.uint64)
        rank = before[at] - before[begin] + np.bitwise_count(word & (bit - np.uint64(1)))
        set_ = ((word & bit) != 0) & (rows // _WORD < end - begin)
        inside &= np.where(dense, rows < self.counts[number], set_) if len(self.shards) else False
        found: NDArray[np.int64] = np.where(inside, first + np.where(dense, rows, rank), -1)
        return found

    def order_digest(self) -> str:
        """The digest of the plan: shard names, and one bit per index row of each."""
        digest = hashlib.sha256()
        for number, shard in enumerate(self.shards):
            digest.update(f"{shard} {self.counts[number]}\n".encode())
            digest.update(self._bits(number).tobytes())
        return f"sha256:{digest.hexdigest()}"

    def _bits(self, number: int) -> NDArray[np.uint64]:
        words = self.words[self.starts[number] : self.starts[number + 1]]
        return words.astype("<u8") if len(words) else _dense_words(int(self.counts[number]))


def choose(
    dataset: Dataset, version: int, where: str, *, with_samples: bool = True, seconds: float = SECONDS
) -> Chosen:
    """Evaluate a predicate once, on all rows of an index version.

    Args:
        dataset: The dataset.
        version: Index version.
        where: The SQL predicate.
        with_samples: Whether to compute the digests of the samples, for which the keys and pixel hashes are read.
        seconds: The most that it may take.

    Raises:
        SampleIndexError: There is no such version.
        StoreError: The storage failed.
        ConfigError: The predicate does not work, or takes too long or too much memory.
    """

    def chosen() -> Chosen:
        with samples(dataset, version, predicate="" if where == _ALL else where, quick=True) as database:
            return choose_from(database, where, with_samples=with_samples, seconds=seconds)

    return ask_tables(dataset.url, chosen)


def choose_from(
    database: duckdb.DuckDBPyConnection, where: str, *, with_samples: bool = True, seconds: float = SECONDS
) -> Chosen:
    """`choose` on a connection of `samples`."""
    line = "md5_number(key || ' ' || pixel_sha256)"
    columns = f", {line} AS line" if with_samples else ""
    sums = ", sum((line & 18446744073709551615)::HUGEINT) AS low, sum((line >> 64)::HUGEINT) AS high"
    run(
        database,
        f"""CREATE OR REPLACE TEMP TABLE chosen AS
        SELECT shard::VARCHAR AS shard, source::VARCHAR AS source, modality::VARCHAR AS modality,
            word, num, bits {", low, high" if with_samples else ""}
        FROM (SELECT shard, source, modality, shard_row >> 6 AS word, count(*) AS num,
                bit_or(1::UBIGINT << (shard_row & 63))::UBIGINT AS bits {sums if with_samples else ""}
            FROM (SELECT shard, source, modality, shard_row {columns} FROM samples WHERE {where})
            GROUP BY shard, source, modality, word)""",  # noqa: S608 - the predicate is the user's own, on a connection that reaches nothing else
        seconds=seconds,
    )
    words = database.sql(
        "SELECT shard, word::BIGINT AS word, num, bits FROM chosen ORDER BY shard, word"
    ).to_arrow_table()
    added = "sum(low)::VARCHAR, sum(high)::VARCHAR" if with_samples else "'0', '0'"
    rows = database.sql(
        f"SELECT source, modality, sum(num)::BIGINT, {added} FROM chosen GROUP BY 1, 2 ORDER BY 1, 2"  # noqa: S608
    ).fetchall()
    database.execute("DROP TABLE chosen")
    return _packed(words, rows, with_samples=with_samples)


@contextmanager
def samples(
    dataset: Dataset,
    version: int,
    *,
    dictionaries: Sequence[str] = ("shard",),
    predicate: str | None = None,
    columns_version: int | None = None,
    quick: bool = False,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection on which the table `samples` is an index version; it reaches nothing else.

    Args:
        dataset: The dataset.
        version: Index version.
        dictionaries: Columns of few values to read as dictionaries.
        predicate: What will be asked: the columns of the user's own that it names are in `samples` too.
        columns_version: Version of these columns; the newest where None.
        quick: Whether all that will be asked goes through `run`, so that DuckDB may read the files itself. It does not
            where a predicate of the user's own is asked: by its statistics it skips files that hold NaN.

    Raises:
        SampleIndexError: The dataset holds nothing yet, or has no such version (any more).
    """
    with told_plainly(dataset.url):
        table = dataset.samples_table(version)
        rows = scan(table, dictionaries=dictionaries)
        direct = direct_rows(table, rows) if quick and not predicate else None
        with connect(memory_limit=MEMORY, threads=_THREADS, files=direct.files if direct else ()) as database:
            register_rows(database, rows, direct)
            join_samples(database, dataset, predicate=predicate or "", version=columns_version)
            yield database


def run(
    database: duckdb.DuckDBPyConnection, sql: str, *, params: Sequence[object] = (), seconds: float = SECONDS
) -> list[tuple[object, ...]]:
    """Run a statement that holds a user's predicate, with limits on time and memory.

    A statement that fails where DuckDB reads the files of the index itself is run again on Arrow's scan of them, whose
    errors tell those of the table from those of the predicate.

    Raises:
        ConfigError: It does not work, or takes too long or too much memory.
    """
    import duckdb

    try:
        return _watched(database, sql, params, seconds)
    except ConfigError as error:
        if isinstance(error.__cause__, duckdb.InterruptException) or not read_by_arrow(database):
            raise
    except (duckdb.Error, SampleIndexError):
        if not read_by_arrow(database):
            raise
    return _watched(database, sql, params, seconds)


def _watched(
    database: duckdb.DuckDBPyConnection, sql: str, params: Sequence[object], seconds: float
) -> list[tuple[object, ...]]:
    import duckdb

    watch = threading.Timer(seconds, database.interrupt)
    watch.start()
    try:
        return database.execute(sql, params).fetchall()
    except duckdb.InterruptException as error:
        raise ConfigError(
            f"the selection takes longer than {seconds:g} seconds", hint="use a simpler --where, or tags alone"
        ) from error
    except duckdb.OutOfMemoryException as error:
        raise ConfigError(
            f"the selection needs more memory than {MEMORY}", hint="use a simpler --where, or tags alone"
        ) from error
    except duckdb.Error as error:
        if is_of_the_network(str(error)) or "registered as" in str(error):  # the table, not the predicate
            raise
        if isinstance(error, duckdb.IOException) or "No such file" in str(error) or "does not exist" in str(error):
            raise SampleIndexError(
                f"files of the index cannot be read ({str(error).splitlines()[0]})",
                hint="`biovfm verify` says what is missing; a vacuum may have removed the files of an older version",
            ) from error
        raise ConfigError(
            f"the predicate does not work: {str(error).splitlines()[0]}",
            hint='--where takes a DuckDB expression over the columns of the index and your own, e.g. "width >= 256"',
        ) from error
    finally:
        watch.cancel()


def digest_of(total: int) -> str:
    """The text of a digest of samples."""
    return f"{DIGEST_PREFIX}{total % (1 << 128):032x}"


def _packed(words: pa.Table, rows: Sequence[tuple[str, str, int, str, str]], *, with_samples: bool) -> Chosen:
    totals = [int(low) + (int(high) << 64) for *_, low, high in rows]
    parts = tuple(
        Part(source=source, modality=modality, num_samples=num, digest=digest_of(total) if with_samples else "")
        for (source, modality, num, *_), total in zip(rows, totals, strict=True)
    )
    shards, first = _runs(words["shard"])
    if not len(shards):
        nothing = np.zeros(0, np.int64)
        return Chosen(
            shards=(), counts=nothing, words=np.zeros(0, np.uint64), starts=np.zeros(1, np.int64), parts=parts
        )
    counts = np.add.reduceat(words["num"].to_numpy(), first)
    packed, starts = _pack(words["word"].to_numpy(), words["bits"].to_numpy(), first, counts)
    return Chosen(
        shards=shards,
        counts=counts.astype(np.int64),
        words=packed,
        starts=starts,
        parts=parts,
        digest=digest_of(sum(totals)) if with_samples else "",
    )


def _runs(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """The distinct values of a sorted column and where each begins."""
    import pyarrow.compute as pc

    codes = pc.dictionary_encode(column).combine_chunks()
    if hasattr(codes, "chunks"):
        codes = codes.chunk(0) if codes.num_chunks else codes
    if not len(codes):
        return [], np.zeros(0, np.int64)
    indices = codes.indices.to_numpy()
    first = np.concatenate([[0], np.flatnonzero(np.diff(indices)) + 1]).astype(np.int64)
    return [str(value) for value in codes.dictionary.to_pylist()], first


def _pack(
    positions: NDArray[np.int64], bits: NDArray[np.uint64], first: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The words of the shards that are not dense, gaps filled with zeros."""
    ends = np.append(first[1:], len(positions))
    lengths = positions[ends - 1].astype(np.int64) + 1
    last = bits[ends - 1]
    top = _bit_length(last) + (lengths - 1) * _WORD
    lengths[top == counts] = 0  # the highest row that is in is the last of as many: none below it is missing
    starts = np.concatenate([[0], np.cumsum(lengths)])
    packed = np.zeros(int(starts[-1]), np.uint64)
    shard = np.repeat(np.arange(len(first)), ends - first)
    kept = lengths[shard] > 0
    packed[starts[shard[kept]] + positions[kept]] = bits[kept]
    return packed, starts


def _bit_length(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    length = np.zeros(len(values), np.int64)
    for shift in (32, 16, 8, 4, 2, 1):
        large = values >= (np.uint64(1) << np.uint64(shift))
        length += np.where(large, shift, 0)
        values = np.where(large, values >> np.uint64(shift), values)
    return length + (values > 0)


def _dense_words(count: int) -> NDArray[np.uint64]:
    words = np.full(-(-count // _WORD), np.iinfo(np.uint64).max, dtype="<u8")
    if count % _WORD:
        words[-1] = (1 << (count % _WORD)) - 1
    return words
