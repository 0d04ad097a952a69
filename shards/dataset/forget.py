"""The past of a Delta table taken away: its older versions can no longer be read, and nothing of them is left.

The version that is kept as the first one gets a checkpoint, which holds all that a reader needs: protocol, columns, the
transactions of all jobs, and the files. Then the log's entries up to it lose everything but who committed when: their
names must stay taken, since a writer that began long ago would else commit under one of them, where no reader looks.
An entry without protocol and columns makes no table, so every Delta reader says of an older version that it is not
there.

Order, for a kill at any moment: checkpoint, data files, log entries. What is left to do is told by the log until the
end.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from shards.dataset.table_files import add_actions
from shards.errors import NotFoundError, SampleIndexError, StoreError
from shards.files import json_object
from shards.store.calls import HINTS

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from shards.dataset.dataset import Dataset

_COPY: Final = "bring the file back from a copy"
_ENTRY: Final = re.compile(r"(\d{20})\.json")
_CHECKPOINT: Final = re.compile(r"(\d{20})\.checkpoint\b.*")
_LAST: Final = "_last_checkpoint"
_KEPT: Final = ("timestamp", "operation", "engineInfo")
"""What a commit keeps of what it says of itself, beside what we wrote there; a predicate names keys and hashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What only older versions of a table need.

    Attributes:
        name: Folder of the table.
        version: The first version that stays.
        live: Data files that it or a later version needs, relative to the table.
        old: Data files that older versions name, and these do not.
    """

    name: str
    version: int
    live: frozenset[str]
    old: frozenset[str]


def table_folders(dataset: Dataset) -> list[str]:
    """The folders of all Delta tables of a dataset."""
    found = set()
    for info in dataset.store.list():
        folder, inside, _ = info.path.partition("/_delta_log/")
        if inside:
            found.add(folder)
    return sorted(found)


def is_of_log(path: str) -> bool:
    """Whether an object of `_delta_log/` is an entry, a checkpoint, or the name of the newest one."""
    name = path.rpartition("/")[2]
    return name == _LAST or any(pattern.fullmatch(name) for pattern in (_ENTRY, _CHECKPOINT))


def past_of(dataset: Dataset, name: str, version: int) -> Past:
    """What only the versions before one need.

    Raises:
        SampleIndexError: There is no such version any more.
        StoreError: The storage failed.
    """
    table = dataset.table(name, version=version)
    assert table is not None
    live = {str(action["path"]) for action in add_actions(table)}
    old: set[str] = set()
    for number, entry in _entries(dataset, name):
        named = {unquote(line[kind]["path"]) for line in entry for kind in ("add", "remove") if kind in line}
        if number > version:
            live |= {unquote(line["add"]["path"]) for line in entry if "add" in line}
        else:
            old |= named
    for path in _checkpoints(dataset, name, before=version):
        old |= _named_by(dataset.store.read(path))
    return Past(name=name, version=version, live=frozenset(live), old=frozenset(old - live))


def make_first(dataset: Dataset, past: Past) -> None:
    """Write the checkpoint by which the version that stays can be read without those before it.

    Until it is known to be whole nothing points to it: a reader finds the newest checkpoint that is there by listing.

    Raises:
        StoreError: The storage failed, or what lies there now is not what was sent. The table can be read as before.
    """
    table = dataset.table(past.name, version=past.version)
    assert table is not None
    files = _sorted_actions(table)
    hint = f"{past.name}/_delta_log/{_LAST}"
    later = _hinted(dataset, hint)
    dataset.ask_log(past.name, table.create_checkpoint)
    dataset.store.delete([hint])  # deltalake has written it, and may have written damage
    path = f"{past.name}/_delta_log/{past.version:020d}.checkpoint.parquet"
    size, data = _without_removed(dataset.store.read(path))
    dataset.store.replace(path, data)
    table = dataset.table(past.name, version=past.version)
    if table is None or _sorted_actions(table) != files:
        dataset.store.delete([path])
        raise StoreError(f"{dataset.url}/{path} came to be damaged on its way", hint=HINTS["transient"])
    if later is None or later["version"] <= past.version:
        later = {"version": past.version, "size": size, "sizeInBytes": len(data)}
    dataset.store.replace(hint, json.dumps(later).encode())


def _sorted_actions(table: DeltaTable) -> list[dict[str, Any]]:
    return sorted(add_actions(table), key=lambda action: str(action["path"]))


def _hinted(dataset: Dataset, path: str) -> dict[str, Any] | None:
    """What the log says of its newest checkpoint; None where it has none."""
    try:
        data = dataset.store.read(path)
    except NotFoundError:
        return None
    return json_object(data, where=f"{dataset.url}/{path}", error=SampleIndexError, hint=_COPY)


def forget_log(dataset: Dataset, past: Past) -> int:
    """Take all but who committed when out of the log's entries up to the first version that stays.

    Returns:
        Entries that lost something.
    """
    num = 0
    dataset.store.delete(list(_checkpoints(dataset, past.name, before=past.version)))
    for number, entry in _entries(dataset, past.name):
        kept = [{"commitInfo": _plain(line["commitInfo"])} for line in entry if "commitInfo" in line]
        if number <= past.version and kept != entry:
            text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in kept)
            dataset.store.replace(f"{past.name}/_delta_log/{number:020d}.json", text.encode())
            num += 1
    return num


def _plain(info: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in info.items() if key in _KEPT or key.startswith("biovfm.")}


def _entries(dataset: Dataset, name: str) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    for info in list(dataset.store.list(f"{name}/_delta_log/")):
        match = _ENTRY.fullmatch(info.path.rpartition("/")[2])
        if match:
            where = f"{dataset.url}/{info.path}"
            lines = dataset.store.read(info.path).splitlines()
            yield (
                int(match[1]),
                [json_object(line, where=where, error=SampleIndexError, hint=_COPY) for line in lines if line.strip()],
            )


def _checkpoints(dataset: Dataset, name: str, *, before: int) -> Iterator[str]:
    for info in list(dataset.store.list(f"{name}/_delta_log/")):
        match = _CHECKPOINT.fullmatch(info.path.rpartition("/")[2])
        if match and int(match[1]) < before:
            yield info.path


def _named_by(data: bytes) -> set[str]:
    """The data files that a checkpoint names."""
    import pyarrow.parquet as pq

    rows = pq.read_table(io.BytesIO(data), columns=["add.path", "remove.path"]).to_pylist()
    return {unquote(one["path"]) for row in rows for one in row.values() if one and one["path"]}


def _without_removed(data: bytes) -> tuple[int, bytes]:
    """A checkpoint without what it says of files that are gone; its rows, and the file."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    kept = table.filter(pc.is_null(table["remove"])) if "remove" in table.schema.names else table
    sink = pa.BufferOutputStream()
    pq.write_table(kept, sink, compression="zstd", write_statistics=False)
    return len(kept), sink.getvalue().to_pybytes()


def first_version(dataset: Dataset, name: str, names: Sequence[str]) -> int | None:
    """The version of a table that the last of some jobs made; None where none of them did."""
    found = [int(entry["version"]) for entry in dataset.commits(name) if entry.get("biovfm.job") in set(names)]
    return max(found, default=None)
