"""The promote step: staged samples that stay become shards under their final, content-addressed names.

Per modality, in the order of units: a staged tar that lost nothing and is large enough is moved as it is; the others
are packed together, in order, into shards of about `shard_bytes`. The plan follows from the staged tables and the
resolution alone, so every engine makes the same bytes.
"""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

import pyarrow.compute as pc

from ingest.staging.context import MapContext, UnitReport
from ingest.staging.folder import is_local, put_file, read_staged, workplace
from ingest.staging.resolution import Resolution
from shards.dataset.dataset import Dataset
from shards.dataset.shard_file import Block, ShardWriter, read_blocks, shard_path, shard_tags
from shards.errors import AlreadyExistsError, NotFoundError
from shards.store import Store, open_store

PLACE = ("shard_row", "byte_offset", "byte_length", "crc32c")


@dataclass(slots=True, kw_only=True)
class Piece:
    """Rows of one staged tar: `rows` are positions in the tar, ascending."""

    tar: str
    rows: array[int] = field(default_factory=lambda: array("i"))


@dataclass(slots=True, kw_only=True)
class Pack:
    """The pieces of one final shard.

    Attributes:
        index: Names the pack in the job.
        source: Source id.
        modality: The samples' modality.
        pieces: What to put in, in order.
        whole: Whether it is one staged tar, unchanged.
        size: Image bytes.
    """

    index: int
    source: str
    modality: str
    pieces: list[Piece] = field(default_factory=list)
    whole: bool = False
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """A final shard and where its samples lie.

    Attributes:
        index: The pack.
        shard: Final path.
        places: Four numbers a sample, as `PLACE` has them, in the order of the pack's pieces and rows; None where
            the samples lie as they lay in the staged tar.
    """

    index: int
    shard: str
    places: array[int] | None = None


def plan_packs(store: Store, context: MapContext, units: Sequence[UnitReport], resolution: Resolution) -> list[Pack]:
    """Which staged rows go into which final shard."""
    target = context.settings.shard_bytes
    packs: list[Pack] = []
    current: dict[str, Pack] = {}

    def start(modality: str) -> Pack:
        pack = Pack(index=len(packs), source=context.spec.id, modality=modality)
        packs.append(pack)
        return pack

    for unit in units:
        for tar, modality, kept, sizes in _staged_tars(store, context.staging, unit, resolution):
            if len(kept) == unit.shards[tar][0] and sum(sizes) >= target // 2:
                pack = start(modality)
                pack.pieces, pack.size = [Piece(tar=tar, rows=array("i", kept))], sum(sizes)
                continue
            for row, size in zip(kept, sizes, strict=True):
                pack = current.get(modality) or start(modality)
                current[modality] = pack
                if not pack.pieces or pack.pieces[-1].tar != tar:
                    pack.pieces.append(Piece(tar=tar))
                pack.pieces[-1].rows.append(row)
                pack.size += size
                if pack.size >= target:
                    del current[modality]
    counts = {tar: count for unit in units for tar, (count, _) in unit.shards.items()}
    for pack in packs:
        only = pack.pieces[0]
        pack.whole = len(pack.pieces) == 1 and len(only.rows) == counts[only.tar]
    return packs


def _staged_tars(
    store: Store, staging: str, unit: UnitReport, resolution: Resolution
) -> Iterator[tuple[str, str, list[int], list[int]]]:
    """Each staged tar of a unit: name, modality, the kept positions in it, and their image bytes."""
    if not unit.kept:
        return
    table = read_staged(store, staging, unit.index, "samples", ["shard", "modality", "shard_row", "byte_length"])
    dropped = resolution.dropped(unit.index)
    found: dict[str, tuple[str, list[int], list[int]]] = {}
    columns = (table[name].to_pylist() for name in ("shard", "modality", "shard_row", "byte_length"))
    for row, (tar, modality, position, size) in enumerate(zip(*columns, strict=True)):
        entry = found.setdefault(tar, (modality, [], []))
        if row not in dropped:
            entry[1].append(position)
            entry[2].append(size)
    for tar in unit.shards:
        modality, kept, sizes = found[tar]
        if kept:
            yield tar, modality, kept, sizes


