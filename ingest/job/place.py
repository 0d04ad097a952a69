"""DICOM series become volumes: which slice of which stack every file is, from geometry.

A series' files may lie in any order, in several archives and units of work. So their headers are read first (64 KiB
of each file at most; in compressed tars that is one more pass), in parallel, and everything else follows from them:
the units stay as they are cut, and each file is mapped on its own, knowing its place. What that adds to reading the
files one by one:

- The slices of a stack are one group where the source groups by file, so that neighbours are never near duplicates.
- `raw_frame` is the slice's number along the stack's normal (`ImagePositionPatient` projected on it; `InstanceNumber`
  for CT, MR and PET without geometry). Time points and echoes are `t0000z0012` …, and so are copies from the second on.
- Orientations, sizes and bit depths that differ (localizers) are stacks of their own: `s00z0003`.
- A stack has one intensity range where its files bring no window, so that noise slices are empty slices, as in
  volumes of other formats; it is estimated from 16 slices, evenly spread.
- Unequal pixel spacing is stretched; the source's `every` and `max_frames` count slices of the stack.
- Missing slices, repeated positions and mixed stacks are counted in the job's report.

Slices are cut as they were acquired, whatever `axis` says. Radiographs and stills that share a series but have no
geometry are no volume and stay single images.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ingest.engines.base import Engine, Task
from ingest.engines.local import LocalEngine
from ingest.privacy.pseudonyms import Pseudonyms
from ingest.privacy.silence import silence
from ingest.raw.archive_reading import open_items
from ingest.raw.compact import Compact
from ingest.raw.faults import fault_of
from ingest.raw.items import Place, RawItem
from ingest.raw.root import RawRoot
from ingest.readers import ReadOptions, reader_name
from ingest.readers.base import chosen_frames, percentile_range
from ingest.readers.dicom.header import SliceHeader, normal_of, read_header
from ingest.source.layout import FrameRule
from ingest.staging.context import MapContext
from ingest.staging.unit import Unit
from shards.dataset.dataset import Dataset
from shards.errors import MachineError, UnavailableError

BLOCK_BYTES: Final = 64 << 10
RANGE_SLICES: Final = 16
RANGE_VALUES: Final = 1 << 14
"""Values of each of those slices that are looked at."""

FEW_FILES: Final = 512
"""So many headers are read in this process: sooner than others would have started, and no native code has a part."""

_SAME_PLACE_MM: Final = 0.01
_SAME_DIRECTION: Final = 0.9995

Beat = Callable[[int], None]
Spot = tuple[int, int]
"""Unit and position in it."""

_UNKNOWN: Final = Place(series="", frame="", unknown=True)
_UNREAD_RANGE: Final = (None, None)
"""The ends of a stack's range where a file that tells them cannot be read now."""


@dataclass(slots=True, kw_only=True)
class Stack:
    """Slices of one series that lie parallel.

    Attributes:
        series: Keyed hash of the series.
        number: Which stack of the series; -1 where it is the only one.
        slices: Each file with its place along the stack and its rank among the files there.
    """

    series: str
    number: int
    slices: list[tuple[Spot, SliceHeader, int, int]] = field(default_factory=list)

    @property
    def num_positions(self) -> int:
        """Different places along the stack."""
        return 1 + max(z for *_, z, _ in self.slices)

    @property
    def num_times(self) -> int:
        """Files at the most crowded place."""
        return 1 + max(t for *_, t in self.slices)

    @property
    def is_four_dimensional(self) -> bool:
        """Whether every place holds equally many files, and several."""
        return self.num_times > 1 and len(self.slices) == self.num_times * self.num_positions


