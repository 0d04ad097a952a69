"""Units in parts: the last units of a job are cut finer, so that no worker is idle while another has a whole one left.

Which units are cut, and how, depends on the number of workers; what comes of a unit does not. Its parts are staged by
themselves and joined in order, which gives the bytes that the unit would have given in one piece. Where that cannot be
(an image of one part is in an earlier one too, or what a part staged is gone or damaged) the unit is mapped as a whole.

A part costs about as much as two photographs, and to join a unit takes a twentieth of the time of mapping it. On object
storage, where parts would travel twice, units are mapped whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Final

from ingest.engines.base import Engine, Function, Task, TaskEvent
from ingest.job.list import in_one_pass
from ingest.job.unit_writer import UnitWriter
from ingest.raw.compact import Compact
from ingest.raw.items import RawItem, RejectError
from ingest.staging.context import MapContext
from ingest.staging.report import UnitReport
from ingest.staging.unit import Unit
from shards.errors import StoreError

_PARTS_PER_WORKER: Final = 4
_FILE_BYTES: Final = 32 << 10
"""What a file costs beside its bytes, in bytes."""
_LEAST_BYTES: Final = 4 << 20
"""What a part has at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parted:
    """A unit that was mapped in parts: its index, and the reports of the parts in order."""

    index: int
    parts: Sequence[UnitReport]


def run_in_parts(
    engine: Engine, map_unit: Function, context: MapContext, units: Sequence[Unit], reports: dict[int, UnitReport]
) -> Iterator[Collection[TaskEvent]]:
    """Map units, the last of them in parts, and add what comes of them to `reports`; yields what is running.

    Until they are joined, parts are in `reports` too, under numbers that no unit has.

    Raises:
        EngineError: A unit failed each time it was tried.
    """
    is_near = context.staging().is_local  # else parts would travel twice
    cut = cut_last(units, engine.num_workers if is_near else 0)
    first = 1 + max((*reports, *(unit.index for unit in units)), default=0)
    parts = [Task(index=first + at, payload=part) for at, part in enumerate(chain.from_iterable(cut.values()))]
    whole = _tasks(unit for unit in units if unit.index not in cut)
    yield from _run(engine, map_unit, context, [*whole, *parts], reports)
    done = (reports.pop(task.index) for task in parts)
    joins = [Task(index=index, payload=Parted(index=index, parts=list(islice(done, len(cut[index]))))) for index in cut]
    for event in engine.run(join_unit, context, joins) if joins else ():
        if event.done and event.result is not None:
            reports[event.index] = event.result
    yield from _run(engine, map_unit, context, _tasks(unit for unit in units if unit.index not in reports), reports)


def _tasks(units: Iterable[Unit]) -> list[Task]:
    return [Task(index=unit.index, payload=unit) for unit in units]


def _run(
    engine: Engine, map_unit: Function, context: MapContext, tasks: Sequence[Task], reports: dict[int, UnitReport]
) -> Iterator[Collection[TaskEvent]]:
    running: dict[int, TaskEvent] = {}
    for event in engine.run(map_unit, context, tasks) if tasks else ():
        running[event.index] = event
        if event.done:
            reports[event.index] = running.pop(event.index).result
        yield running.values()


def cut_last(units: Sequence[Unit], num_workers: int) -> dict[int, list[Unit]]:
    """The parts, by unit, of the units that are left over when each worker has had equally many.

    Nothing is cut where more than half of the workers have one of them: joining would cost what the others idle.
    """
    over = len(units) % num_workers if num_workers > 1 else 0
    over = 0 if 2 * over > num_workers else over
    cut = {unit.index: _parts_of(unit, -(-num_workers * _PARTS_PER_WORKER // over)) for unit in units[-over:] if over}
    return {index: parts for index, parts in cut.items() if len(parts) > 1}


def _parts_of(unit: Unit, count: int) -> list[Unit]:
    least = max(_LEAST_BYTES, sum(item.size + _FILE_BYTES for item in unit.items) // count)
    found: list[list[RawItem]] = [[]]
    size = 0
    for item in unit.items:
        if size >= least and not in_one_pass(found[-1][-1], item):
            found.append([])
            size = 0
        found[-1].append(item)
        size += item.size + _FILE_BYTES
    return [
        replace(unit, items=Compact(items), part=number, num_parts=len(found)) for number, items in enumerate(found)
    ]


def join_unit(
    context: MapContext, parted: Parted, beat: Callable[[int], None], skip: Mapping[int, str]
) -> UnitReport | None:
    """Make a unit's staged files of those of its parts (an engine's function).

    Returns:
        The unit's report, also stored as its completion marker; None where the unit is to be mapped as a whole.

    Raises:
        StoreError: What was made could not be stored.
    """
    del skip
    staging = context.staging()
    with staging.workplace() as folder:
        try:
            with UnitWriter(context, parted.index, folder, durable=staging.is_local) as writer:
                for number, part in enumerate(parted.parts):
                    beat(0)
                    writer.append(staging.part(parted.index, number, len(parted.parts)), part)
        except (RejectError, StoreError):
            return None
        report = writer.report()
        staging.publish(writer.files(), report)
    return report