def write_pack(context: MapContext, pack: Pack, beat: Callable[[int], None], skip: Mapping[int, str]) -> Promoted:
    """Make one final shard out of its pieces and put it under its final name (an engine's function)."""
    del skip
    beat(0)
    store = open_store(context.dataset_url)
    with workplace(store, context.staging) as folder:
        places = array("q")
        with ShardWriter(folder / "shard.tar", durable=is_local(store, context.staging)) as writer:
            for piece in pack.pieces:
                for block in _blocks(store, context, piece):
                    placed = writer.add_block(block)
                    places.extend((placed.shard_row, placed.byte_offset, placed.byte_length, placed.crc32c))
            shard = writer.close()
        name = shard_path(pack.source, pack.modality, shard.sha256)
        _mark(store, context, name)
        with suppress(AlreadyExistsError):  # named after its content: the same bytes
            put_file(store, context.staging, shard.path, name)
    return Promoted(index=pack.index, shard=name, places=places)


def move_pack(store: Store, context: MapContext, pack: Pack, sha256: str) -> Promoted:
    """Give a staged tar that lost nothing its final name; its samples lie where they lay."""
    tar = pack.pieces[0].tar
    name = shard_path(pack.source, pack.modality, sha256)
    _mark(store, context, name, origin=tar)
    try:
        store.move_if_absent(f"{context.staging}/{tar}", name)
    except (AlreadyExistsError, NotFoundError):
        store.stat(name)  # an earlier try moved it; else this raises
    return Promoted(index=pack.index, shard=name)


def _blocks(store: Store, context: MapContext, piece: Piece) -> Iterator[Block]:
    wanted = set(piece.rows)
    with _open_staged(store, context, piece.tar) as stream:
        for row, block in enumerate(read_blocks(stream, name=piece.tar)):
            if row in wanted:
                yield block


def _open_staged(store: Store, context: MapContext, tar: str) -> BinaryIO:
    """A staged tar, or the shard that an earlier, interrupted try made of it."""
    try:
        return store.open_stream(f"{context.staging}/{tar}")
    except NotFoundError:
        for name in promoted_names(store, context.staging):
            if store.read(f"{context.staging}/promoted/{name}") == tar.encode():
                return store.open_stream(name)
        raise


def _mark(store: Store, context: MapContext, shard: str, origin: str = "") -> None:
    """Note the name before the shard appears under it, so that a sweep finds it if the job never commits."""
    with suppress(AlreadyExistsError):
        store.put_if_absent(f"{context.staging}/promoted/{shard}", origin.encode())


def promoted_names(store: Store, staging: str) -> list[str]:
    """All final names that this job has ever used."""
    prefix = f"{staging}/promoted/"
    return [info.path.removeprefix(prefix) for info in store.list(prefix)]


def sweep(dataset: Dataset, staging: str) -> None:
    """Remove a job's staging folder, and the shards that an interrupted try made and no index row names."""
    store = dataset.store
    names = promoted_names(store, staging)
    store.delete(sorted(set(names) - _named(dataset, names)))
    store.delete([info.path for info in store.list(f"{staging}/", hidden=True)])  # uploads that died included
    folder = store.local_path(staging)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another job stages there
            folder.parent.rmdir()


def sweep_jobs(dataset: Dataset) -> None:
    """Remove the staging folders of all jobs."""
    for job in sorted({info.path.split("/")[1] for info in dataset.store.list("staging/")}):
        sweep(dataset, f"staging/{job}")


def _named(dataset: Dataset, shards: Sequence[str]) -> set[str]:
    """Which of these shards the index names."""
    import pyarrow.dataset as ds

    from shards.dataset.query import scan

    table = dataset.table("index")
    if table is None or not shards:
        return set()
    # By partition alone: deltalake's DELETE writes files of a text type with which Arrow compares no other column.
    ours = ds.field("source").isin(sorted({shard_tags(shard)[0] for shard in shards}))
    rows = scan(table, dictionaries=["shard"])
    batches = rows.to_batches(columns=["shard"], filter=ours, batch_readahead=2, fragment_readahead=1)
    return {shard for batch in batches for shard in pc.unique(batch["shard"]).to_pylist()} & set(shards)