def place_series(
    engine: Engine, context: MapContext, units: Sequence[Unit], *, first: int = 0
) -> tuple[list[Unit], Mapping[str, int]]:
    """Tell every DICOM file of a series its place.

    Args:
        engine: Reads the headers.
        context: The job.
        units: Its units.
        first: The unit to begin with, where several processes share the job: what one has read, all find in the
            staging folder.

    Returns:
        The units with places, and counts: `series`, `volumes`, `slices`, `mixed_series`, `repeated_positions`,
        `missing_slices`.
    """
    rules = context.spec.layout.rules
    if not any(rule.reader in ("auto", "list", "dicom") for rule in rules):
        return list(units), {}
    wanted = [unit for unit in units if any(_is_dicom(context, item) for item in unit.items)]
    wanted = [unit for unit in wanted if unit.index >= first] + [unit for unit in wanted if unit.index < first]
    few = sum(len(unit.items) for unit in wanted) <= FEW_FILES
    scanner = LocalEngine(0) if few else engine
    rows = _cached(scanner, context, scan_unit, "headers", [Task(index=u.index, payload=u) for u in wanted])
    read = [((unit, position), values) for unit in sorted(rows) for position, values in rows[unit]]
    unread = {spot: _UNKNOWN for spot, values in read if values is None}
    stacks = list(stacks_of((spot, _header(values)) for spot, values in read if values is not None))
    if not stacks and not unread:
        return list(units), {}
    tasks = _range_tasks(stacks, units, context)
    ranges = _cached(engine, context, range_unit, "ranges", tasks)
    by_stack = {number: (low, high) for found in ranges.values() for number, low, high in found}
    places: dict[Spot, Place] = unread
    at = {unit.index: unit for unit in units}
    for number, stack in enumerate(stacks):
        if by_stack.get(number) == _UNREAD_RANGE:
            places |= {spot: _UNKNOWN for spot, *_ in stack.slices}
            continue
        unit, position = stack.slices[0][0]
        rule = rules[at[unit].items[position].part if len(rules) > 1 else 0]
        places |= _places(stack, rule.frames, by_stack.get(number, (math.nan, math.nan)))
    return [_placed(unit, places) for unit in units], _counts(stacks)


def forget_unread(dataset: Dataset, context: MapContext) -> None:
    """Take away what an earlier run staged beside DICOM files that it could not read: places hang on all of a series.

    What is staged stays where a table has rows of the job already. No other process may work on the job.
    """
    staging = context.staging()
    headers = {unit: any(values is None for _, values in rows) for unit, rows in staging.results("headers").items()}
    ranges = {unit: any(low is None for _, low, _ in rows) for unit, rows in staging.results("ranges").items()}
    if not any([*headers.values(), *ranges.values()]) or dataset.has_begun(context.job_id):
        return
    staging.forget_results("headers", [unit for unit, is_unread in headers.items() if is_unread])
    staging.forget_results("ranges", ranges)
    staging.forget(staging.reports())


def _is_dicom(context: MapContext, item: RawItem) -> bool:
    if item.kind == "reject":
        return False
    return reader_name(context.spec.layout.rules[item.part].reader, item.name) == "dicom"


def _placed(unit: Unit, places: Mapping[Spot, Place]) -> Unit:
    if not any((unit.index, position) in places for position in range(len(unit.items))):
        return unit
    items = (replace(item, place=places.get((unit.index, p))) for p, item in enumerate(unit.items))
    return replace(unit, items=Compact(items))


def _cached(
    engine: Engine, context: MapContext, function: Any, name: str, tasks: Sequence[Task]
) -> dict[int, list[Any]]:
    """The tasks' results, those of earlier runs out of the staging folder."""
    wanted = {task.index for task in tasks}
    found = {index: rows for index, rows in context.staging().results(name).items() if index in wanted}
    left = [task for task in tasks if task.index not in found]
    for event in engine.run(function, context, left) if left else ():
        if event.done:
            found[event.index] = event.result
    return found


def scan_unit(context: MapContext, unit: Unit, beat: Beat, skip: Mapping[int, str]) -> list[Any]:
    """Read the headers of a unit's DICOM files (an engine's function).

    Returns:
        Rows `[position, header]`; the header is None where the file cannot be read now.
    """
    return context.staging().result("headers", unit.index, lambda: list(_scan(context, unit, beat, skip)))


