"""pillow-simd in place of Pillow: the same samples up to the rounding of the resampling, and how much faster.

    python -m infra.bench.pillow_simd [FOLDER MODALITY] [--count 300] [--trials 3] [--work FOLDER]

Makes two virtual environments with the package's core dependencies, one with Pillow and one with pillow-simd compiled
for AVX2 (needs a C compiler, zlib's and libjpeg's headers; on Debian zlib1g-dev and libjpeg62-turbo-dev). Both ingest
the same folder (without one, JPEG photographs of 1 megapixel) by turns. For the comparison they ingest it once more
as PNG, so that what differs is the resampling alone: same keys, same rejects, and the differences of the stored
values. With `--work`, environments and photographs are kept there and used again.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from infra.bench.ingest_loops import LOOPS
from ingest.job.run import run_job
from ingest.settings import IngestSettings
from ingest.source.spec import from_flags
from shards.dataset.dataset import Dataset
from shards.dataset.query import scan

ROOT = Path(__file__).parents[2]
PILLOWS: Final = ("pillow", "pillow-simd")
VERSION: Final = "12.1.1.post0"
WORKERS = 2


def interpreter(folder: Path, pillow: str) -> Path:
    """The Python of an environment with one of the two Pillows; made where it is not there yet."""
    home = folder / f"environment-{pillow}"
    python = home / "bin" / "python"
    if not (home / "made").exists():
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        _pip(python, "install", *_core_requirements())
        if pillow == "pillow-simd":
            _pip(python, "uninstall", "--yes", "pillow")
            _pip(python, "install", "--no-deps", "--no-binary", ":all:", f"pillow-simd=={VERSION}", CC="cc -mavx2")
        (home / "made").touch()
    return python


def _pip(python: Path, *words: str, **environment: str) -> None:
    command = [str(python), "-m", "pip", words[0], "--quiet", "--disable-pip-version-check", *words[1:]]
    subprocess.run(command, check=True, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)


def _core_requirements() -> list[str]:
    """The package's dependencies without extras, as they are installed here."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in metadata.requires("biovfm") or ()]
    return [f"{need.name}=={metadata.version(need.name)}" for need in wanted if need.marker is None]


def child(raw: str, modality: str, dataset: str, image_format: str) -> None:
    """One run, in an environment's own Python: prints what it did."""
    import PIL

    Dataset.create(dataset, encoding={"format": image_format})
    spec = from_flags(name="bench", modality=modality, deidentified=True)
    settings = IngestSettings(dedup={"near": False})
    report = run_job(spec, raw, dataset, workers=WORKERS, settings=settings)
    facts = {"pillow": PIL.__version__, "seconds": report.seconds, "items": report.items, "kept": report.kept}
    print(json.dumps({**facts, "reasons": dict(report.reasons)}))


def _run(python: Path, raw: Path, modality: str, dataset: Path, image_format: str) -> dict[str, Any]:
    words = [str(python), "-m", "infra.bench.pillow_simd", "--child", str(raw), modality, str(dataset), image_format]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(first: str, second: str) -> dict[str, Any]:
    """How the stored values of two datasets of the same raw data differ."""
    rows = [_rows(url) for url in (first, second)]
    differences = np.zeros(256, np.int64)
    reduced = equal_files = 0
    for key in rows[0].keys() & rows[1].keys():
        a, b = (rows[side][key] for side in (0, 1))
        one, other = (_stored(url, row) for url, row in ((first, a), (second, b)))
        equal_files += one == other
        pixels = [np.asarray(Image.open(io.BytesIO(data))).astype(np.int16) for data in (one, other)]
        if pixels[0].shape != pixels[1].shape:
            raise SystemExit(f"{key}: {pixels[0].shape} and {pixels[1].shape}")
        apart = np.abs(pixels[0] - pixels[1])
        differences += np.bincount(apart.ravel(), minlength=256)
        reduced += bool(apart.any())
    values = int(differences.sum())
    return {
        "samples": len(rows[0]),
        "same_keys": rows[0].keys() == rows[1].keys(),
        "equal_files": equal_files,
        "samples_that_differ": reduced,
        "share_of_values_that_differ": round(1 - int(differences[0]) / max(values, 1), 6),
        "largest_difference": int(np.flatnonzero(differences).max(initial=0)),
    }


def _rows(url: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    table: Any = Dataset.open(url).table("index")
    names = ["key", "raw_path", "raw_frame", "shard", "byte_offset", "byte_length"]
    rows = scan(table).to_table(columns=names).to_pylist()
    return {(row["key"], row["raw_path"], row["raw_frame"]): row for row in rows}


def _stored(url: str, row: dict[str, Any]) -> bytes:
    return Dataset.open(url).store.read_range(row["shard"], row["byte_offset"], row["byte_length"])


def measure(raw: Path, modality: str, work: Path, trials: int) -> dict[str, Any]:
    """Both by turns, then the comparison."""
    pythons = {pillow: interpreter(work, pillow) for pillow in PILLOWS}
    rates: dict[str, list[float]] = {pillow: [] for pillow in PILLOWS}
    last: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        for trial in range(trials):
            for pillow, python in pythons.items():
                last[pillow] = _run(python, raw, modality, Path(scratch) / f"{pillow}-{trial}", "auto")
                rates[pillow].append(last[pillow]["items"] / last[pillow]["seconds"])
        for pillow, python in pythons.items():
            _run(python, raw, modality, Path(scratch) / f"{pillow}-png", "png")
        compared = compare(*(f"{scratch}/{pillow}-png" for pillow in PILLOWS))
    medians = {pillow: statistics.median(values) for pillow, values in rates.items()} if trials else {}
    return {
        "versions": {pillow: facts["pillow"] for pillow, facts in last.items()},
        "images": last["pillow"]["items"] if last else None,
        "images_per_second": {pillow: round(rate, 1) for pillow, rate in medians.items()},
        "gain": round(medians["pillow-simd"] / medians["pillow"], 3) if medians else None,
        "same_rejects": not last or last["pillow"]["reasons"] == last["pillow-simd"]["reasons"],
        **compared,
    }


def main(arguments: list[str]) -> None:
    """Run it and print JSON."""
    if arguments[:1] == ["--child"]:
        child(*arguments[1:])
        return
    parser = argparse.ArgumentParser(prog="python -m infra.bench.pillow_simd", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", nargs="*", metavar="FOLDER MODALITY")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--work", type=Path)
    wanted = parser.parse_args(arguments)
    if len(wanted.folder) not in (0, 2):
        parser.error("give a folder and its modality, or neither")
    with tempfile.TemporaryDirectory() as scratch:
        work: Path = (wanted.work or Path(scratch)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        raw, modality = work / f"photographs-{wanted.count}", LOOPS["photographs"].modality
        if wanted.folder:
            raw, modality = Path(wanted.folder[0]).absolute(), wanted.folder[1]
        elif not raw.exists():
            raw.mkdir()
            LOOPS["photographs"].make(raw, wanted.count)
        print(json.dumps(measure(raw, modality, work, wanted.trials), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
