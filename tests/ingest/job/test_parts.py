"""Units in parts: what comes of a unit does not depend on how it was cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ingest.engines.base import Function, Task, TaskEvent
from ingest.engines.local import LocalEngine
from ingest.job import parts
from ingest.job.parts import Parted, cut_last, join_unit
from ingest.job.run import run_job
from ingest.job.unit_writer import UnitWriter
from ingest.picture.encoding import Encoding
from ingest.raw.items import RawItem
from ingest.settings import IngestSettings
from ingest.staging.context import MapContext
from ingest.staging.unit import Unit
from tests.ingest.material import encoded, photo, public_spec, shard_bytes, tables, write_folder

SETTINGS = IngestSettings(dedup={"near": False}, shard_bytes=30_000)


class Many(LocalEngine):
    """Says that it runs five tasks at a time, and notes what it runs."""

    num_workers = 5

    def __init__(self, before: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(0)
        self.ran: list[tuple[str, int]] = []
        self._before = before

    def run(self, function: Function, context: Any, tasks: Sequence[Task]) -> Iterator[TaskEvent]:
        self.ran.append((function.__name__, len(tasks)))
        self._before(function.__name__)
        return super().run(function, context, tasks)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_LEAST_BYTES", 1)


def write_raw(folder: Path, **more: bytes) -> str:
    """Thirteen files, and more."""
    files = {f"{n:02d}.png": encoded(photo(n)) for n in range(11)}
    files |= {"04 broken.png": files["04.png"][:200], "07 small.png": encoded(photo(9, height=8, width=8))}
    return str(
        write_folder(folder / "raw", files | {name.replace("_", " ") + ".png": data for name, data in more.items()})
    )


def run(raw: str, dataset: Path, engine: LocalEngine, unit_files: int = 13) -> int:
    settings = SETTINGS.model_copy(update={"unit_files": unit_files})
    return run_job(public_spec(), raw, str(dataset), settings=settings, engine=engine).units


def garble(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-600] + b"x" * 600)


def same(one: Path, other: Path) -> bool:
    is_same = repr(tables(one)) == repr(tables(other)) and shard_bytes(one) == shard_bytes(other)  # no NaN is equal
    return is_same and not (other / "staging").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("unit_files", "units", "cut"), [(13, 1, 1), (7, 2, 2), (2, 7, 1)])
def test_a_job_whose_last_units_are_mapped_in_parts_makes_the_same_bytes(
    unit_files: int, units: int, cut: int, tmp_path: Path
) -> None:
    raw, engine = write_raw(tmp_path), Many()
    run(raw, tmp_path / "whole", LocalEngine(0), unit_files)
    assert run(raw, tmp_path / "parts", engine, unit_files) == units
    assert engine.ran[1] == ("join_unit", cut)
    assert engine.ran[0][1] > units
    assert len(shard_bytes(tmp_path / "whole")) > 1
    assert same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_a_unit_with_an_image_in_two_parts_is_mapped_as_a_whole(tmp_path: Path) -> None:
    raw, engine = write_raw(tmp_path, z_copy=encoded(photo(1))), Many()
    run(raw, tmp_path / "whole", LocalEngine(0), 20)
    run(raw, tmp_path / "parts", engine, 20)
    assert [name for name, _ in engine.ran][:3] == ["map_unit", "join_unit", "map_unit"]
    assert [row["reason"] for row in tables(tmp_path / "parts")["rejects"]].count("duplicate") == 1
    assert same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "harm"), [("*.tar", garble), ("*.index.parquet", Path.unlink), ("*.raw_files.parquet", garble)]
)
def test_a_unit_with_a_damaged_part_is_mapped_as_a_whole(
    pattern: str, harm: Callable[[Path], None], tmp_path: Path
) -> None:
    def before(name: str) -> None:
        if name == "join_unit":
            harm(min((tmp_path / "parts" / "staging").glob(f"*/parts/*/{pattern}")))

    raw, engine = write_raw(tmp_path), Many(before)
    run(raw, tmp_path / "whole", LocalEngine(0))
    run(raw, tmp_path / "parts", engine)
    assert [name for name, _ in engine.ran][:3] == ["map_unit", "join_unit", "map_unit"]
    assert same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_a_job_that_is_stopped_between_the_parts_and_their_joining_goes_on(tmp_path: Path) -> None:
    def stop(name: str) -> None:
        if name == "join_unit":
            raise KeyboardInterrupt

    raw = write_raw(tmp_path)
    run(raw, tmp_path / "whole", LocalEngine(0))
    with pytest.raises(KeyboardInterrupt):
        run(raw, tmp_path / "parts", Many(stop))
    run(raw, tmp_path / "parts", LocalEngine(0))
    assert same(tmp_path / "whole", tmp_path / "parts")


def context_of(folder: Path) -> MapContext:
    return MapContext(
        spec=public_spec(),
        settings=SETTINGS,
        encoding=Encoding(),
        raw_url=str(folder),
        dataset_url=str(folder / "d"),
        job_id="job",
    )


def test_a_joined_report_counts_what_its_parts_count(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    reports = []
    for number, paths in enumerate([("a.png", "b.png"), ("c.png", "d.png", "e.png")]):
        staging = context.staging().part(4, number, 2)
        with staging.workplace() as folder:
            with UnitWriter(context, 4, folder, durable=False) as writer:
                for path in paths:
                    writer.begin(RawItem(path=path))
                    writer.reject("too_small" if path < "d" else "blank")
                    writer.withhold() if path == "b.png" else writer.end()
            reports.append(writer.report())
            staging.publish(writer.files(), reports[-1])
    joined = join_unit(context, Parted(index=4, parts=reports), lambda _: None, {})
    assert joined is not None
    assert (joined.index, joined.files, joined.pending, joined.items, joined.kept) == (4, 4, 1, 4, 0)
    assert joined.rejected == {"blank": 2, "too_small": 2}
    assert context.staging().reports() == {4: joined}
    assert context.staging().is_sound(joined)


def test_what_is_left_over_is_cut_and_never_inside_a_forward_pass() -> None:
    def unit(index: int, kind: str) -> Unit:
        path = "a.tar.gz" if kind == "stream" else ""
        return Unit(
            index=index,
            items=[RawItem(path=path or f"{n}.png", member=path and f"{n}.png", kind=kind, size=n) for n in range(40)],
        )

    units = [unit(0, "file"), unit(1, "file"), unit(2, "file"), unit(3, "stream"), unit(4, "file")]
    assert cut_last(units, 3) == {}  # two of three have something to do
    cut = cut_last(units, 4)
    assert list(cut) == [4]
    assert [part.part for part in cut[4]] == list(range(cut[4][0].num_parts))
    assert [item for part in cut[4] for item in part.items] == units[4].items
    assert 12 <= len(cut[4]) <= 16
    assert cut_last(units[:3], 3) == cut_last(units, 1) == cut_last(units, 0) == cut_last([], 3) == {}


def test_a_small_unit_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_LEAST_BYTES", 4 << 20)
    items = [RawItem(path=f"{n}.png", size=1 << 20) for n in range(3)]
    assert cut_last([Unit(index=0, items=items)], 2) == {}
