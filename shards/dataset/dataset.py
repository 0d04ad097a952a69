"""A dataset on storage: its layout, its tables, and the one way to add to it.

    dataset.json      format version, dataset id, encoding policy, and the version of the pipeline that it was made for
    shards/…          the tars
    index/            Delta table, one row per sample; its versions are the dataset's versions
    fingerprints/     Delta table, perceptual hashes and thumbnails
    rejects/          Delta table, one row a rejected image
    raw_files/        Delta table, one row per raw file that a job read or could not read yet
    withdrawn/        Delta table, keyed marks of withdrawn samples
    secret.json       keyed check value of the secret that group ids and hidden raw paths hang on, where one is used
    staging/<job>/    in flight; readers never look

A commit writes fingerprints and rejects first and the index last: the index row is what makes a sample exist. Each
table remembers the job that wrote to it (a Delta application transaction), so a job that is run again after a crash
completes what is missing and repeats nothing.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from shards.dataset.append import append_rows
from shards.dataset.log_questions import ask_log
from shards.dataset.opening import open_table
from shards.dataset.query import Result, ask_tables, connect, scan, told_plainly
from shards.dataset.replace import JOB, SUMMARY, Change, replace_files
from shards.dataset.table_files import add_columns, log_kept, write_files
from shards.errors import AlreadyExistsError, NotFoundError, SampleIndexError
from shards.files import json_object
from shards.schema import (
    FORMAT_VERSION,
    MADE_BY,
    PARTITIONS,
    SETTINGS_FILE,
    fingerprint_schema,
    index_schema,
    raw_files_schema,
    rejects_schema,
    withdrawn_schema,
)
from shards.store import Store, join_url, open_store, storage_options
from shards.store.options import require_emulator_switch, require_plain
from shards.store.settled import read_settled

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    import pyarrow.dataset as ds
    from deltalake import DeltaTable
    from deltalake.transaction import AddAction

    from shards.dataset.removal import Removal

    Rows: TypeAlias = pa.Table | Callable[[], pa.RecordBatchReader]
    """Rows of a table, or what makes a fresh reader of them each time it is called."""

TABLE_NAMES: Mapping[str, tuple[str, Callable[[], pa.Schema]]] = {
    "samples": ("index", index_schema),
    "fingerprints": ("fingerprints", fingerprint_schema),
    "rejects": ("rejects", rejects_schema),
    "raw_files": ("raw_files", raw_files_schema),
    "withdrawn": ("withdrawn", withdrawn_schema),
}
"""Name in a query → folder and columns of a table."""
CONCEDED = "committed at the same time by another job"
"""The detail of a reject whose image a job gave up after its commit; its bytes stay in the shard without a row."""
_COPY = "bring the file back from a copy"


class Dataset:
    """An existing dataset.

    Use `Dataset.open` or `Dataset.create`.

    Attributes:
        url: Where it lies, without credentials.
        store: The store at `url`.
        settings: What `dataset.json` holds.
    """

    def __init__(self, url: str, store: Store, settings: Mapping[str, Any]) -> None:
        self.url = url
        self.store = store
        self.settings = settings

    @property
    def id(self) -> str | None:
        """The random name that the dataset got when it was made and keeps wherever it is moved; None in older ones."""
        found = self.settings.get("dataset_id")
        return None if found is None else str(found)

    @classmethod
    def open(cls, url: str) -> Self:
        """Open a dataset.

        Raises:
            SampleIndexError: There is none at `url`, or it has another format version.
        """
        found = cls.find(url)
        if found is None:
            raise SampleIndexError(
                f"no dataset at {open_store(url).url}", hint="check the path, or make one with `biovfm ingest`"
            )
        return found

    @classmethod
    def find(cls, url: str) -> Self | None:
        """The dataset at `url`, or None where there is none.

        Raises:
            SampleIndexError: It has another format version, or samples and no `dataset.json`.
        """
        require_plain(url)
        require_emulator_switch(url)
        store = open_store(url)
        try:
            settings = _parse_settings(read_settled(store, SETTINGS_FILE), join_url(store.url, SETTINGS_FILE))
        except NotFoundError:
            if cls(store.url, store, {}).is_empty():
                return None
            raise SampleIndexError(
                f"{join_url(store.url, SETTINGS_FILE)} is gone, and the dataset holds samples",
                hint="bring the file back from a copy: it says how the images are encoded",
            ) from None
        if settings.get("format_version") != FORMAT_VERSION:
            raise SampleIndexError(
                f"{store.url} has format version {settings.get('format_version')}, wanted {FORMAT_VERSION}",
                hint="install the biovfm release that wrote it",
            )
        return cls(store.url, store, settings)

    @classmethod
    def create(
        cls,
        url: str,
        *,
        encoding: Mapping[str, Any] | None = None,
        pipeline_version: int | None = None,
        deidentification: Mapping[str, Any] | None = None,
    ) -> Self:
        """Open the dataset at `url`, or make an empty one.

        Args:
            url: Folder or object-store prefix.
            encoding: The encoding policy of a new dataset; one that exists keeps its own.
            pipeline_version: The version of the ingest pipeline whose rules a new dataset follows, where it is known.
            deidentification: What is done to the identifiers of raw files; left out where it is not known.
        """
        require_plain(url)
        require_emulator_switch(url)
        settings: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "dataset_id": str(uuid.uuid4()),
            "created_by": MADE_BY,
            "encoding": dict(encoding or {}),
        }
        if pipeline_version is not None:
            settings["pipeline_version"] = pipeline_version
        if deidentification is not None:
            settings["deidentification"] = dict(deidentification)
        data = (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode()
        with contextlib.suppress(AlreadyExistsError):
            open_store(url).put_if_absent(SETTINGS_FILE, data)
        return cls.open(url)

    def recreate(
        self,
        *,
        encoding: Mapping[str, Any],
        pipeline_version: int,
        deidentification: Mapping[str, Any] | None = None,
    ) -> Self:
        """Give a dataset that holds no sample other settings: a first ingest that failed decides nothing.

        Raises:
            SampleIndexError: It holds samples.
        """
        if not self.is_empty():
            raise SampleIndexError(f"{self.url} holds samples", hint="its settings stay; make a new dataset")
        self.store.delete([SETTINGS_FILE])
        return self.create(
            self.url, encoding=encoding, pipeline_version=pipeline_version, deidentification=deidentification
        )

    def is_empty(self) -> bool:
        """Whether the newest version of the index holds no sample."""
        table = self.table("index")
        return table is None or not table.file_uris()

    def table_url(self, name: str) -> str:
        """The URL of one of the Delta tables."""
        return join_url(self.url, name)

    def table(self, name: str, *, version: int | None = None) -> DeltaTable | None:
        """One of the Delta tables (`index`, `fingerprints`, `rejects`), or None where nothing was written yet.

        Raises:
            SampleIndexError: `version` is not there (any more), the log is damaged, or it names a file elsewhere.
            StoreError: The storage failed.
        """
        return open_table(self, name, version)

    def version(self) -> int:
        """The index version: it grows by one with every committed job; -1 while there is none."""
        table = self.table("index")
        return -1 if table is None else int(table.version())

    def has_job(self, job_id: str) -> bool:
        """Whether the job is committed."""
        return bool(self.committed([job_id]))

    def committed(self, job_ids: Iterable[str]) -> list[str]:
        """Which of these jobs are committed: other tables may hold rows of a job that ended in the middle of it."""
        table = self.table("index")
        return [] if table is None else [job for job in job_ids if self.has_transaction("index", table, job)]

    def has_begun(self, job_id: str) -> bool:
        """Whether a table has the job's rows already: its commit has begun, and may have ended in the middle of it."""
        return any(self.has_rows_of(name, job_id) for name in ("fingerprints", "raw_files", "rejects", "index"))

    def has_transaction(self, name: str, table: DeltaTable, transaction: str) -> bool:
        """Whether a transaction is in a table, as it was opened.

        Raises:
            SampleIndexError: The log is damaged.
            StoreError: The storage failed.
        """

        def is_there() -> bool:
            return self.ask_log(name, lambda: table.transaction_version(transaction)) is not None

        # an entry whose reply was cut where a line ends is no error: what is not there in one reading may be in another
        return is_there() or (bool(self._storage_options()) and is_there())

    def commits(self, name: str) -> list[dict[str, Any]]:
        """What the log says of each commit to a table, newest first; empty where nothing was written yet.

        Raises:
            SampleIndexError: The log is damaged.
            StoreError: The storage failed.
        """
        table = self.table(name)
        return [] if table is None else self.ask_log(name, table.history)

    def ask_log(self, name: str, question: Callable[[], Result]) -> Result:
        """Ask what makes deltalake read a table's log again; see `shards.dataset.log_questions.ask_log`."""
        return ask_log(self.store, name, question)

    def samples_table(self, version: int | None = None) -> DeltaTable:
        """The sample index.

        Args:
            version: Its version; the newest where None.

        Raises:
            SampleIndexError: There is none yet, or not this version (any more).
        """
        table = self.table("index", version=version) if version is None or version >= 0 else None
        if table is None:
            raise SampleIndexError(f"{self.url} holds no samples yet", hint="run `biovfm ingest` first")
        return table

    def query(
        self, sql: str, *, params: Sequence[object] = (), version: int | None = None, **tables: pa.Table | ds.Dataset
    ) -> pa.Table:
        """Ask one question in SQL (DuckDB).

        The dataset's tables stand in it as `samples` (the index), `fingerprints` and `rejects`; one of which nothing
        was written yet is empty.

        Args:
            sql: One SELECT.
            params: What stands for `?` or `$1` in it.
            version: Version of the index; the newest where None.
            tables: More tables, by the names that they have in the query.

        Returns:
            The rows.

        Raises:
            SampleIndexError: There is no such version (any more).
        """
        mentioned = [name for name in TABLE_NAMES if re.search(rf"\b{name}\b", sql)]

        def rows() -> pa.Table:
            with self.database(*mentioned, version=version, **tables) as database:
                return database.sql(sql, params=list(params)).to_arrow_table()

        return ask_tables(self.url, rows)

    @contextlib.contextmanager
    def database(
        self,
        *names: str,
        version: int | None = None,
        dictionaries: Sequence[str] = (),
        **tables: pa.Table | ds.Dataset,
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB connection for several questions, or for answers that are read piece by piece.

        Args:
            names: The dataset's tables to ask: `samples`, `fingerprints`, `rejects`.
            version: Version of the index; the newest where None.
            dictionaries: Columns of few values to read as dictionaries: grouping by one is ten times as fast.
            tables: More tables, by name.

        Raises:
            SampleIndexError: There is no such version (any more).
        """
        with told_plainly(self.url), connect() as database:
            for name in names:
                folder, schema = TABLE_NAMES[name]
                pinned = name == "samples" and version is not None
                table = self.samples_table(version) if pinned else self.table(folder)
                rows = schema().empty_table() if table is None else scan(table, dictionaries=dictionaries)
                database.register(name, rows)
            for name, rows in tables.items():
                database.register(name, rows)
            yield database

    def find_pixels(self, hashes: Sequence[str]) -> dict[str, str]:
        """Which of these pixel hashes the index holds already.

        Args:
            hashes: Pixel SHA-256s (hex).

        Returns:
            Pixel SHA-256 → key of the sample that holds it.
        """
        import pyarrow as pa

        if not hashes or self.table("index") is None:
            return {}
        wanted = pa.table({"pixel_sha256": pa.array(sorted(set(hashes)), pa.string())})
        sql = "SELECT pixel_sha256, min(key) AS key FROM samples JOIN wanted USING (pixel_sha256) GROUP BY 1"
        found = self.query(sql, wanted=wanted)
        return dict(zip(found["pixel_sha256"].to_pylist(), found["key"].to_pylist(), strict=True))

    def commit(
        self,
        *,
        job_id: str,
        rows: Rows,
        rejects: Rows,
        fingerprints: Rows | None = None,
        raw_files: Rows | None = None,
        summary: Mapping[str, Any] | None = None,
        removal: Removal | None = None,
    ) -> int:
        """Add one job's samples; all of them appear at once, and what a removal takes out leaves with the same commit.

        A job that is committed already commits nothing. Memory: that of the tables that are passed whole, and a few
        row groups of those that are read (see `shards.dataset.table_files`).

        Args:
            job_id: The job; also the transaction that makes a repeated commit harmless.
            rows: Rows of `index_schema()`; their shards must be in place. A reader gives them in the order of
                modality, source, shard and row; a table is sorted here.
            rejects: Rows of `rejects_schema()`.
            fingerprints: Rows of the fingerprints table.
            raw_files: Rows of `raw_files_schema()`.
            summary: The job's counts, kept in the commit (see `jobs`).
            removal: Samples that leave; their fingerprints are left to `shards.dataset.removal.drop_prints`.

        Returns:
            The index version after the commit.
        """
        if fingerprints is not None:
            self._append("fingerprints", job_id, fingerprints)
        if raw_files is not None:
            self._append("raw_files", job_id, raw_files)
        self.reject(job_id, rejects)
        if not callable(rows):
            order = [(name, "ascending") for name in ("modality", "source", "shard", "shard_row")]
            rows = rows.select(index_schema().names).cast(index_schema()).sort_by(order)
        if removal is not None and self.table("index") is not None:
            return self._replace(job_id, rows, summary, removal)
        return self._append("index", job_id, rows, summary)

    def _replace(self, job_id: str, rows: Rows, summary: Mapping[str, Any] | None, removal: Removal) -> int:
        """Let rows come and others leave in one commit of the index."""
        from deltalake import Schema

        @cache
        def added() -> list[AddAction]:
            reader = rows() if callable(rows) else rows.to_reader()
            return write_files(self.store, "index", job_id, reader, PARTITIONS)

        def plan(table: DeltaTable) -> Change:
            change = removal.plan(table)
            return replace(change, added=[*change.added, *added()])

        self.ask_log("index", lambda: add_columns(self.samples_table(), Schema.from_arrow(index_schema())))
        return replace_files(self, "index", plan, transaction=job_id, summary=summary, operation="WRITE")

    def reject(self, transaction: str, rejects: Rows) -> None:
        """Add rows to the rejects, once for each transaction.

        Args:
            transaction: What a repeated call is known by.
            rejects: Rows of `rejects_schema()`.
        """
        self._append("rejects", transaction, rejects if callable(rejects) else rejects.cast(rejects_schema()))

    def append(self, name: str, transaction: str, rows: Rows) -> None:
        """Add rows to a table other than the index, once for each transaction.

        Args:
            name: Folder of the table.
            transaction: What a repeated call is known by.
            rows: The rows, with the table's columns.
        """
        self._append(name, transaction, rows)

    def delete_rows(self, name: str, predicate: str) -> None:
        """Delete rows of a table, where there is one; harmless when repeated.

        Args:
            name: Folder of the table.
            predicate: SQL for deltalake: which rows go.

        Raises:
            SampleIndexError: The table is damaged.
            StoreError: The storage failed.
        """

        def delete() -> None:
            table = self.table(name)
            if table is not None:
                table.delete(predicate, post_commithook_properties=log_kept())

        self.ask_log(name, delete)

    def jobs(self) -> list[dict[str, Any]]:
        """The committed jobs, oldest first: `job_id`, `version` and what their summaries hold."""
        return [
            {**_summary(entry, self.url), "job_id": entry[JOB], "version": int(entry["version"])}
            for entry in reversed(self.commits("index"))
            if JOB in entry
        ]

    def _append(self, name: str, job_id: str, rows: Rows, summary: Mapping[str, Any] | None = None) -> int:
        return append_rows(self, name, job_id, rows, summary)

    def has_rows_of(self, name: str, job_id: str) -> bool:
        """Whether the rows of a job, or of another transaction, are in a table."""
        table = self.table(name)
        return table is not None and self.has_transaction(name, table, job_id)

    def _storage_options(self) -> dict[str, str]:
        return storage_options(self.url)


def _summary(entry: Mapping[str, Any], url: str) -> dict[str, Any]:
    """What a commit says of its job."""
    where = f"{url}: the log's entry of version {entry['version']} of index/"
    return json_object(entry.get(SUMMARY, "{}"), where=where, error=SampleIndexError, hint=_COPY)


def _parse_settings(data: bytes, where: str) -> Mapping[str, Any]:
    settings = json_object(data, where=where, error=SampleIndexError, hint=_COPY)
    if not isinstance(settings.get("encoding", {}), dict):
        raise SampleIndexError(f"{where} is damaged: it does not hold settings", hint=_COPY)
    return settings