def _scan(context: MapContext, unit: Unit, beat: Beat, skip: Mapping[int, str]) -> Iterator[list[Any]]:
    root = RawRoot(context.raw_url, block_bytes=BLOCK_BYTES)
    names = Pseudonyms(context.spec, context.settings)
    with silence():
        for position, (item, raw) in enumerate(open_items(root, list(unit.items), context.settings.limits)):
            beat(position)
            if position in skip or not _is_dicom(context, item):
                continue
            try:
                header = read_header(raw)
            except UnavailableError:
                yield [position, None]
                continue
            if header is not None:
                header = replace(header, series=names.group_id(f"series\0{header.series}"))
                yield [position, [getattr(header, name) for name in SliceHeader.__dataclass_fields__]]


def _header(values: Sequence[Any]) -> SliceHeader:
    plain: list[Any] = [tuple(value) if isinstance(value, list) else value for value in values]
    return SliceHeader(**dict(zip(SliceHeader.__dataclass_fields__, plain, strict=True)))


def stacks_of(headers: Iterable[tuple[Spot, SliceHeader]]) -> Iterator[Stack]:
    """The stacks of all series with more than one file, in the order of their first files.

    Args:
        headers: Files in the order of the listing.
    """
    series: dict[str, list[tuple[Spot, SliceHeader]]] = {}
    for spot, header in headers:
        series.setdefault(header.series, []).append((spot, header))
    for name, files in series.items():
        parallel = _parallel(files)
        for number, slices in enumerate(parallel):
            stack = Stack(series=name, number=number if len(parallel) > 1 else -1)
            _sort_into(stack, slices)
            if len(files) > 1:
                yield stack


def _parallel(files: Sequence[tuple[Spot, SliceHeader]]) -> list[list[tuple[Spot, SliceHeader]]]:
    """Files of a series by layout and direction; what is no slice of anything is left out."""
    found: list[tuple[tuple[Any, ...], Any, list[tuple[Spot, SliceHeader]]]] = []
    for spot, header in files:
        direction = header.orientation if header.position and normal_of(header.orientation) else ()
        if not direction and not header.tomographic:
            continue
        for layout, other, members in found:
            if layout == header.layout and _same_direction(other, direction):
                members.append((spot, header))
                break
        else:
            found.append((header.layout, direction, [(spot, header)]))
    return [members for *_, members in found]


def _same_direction(first: Sequence[float], second: Sequence[float]) -> bool:
    if not first or not second:
        return not first and not second
    a, b = np.asarray(first).reshape(2, 3), np.asarray(second).reshape(2, 3)
    return bool((np.sum(a * b, axis=1) > _SAME_DIRECTION).all())


def _sort_into(stack: Stack, files: Sequence[tuple[Spot, SliceHeader]]) -> None:
    """Order the files along the normal, files at one place by their numbers."""
    ways = {spot: _along(header) for spot, header in files}
    ordered = sorted(files, key=lambda file: (ways[file[0]], file[0]))
    z, start = -1, -math.inf
    at_place: list[tuple[Spot, SliceHeader]] = []

    def settle() -> None:
        at_place.sort(key=lambda file: (file[1].order, file[0]))
        stack.slices += [(spot, header, z, t) for t, (spot, header) in enumerate(at_place)]
        at_place.clear()

    for spot, header in ordered:
        if ways[spot] - start >= _SAME_PLACE_MM:
            settle()
            z, start = z + 1, ways[spot]
        at_place.append((spot, header))
    settle()


def _along(header: SliceHeader) -> float:
    normal = normal_of(header.orientation) if header.position else None
    if normal is None:
        return float(header.instance)
    return float(np.dot(normal, header.position))


def _places(stack: Stack, rule: FrameRule, ends: tuple[float, float]) -> dict[Spot, Place]:
    taken_z = set(chosen_frames(stack.num_positions, rule))
    taken_t = set(chosen_frames(stack.num_times, rule))
    places = {}
    for spot, header, z, t in stack.slices:
        frame = f"z{z:04d}"
        frame = f"t{t:04d}{frame}" if t > 0 or stack.is_four_dimensional else frame
        places[spot] = Place(
            series=stack.series,
            frame=f"s{stack.number:02d}{frame}" if stack.number >= 0 else frame,
            alone=len(stack.slices) == 1,
            taken=z in taken_z and t in taken_t,
            spacing=header.spacing,
            low=ends[0],
            high=ends[1],
        )
    return places


