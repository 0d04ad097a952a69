"""The staging folder of a job, `staging/<job>/`: this module alone knows what lies in it.

    u000012.json                        report of a finished unit, written last: the unit is done where it is there
    u000012.index.parquet               rows of the unit's samples; `.rejects`, `.fingerprints` and `.raw_files`
                                        likewise: the tables have the names that they have in the dataset
    u000012-ct-0003.tar                 a staged shard of the unit
    parts/u000012-003-of-008/…          what a part of a unit staged, with names as above, until the unit is joined
    headers/u000012.json                what a step before the map step found out (`headers`, `ranges`)
    promoted/shards/<source>/…/<id>.tar a final name that this job has used: empty, or the staged tar that it was
    work/…                              files under way, of workers on this machine

What a kill leaves behind, and what the next run of the same job makes of it:

- While a unit is mapped: files in `work/`, finished parts, or tars and tables without a report. The unit is mapped
  again, and what lies there is replaced.
- While shards are promoted: shards under final names that no index row names yet. Each name was noted in `promoted/`
  before the shard appeared. The next run finds a moved tar by that note, and `sweep` removes what the index does not
  name.
- After the commit: all of the folder or a part of it. The next run of the same command sweeps it.

Whatever comes back from storage is compared with a checksum that its writer took: tables and tars with those in the
unit's report, reports and results with their own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import google_crc32c
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.staging.report import UnitReport
from shards.dataset.shard_file import shard_tags
from shards.errors import AlreadyExistsError, NotFoundError, ShortObjectError, StoreError
from shards.store import Store

if TYPE_CHECKING:
    from shards.dataset.dataset import Dataset

_ROOT: Final = "staging"
_WORK: Final = "work"
_CACHED_TABLES: Final = 8
_READS: Final = 3
"""Times a file is read before it counts as damaged: bytes may also change on their way."""


def unit_file(unit: int, table: str = "") -> str:
    """File name of a unit's report, or of one of its tables."""
    return f"u{unit:06d}.{table}.parquet" if table else f"u{unit:06d}.json"


def unit_tar(unit: int, modality: str, number: int) -> str:
    """File name of one of a unit's shards."""
    return f"{_tar_prefix(unit)}{modality}-{number:04d}.tar"


def _tar_prefix(unit: int) -> str:
    return f"u{unit:06d}-"


