"""How fast ingest is, against the bare loop of the same libraries, and how much memory it takes.

    python -m infra.bench.ingest photographs|photographs-native|dicom|nifti [COUNT] [--trials 3] [--work FOLDER]
    python -m infra.bench.ingest folder FOLDER MODALITY     any folder, end to end
    python -m infra.bench.ingest memory [COUNT …]           peak memory for so many images

`photographs` are JPEGs of 1 megapixel (`-native`: the dataset's resampler is native), `dicom` uncompressed radiographs
of 1 megapixel, `nifti` compressed volumes of 512 × 512 × 96. The bare loop (`ingest_loops.py`) runs on as many
processes, started and warm before its clock starts; the clock of ingest covers all of `run_job`: starting its
processes, listing, checks, hashes, tars, tables, duplicate search and commit. The two take turns. `share_of_bare_cpu`
is the same of processor seconds, which other programs on the machine disturb less. `beyond_map_seconds` is what of
that is not the map step: it does not grow with the number of images, so that longer jobs come out better. With
`--work`, raw data are kept there and used again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from infra.bench.ingest_loops import LOOPS, Loop
from ingest.engines.memory import arrow_from_c
from ingest.job.run import Progress, run_job
from ingest.source.spec import from_flags

WORKERS = 2


def side_by_side(name: str, count: int, trials: int, work: Path) -> dict[str, Any]:
    """Images a second of one format, bare and end to end."""
    loop = LOOPS[name]
    num_files = max(1, (count or loop.count) // loop.per_file)
    raw = work / f"{name}-{num_files}"
    if not raw.exists():
        made = work / "unfinished"
        made.mkdir()
        loop.make(made, num_files)
        made.rename(raw)
    files = sorted(raw.iterdir())
    images = num_files * loop.per_file
    for file in files:
        file.read_bytes()  # both find the files in memory
    rates: dict[str, list[float]] = {"bare": [], "ingest": []}
    fixed = []
    cpu = []
    for _ in range(trials):
        bare_seconds, bare_cpu = _bare_seconds(loop, files)
        seconds, ingest_cpu, beyond = _ingest_seconds(loop, raw, images)
        rates["bare"].append(images / bare_seconds)
        rates["ingest"].append(images / seconds)
        cpu.append(bare_cpu / ingest_cpu)
        fixed.append(beyond)
    shares = [end / bare for end, bare in zip(rates["ingest"], rates["bare"], strict=True)]
    return {
        "format": name,
        "images": images,
        **{f"{key}_images_per_second": round(statistics.median(values), 1) for key, values in rates.items()},
        "share_of_bare": round(statistics.median(shares), 3),
        "shares": [round(share, 3) for share in shares],
        "share_of_bare_cpu": round(statistics.median(cpu), 3),
        "beyond_map_seconds": round(statistics.median(fixed), 2),
    }


def _bare_seconds(loop: Loop, files: list[Path]) -> tuple[float, float]:
    """Seconds, and processor seconds."""
    with multiprocessing.get_context("spawn").Pool(WORKERS, cv2_on_one_thread) as pool:
        pool.map(loop, files[:WORKERS], chunksize=1)
        started = time.perf_counter()
        cpu = pool.map(loop, files, chunksize=max(1, min(16, len(files) // (4 * WORKERS))))
        return time.perf_counter() - started, sum(cpu)


def cv2_on_one_thread() -> None:
    """Processes share the cores: none may use both."""
    import cv2

    cv2.setNumThreads(1)


def _ingest_seconds(loop: Loop, raw: Path, images: int) -> tuple[float, float, float]:
    """Seconds, processor seconds of all processes, and seconds before the first and after the last raw file."""
    marks: dict[str, float] = {}

    def note(progress: Progress) -> None:
        marks.setdefault(progress.stage, time.perf_counter())

    spec = from_flags(name="bench", modality=loop.modality, deidentified=True)
    with tempfile.TemporaryDirectory(dir=raw.parent) as scratch:
        started, cpu = time.perf_counter(), _cpu_seconds()
        encoding = {"resampler": loop.resampler}
        report = run_job(spec, str(raw), f"{scratch}/d", workers=WORKERS, encoding=encoding, progress=note)
        ended, cpu = time.perf_counter(), _cpu_seconds() - cpu
    if report.kept != images:
        raise SystemExit(f"{report.kept} of {images} images kept: {dict(report.reasons)}")
    return ended - started, cpu, (ended - marks["resolve"]) + (marks["map"] - started)


def _cpu_seconds() -> float:
    """Of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def folder(path: str, modality: str) -> dict[str, Any]:
    """Images a second of a folder, end to end."""
    spec = from_flags(name="bench", modality=modality, deidentified=True)
    with tempfile.TemporaryDirectory() as scratch:
        report = run_job(spec, path, f"{scratch}/d", workers=WORKERS)
    rate = round(report.items / report.seconds, 1)
    return {"folder": path, "images": report.items, "kept": report.kept, "images_per_second": rate}


def memory(count: int) -> dict[str, Any]:
    """Peak memory of the job and of its worker; small images, so that their number is what counts."""
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw"
        raw.mkdir()
        _in_a_process(make_small, raw, count)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        spec = from_flags(name="bench", modality="Fundus", deidentified=True)
        report = run_job(spec, str(raw), f"{scratch}/d", workers=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "images": count,
        "kept": report.kept,
        "images_per_second": round(count / report.seconds, 1),
        "job_mb": peak // 1024,
        "job_over_imports_mb": (peak - before) // 1024,
        "worker_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
    }


def make_small(folder: Path, count: int) -> None:
    """Distinct JPEGs of 160 × 120."""
    rng = np.random.default_rng(1)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((160, 120), Image.Resampling.BICUBIC).save(folder / f"{number:06d}.jpg", quality=80)


def _in_a_process(function: Callable[..., object], *arguments: object) -> None:
    """Each has its own peak of memory."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def print_memory(count: int) -> None:
    """One line."""
    print(json.dumps(memory(count)), flush=True)


def main(arguments: list[str]) -> None:
    """Run one benchmark and print it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.ingest", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=[*LOOPS, "folder", "memory"])
    parser.add_argument("rest", nargs="*", metavar="COUNT or FOLDER MODALITY")
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--work", type=Path)
    wanted = parser.parse_args(arguments)
    if wanted.what == "folder":
        if len(wanted.rest) != 2:
            parser.error("folder needs FOLDER and MODALITY")
        print(json.dumps(folder(*wanted.rest)))
    elif wanted.what == "memory":
        arrow_from_c()  # as the command does, for the processes that are started here
        for count in wanted.rest or ["1000", "20000"]:
            _in_a_process(print_memory, int(count))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            work = wanted.work or Path(scratch)
            work.mkdir(parents=True, exist_ok=True)
            count = int(wanted.rest[0]) if wanted.rest else 0
            print(json.dumps(side_by_side(wanted.what, count, wanted.trials, work)))


if __name__ == "__main__":
    main(sys.argv[1:])