def _counts(stacks: Sequence[Stack]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    names = ("series", "volumes", "slices", "mixed_series", "repeated_positions", "missing_slices")
    counts.update(dict.fromkeys(names, 0))
    counts["series"] = len({stack.series for stack in stacks})
    counts["mixed_series"] = len({stack.series for stack in stacks if stack.number >= 0})
    for stack in stacks:
        counts["volumes"] += stack.num_positions > 1
        counts["slices"] += len(stack.slices)
        counts["repeated_positions"] += len({z for *_, z, t in stack.slices if t > 0})
        counts["missing_slices"] += missing_slices(stack)
    return dict(counts)


def missing_slices(stack: Stack) -> int:
    """How many slices the gaps of a stack would hold, by its median step."""
    ways = np.array(sorted({z: _along(header) for _, header, z, _ in stack.slices}.values()))
    steps = np.diff(ways)
    if len(steps) < 2:
        return 0
    step = float(np.median(steps))
    gaps = steps[steps > 1.5 * step]
    return int((np.round(gaps / step) - 1).sum())


def _range_tasks(stacks: Sequence[Stack], units: Sequence[Unit], context: MapContext) -> list[Task]:
    """For each unit in which such a stack begins: sampled files of the stacks that bring no window."""
    if all(rule.window is not None for rule in context.spec.layout.rules):
        return []
    at = {unit.index: unit for unit in units}
    payloads: dict[int, list[tuple[Spot, int, RawItem]]] = {}
    for number, stack in enumerate(stacks):
        without = [spot for spot, header, *_ in stack.slices if not header.windowed]
        if len(stack.slices) < 2 or not without:
            continue
        count = min(RANGE_SLICES, len(without))
        chosen = sorted(without[int((i + 0.5) * len(without) / count)] for i in range(count))
        samples = [(spot, number, at[spot[0]].items[spot[1]]) for spot in chosen]
        payloads.setdefault(chosen[0][0], []).extend(samples)
    return [
        Task(index=unit, payload=(unit, tuple((number, item) for _, number, item in sorted(samples, key=_first))))
        for unit, samples in sorted(payloads.items())
    ]


def _first(sample: tuple[Spot, int, RawItem]) -> Spot:
    return sample[0]


def range_unit(
    context: MapContext, payload: tuple[int, Sequence[tuple[int, RawItem]]], beat: Beat, skip: Mapping[int, str]
) -> list[Any]:
    """Estimate the intensity ranges of stacks (an engine's function).

    Returns:
        Rows `[stack, low, high]`; both are None where a file of the sample cannot be read now.
    """
    unit, samples = payload
    return context.staging().result("ranges", unit, lambda: list(_ranges(context, samples, beat, skip)))


def _ranges(
    context: MapContext, samples: Sequence[tuple[int, RawItem]], beat: Beat, skip: Mapping[int, str]
) -> Iterator[list[Any]]:
    from ingest.readers.dicom.read import gray_values

    options = ReadOptions(limits=context.settings.limits)
    values: dict[int, list[NDArray[Any]]] = {}
    unread: set[int] = set()
    files = open_items(RawRoot(context.raw_url), [item for _, item in samples], context.settings.limits)
    with silence():
        for position, (_, raw) in enumerate(files):
            beat(position)
            if position in skip:
                continue
            try:
                found = gray_values(raw, options).ravel()
            except Exception as error:  # a broken slice is the map step's to report
                fault = fault_of(error)
                if isinstance(fault, MachineError):
                    raise fault from error
                if fault is not None:
                    unread.add(samples[position][0])
                continue
            values.setdefault(samples[position][0], []).append(found[:: (found.size // RANGE_VALUES) | 1])
    for number in sorted(unread):
        yield [number, *_UNREAD_RANGE]
    for number, parts in sorted(values.items()):
        if number in unread:
            continue
        yield [number, *percentile_range(np.concatenate([part.astype(np.float64) for part in parts]))]