class Staging:
    """The staging folder of one job.

    Args:
        store: The dataset's store.
        job_id: The job.
    """

    def __init__(self, store: Store, job_id: str) -> None:
        self._store = store
        self._job_id = job_id
        self._path = f"{_ROOT}/{job_id}"
        self._cache: OrderedDict[tuple[int, str], pa.Table] = OrderedDict()

    @property
    def is_local(self) -> bool:
        """Whether it lies on a disk of this machine: what is made there must be brought to the disk."""
        return self._store.local_path(self._path) is not None

    def part(self, unit: int, number: int, num_parts: int) -> Staging:
        """Where a part of a unit is staged, until the unit is joined."""
        return Staging(self._store, f"{self._job_id}/parts/u{unit:06d}-{number:03d}-of-{num_parts:03d}")

    def is_empty(self) -> bool:
        """Whether nothing is staged."""
        return next(iter(self._store.list(f"{self._path}/")), None) is None

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """A folder for files under way; where staging is a local folder it lies inside, so that nothing is copied."""
        inside = self._store.local_path(f"{self._path}/{_WORK}")
        if inside is not None:
            inside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="biovfm-", dir=inside, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    # Units

    def publish(self, files: Sequence[Path], report: UnitReport) -> None:
        """Put a unit's tars and tables, then its report; what an earlier, killed try left is replaced.

        Args:
            files: Files in a workplace, under their final names.
            report: The unit's report.
        """
        self._store.delete([f"{self._path}/{file.name}" for file in files])
        for file in files:
            with suppress(AlreadyExistsError):  # another worker mapped the same unit: the same bytes
                self._put(file, f"{self._path}/{file.name}")
        with suppress(AlreadyExistsError):
            self._store.put_if_absent(f"{self._path}/{unit_file(report.index)}", _checked(report.to_values()))

    def reports(self) -> dict[int, UnitReport]:
        """The finished units. A damaged report is removed: its unit is mapped again."""
        found = {}
        for info in self._store.list(f"{self._path}/u"):
            if info.path.endswith(".json"):
                values = self._read_checked(info.path)
                if values is not None:
                    report = UnitReport.from_values(values)
                    found[report.index] = report
        return found

    def holds(self, unit: UnitReport) -> bool:
        """Whether the unit is staged as its report says, and was not mapped again since."""
        values = self._read_checked(f"{self._path}/{unit_file(unit.index)}")
        return values is not None and UnitReport.from_values(values) == unit

    def forget(self, units: Collection[int]) -> None:
        """Take the reports of units away, so that they are mapped again; their tars may come to hold other samples.

        Shards that an earlier try made of their tars count as nobody's, and the sweep takes them.
        """
        prefixes = tuple(_tar_prefix(unit).encode() for unit in units)
        for name in self._promoted():
            note = f"{self._path}/promoted/{name}"
            if self._store.read(note).startswith(prefixes):
                self._store.replace(note, b"")
        for key in [key for key in self._cache if key[0] in units]:
            del self._cache[key]
        self._store.delete([f"{self._path}/{unit_file(unit)}" for unit in units])

    def table(self, unit: UnitReport, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One of a unit's tables; whole ones are kept for a while, since steps may need several parts of them."""
        if columns is not None:
            with self._opened(unit, name) as file:
                return file.read(columns=list(columns), use_threads=False)
        if (unit.index, name) not in self._cache:
            with self._opened(unit, name) as file:
                self._cache[unit.index, name] = file.read(use_threads=False)
            if len(self._cache) > _CACHED_TABLES:
                self._cache.popitem(last=False)
        self._cache.move_to_end((unit.index, name))
        return self._cache[unit.index, name]

    def batches(self, unit: UnitReport, name: str, num_rows: int) -> Iterator[pa.RecordBatch]:
        """One of a unit's tables, so many rows at a time; from a local disk it is not read as a whole either."""
        with self._opened(unit, name) as file:
            yield from file.iter_batches(num_rows, use_threads=False)

    @contextmanager
    def _opened(self, unit: UnitReport, name: str) -> Iterator[pq.ParquetFile]:
        path = f"{self._path}/{unit_file(unit.index, name)}"
        local = self._store.local_path(path)
        if local is not None and local.exists():  # else the store tells what is wrong
            source = pa.OSFile(str(local))
        else:
            source = pa.BufferReader(self._read_whole(path, unit.tables[name]))
        with source, pq.ParquetFile(source, pre_buffer=False) as file:
            yield file
        pa.default_memory_pool().release_unused()  # a job reads thousands of these

    def checked_rows(self, unit: UnitReport, name: str) -> list[dict[str, Any]]:
        """The rows of one of a unit's tables, compared with the checksum also where they lie on a local disk.

        Raises:
            StoreError: They are damaged, however often they are read, or gone.
        """
        data = self._read_whole(f"{self._path}/{unit_file(unit.index, name)}", unit.tables[name])
        rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(data), use_threads=False).to_pylist()
        return rows

    def checked_tar(self, unit: UnitReport, tar: str) -> bytes:
        """One of a unit's staged tars, compared with its checksum.

        Raises:
            StoreError: It is damaged, however often it is read, or gone.
        """
        return self._read_whole(f"{self._path}/{tar}", unit.shards[tar][1])

    def _read_whole(self, path: str, sha256: str) -> bytes:
        for _ in range(_READS):
            data = self._store.read(path)
            if hashlib.sha256(data).hexdigest() == sha256:
                return data
        raise StoreError(f"{self._store.url}/{path} does not hold what was written", hint="run the same command again")

    def is_sound(self, unit: UnitReport) -> bool:
        """Whether tars and tables hold what the unit's worker wrote, and each row the checksum of its image."""
        try:
            if any(
                self._digest(f"{self._path}/{unit_file(unit.index, name)}") != unit.tables[name] for name in unit.tables
            ):
                return False
            rows = self.table(unit, "index", ("shard", "byte_offset", "byte_length", "crc32c"))
            for tar, (count, sha256) in unit.shards.items():
                with self.open_tar(tar) as stream:
                    data = stream.read()
                ours = rows.filter(pc.equal(rows["shard"], tar)).to_pylist()
                if (
                    len(ours) != count
                    or hashlib.sha256(data).hexdigest() != sha256
                    or not all(_fits(data, row) for row in ours)
                ):
                    return False
        except (NotFoundError, ShortObjectError):
            return False
        return True

    def _digest(self, path: str) -> str:
        digest = hashlib.sha256()
        with self._store.open_stream(path) as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def _read_checked(self, path: str) -> Any:
        """The values of a small file, or None where it is gone or damaged; what is damaged is removed."""
        for _ in range(_READS):
            try:
                data = self._store.read(path)
            except NotFoundError:
                return None
            digest, _, text = data.partition(b"\n")
            if hashlib.sha256(text).hexdigest().encode() == digest:
                return json.loads(text)
        self._store.delete([path])
        return None

    # What earlier steps found out

    def results(self, step: str) -> dict[int, list[Any]]:
        """The results of a step that units have stored, by unit."""
        prefix = f"{self._path}/{step}/u"
        found = {}
        for info in self._store.list(prefix):
            rows = self._read_checked(info.path)
            if rows is not None:
                found[int(info.path.removeprefix(prefix).partition(".")[0])] = list(rows)
        return found

    def result(self, step: str, unit: int, make: Callable[[], list[Any]]) -> list[Any]:
        """The result of a step for one unit: what another process has stored, or ours, stored."""
        path = f"{self._path}/{step}/u{unit:06d}.json"
        rows = self._read_checked(path)
        if rows is None:
            rows = json.loads(json.dumps(make()))
            with suppress(AlreadyExistsError):
                self._store.put_if_absent(path, _checked(rows))
        return list(rows)

    def forget_results(self, step: str, units: Iterable[int]) -> None:
        """Take the results of a step away, so that it is done again for these units."""
        self._store.delete([f"{self._path}/{step}/u{unit:06d}.json" for unit in units])

    # Shards

    def open_tar(self, tar: str) -> BinaryIO:
        """A staged tar, or the shard that an earlier, interrupted try made of it."""
        try:
            return self._store.open_stream(f"{self._path}/{tar}")
        except NotFoundError:
            for name in self._promoted():
                if self._store.read(f"{self._path}/promoted/{name}") == tar.encode():
                    return self._store.open_stream(name)
            raise

    def move_tar(self, tar: str, shard: str) -> None:
        """Give a staged tar its final name.

        Raises:
            NotFoundError: Neither the tar nor the shard is there.
        """
        self.note(shard, tar)
        try:
            self._store.move_if_absent(f"{self._path}/{tar}", shard)
        except (AlreadyExistsError, NotFoundError):
            self._store.stat(shard)  # an earlier try moved it; else this raises

    def put_shard(self, file: Path, shard: str, sha256: str) -> None:
        """Put a file out of a workplace under its final name, which follows from its content.

        Raises:
            StoreError: What came to lie there is not what was written.
        """
        self.note(shard)
        with suppress(AlreadyExistsError):  # the same bytes
            self._put(file, shard)
        if not self.is_local and self._digest(shard) != sha256:
            self._store.delete([shard])
            raise StoreError(f"{self._store.url}/{shard} does not hold what was written", hint="run the command again")

    def _put(self, file: Path, path: str) -> None:
        if self.is_local:
            self._store.move_if_absent(f"{self._path}/{_WORK}/{file.parent.name}/{file.name}", path)
        else:
            self._store.put_if_absent(path, file)

    def note(self, shard: str, origin: str = "") -> None:
        """Note a final name before a shard appears under it, so that a sweep finds it if the job never commits."""
        with suppress(AlreadyExistsError):
            self._store.put_if_absent(f"{self._path}/promoted/{shard}", origin.encode())

    def _promoted(self) -> list[str]:
        prefix = f"{self._path}/promoted/"
        return [info.path.removeprefix(prefix) for info in self._store.list(prefix)]

    def sweep(self, dataset: Dataset) -> None:
        """Remove the folder, and the shards that an interrupted try made and no index row names."""
        shards = self._promoted()
        self._store.delete(sorted(set(shards) - _named(dataset, shards)))
        self._store.delete([info.path for info in self._store.list(f"{self._path}/", hidden=True)])
        folder = self._store.local_path(self._path)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # another job stages there
                folder.parent.rmdir()


