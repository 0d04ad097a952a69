"""The promote step: staged samples that stay become shards under their final, content-addressed names.

Per modality, in the order of units: a staged tar that lost nothing and is large enough is moved as it is; the others
are packed together, in order, into shards of about `shard_bytes`. The plan follows from the staged tables and the
resolution alone, so every engine makes the same bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ingest.engines.base import Engine, Task
from ingest.engines.local import LocalEngine
from ingest.job.report import Progress, Watcher
from ingest.staging.context import MapContext
from ingest.staging.folder import Staging
from ingest.staging.report import UnitReport
from ingest.staging.resolution import Resolution
from shards.dataset.shard_file import Block, ShardWriter, read_blocks, shard_path

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


def promote(
    engine: Engine,
    context: MapContext,
    staging: Staging,
    *,
    units: Sequence[UnitReport],
    packs: Sequence[Pack],
    tell: Watcher,
) -> dict[int, Promoted]:
    """Make the final shards of all packs."""
    promoted: dict[int, Promoted] = {}
    digests = {tar: sha256 for unit in units for tar, (_, sha256) in unit.shards.items()}
    mixed = [Task(index=pack.index, payload=pack) for pack in packs if not pack.whole]
    if len(mixed) <= 1:  # written sooner than a process starts
        engine = LocalEngine(0)
    for event in engine.run(write_pack, context, mixed):
        if event.done:
            promoted[event.index] = event.result
            tell(Progress(stage="promote", done=len(promoted), total=len(packs)))
    for pack in packs:
        if pack.whole:
            tar = pack.pieces[0].tar
            shard = shard_path(pack.source, pack.modality, digests[tar])
            staging.move_tar(tar, shard)
            promoted[pack.index] = Promoted(index=pack.index, shard=shard)
            tell(Progress(stage="promote", done=len(promoted), total=len(packs)))
    return promoted


def plan_packs(
    staging: Staging, context: MapContext, units: Sequence[UnitReport], resolution: Resolution
) -> list[Pack]:
    """Which staged rows go into which final shard."""
    target = context.settings.shard_bytes
    packs: list[Pack] = []
    current: dict[str, Pack] = {}

    def start(modality: str) -> Pack:
        pack = Pack(index=len(packs), source=context.spec.id, modality=modality)
        packs.append(pack)
        return pack

    for unit in units:
        for tar, modality, kept, sizes in _staged_tars(staging, unit, resolution):
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
    staging: Staging, unit: UnitReport, resolution: Resolution
) -> Iterator[tuple[str, str, list[int], list[int]]]:
    """Each staged tar of a unit: name, modality, the kept positions in it, and their image bytes."""
    if not unit.kept:
        return
    table = staging.table(unit, "index", ["shard", "modality", "shard_row", "byte_length"])
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
    staging = context.staging()
    with staging.workplace() as folder:
        places = array("q")
        with ShardWriter(folder / "shard.tar", durable=staging.is_local) as writer:
            for piece in pack.pieces:
                for block in _blocks(staging, piece):
                    beat(0)
                    placed = writer.add_block(block)
                    places.extend((placed.shard_row, placed.byte_offset, placed.byte_length, placed.crc32c))
            shard = writer.close()
        name = shard_path(pack.source, pack.modality, shard.sha256)
        staging.put_shard(shard.path, name, shard.sha256)
    return Promoted(index=pack.index, shard=name, places=places)


def _blocks(staging: Staging, piece: Piece) -> Iterator[Block]:
    wanted = set(piece.rows)
    with staging.open_tar(piece.tar) as stream:
        for row, block in enumerate(read_blocks(stream, name=piece.tar)):
            if row in wanted:
                yield block