def _checked(values: Any) -> bytes:
    """Values as JSON behind a line with the checksum of it."""
    text = json.dumps(values).encode()
    return hashlib.sha256(text).hexdigest().encode() + b"\n" + text


def _fits(data: bytes, row: Mapping[str, int]) -> bool:
    image = data[row["byte_offset"] : row["byte_offset"] + row["byte_length"]]
    return len(image) == row["byte_length"] and google_crc32c.value(image) == row["crc32c"]


def sweep_jobs(dataset: Dataset) -> None:
    """Remove the staging folders of all jobs."""
    for job in sorted({info.path.split("/")[1] for info in dataset.store.list(f"{_ROOT}/")}):
        Staging(dataset.store, job).sweep(dataset)


def _named(dataset: Dataset, shards: Sequence[str]) -> set[str]:
    """Which of these shards the index names."""
    import pyarrow.dataset as ds

    from shards.dataset.query import ask_tables, scan

    table = dataset.table("index")
    if table is None or not shards:
        return set()
    # By partition alone: deltalake's DELETE writes files of a text type with which Arrow compares no other column.
    ours = ds.field("source").isin(sorted({shard_tags(shard)[0] for shard in shards}))

    def named() -> set[str]:
        rows = scan(table, dictionaries=["shard"])
        batches = rows.to_batches(columns=["shard"], filter=ours, batch_readahead=2, fragment_readahead=1)
        return {shard for batch in batches for shard in pc.unique(batch["shard"]).to_pylist()}

    return ask_tables(dataset.url, named) & set(shards)
