"""Ingest against img2dataset on the same local photographs: images a second of both commands, start to end.

    python -m infra.bench.img2dataset [COUNT] [--trials 3] [--work FOLDER] [--input file http]

Both get JPEGs of 1 megapixel, two processes, the short side 512, quality 95 and WebDataset tars, and both are timed as
commands, so that starting them counts. img2dataset reads URLs: `file` gives it `file://` ones, `http` a server on the
loopback interface (whose own processor time is not counted). It gets the settings that its documentation advises and
two threads a process, which on two cores is faster than its 256. It stores a SHA-256 of each compressed image and its
EXIF; it writes no index, and looks for no duplicates. Its resize is OpenCV's and its colours are subsampled; ours are
not, and we run with each of our resamplers. The commands take turns; `cpu` is processor seconds per 1000 images, and
the last columns are our rates over this row's.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from infra.bench.ingest_loops import JPEG_QUALITY, LOOPS, SHORT_SIDE_PX
from infra.bench.peers.contestants import Contestant
from infra.bench.peers.environments import interpreter

WORKERS = 2
SHARD_IMAGES = 250
RESAMPLERS = ("pillow", "native")
PEER = Contestant(
    name="img2dataset", label="img2dataset 1.47.0", script="", corpus="", requirements=("img2dataset==1.47.0",)
)


def ours(raw: Path, out: Path, resampler: str) -> list[str]:
    """The command of an ingest job."""
    words = [sys.executable, "-m", "infra.cli", "ingest", "bench", str(raw), str(out)]
    flags = ["--modality", "Fundus", "--deidentified", "--workers", str(WORKERS)]
    return [*words, *flags, "--encoding", f"resampler={resampler}"]


def theirs(python: Path, urls: Sequence[str], out: Path) -> list[str]:
    """The command of img2dataset."""
    listed = out.with_suffix(".txt")
    listed.write_text("\n".join(urls) + "\n")
    options = {
        "url_list": listed,
        "input_format": "txt",
        "output_folder": out,
        "output_format": "webdataset",
        "image_size": SHORT_SIDE_PX,
        "resize_mode": "keep_ratio",
        "resize_only_if_bigger": True,
        "encode_quality": JPEG_QUALITY,
        "processes_count": WORKERS,
        "thread_count": 2,
        "number_sample_per_shard": SHARD_IMAGES,
        "enable_wandb": False,
        "disallowed_header_directives": "[]",
    }
    return [str(python.parent / "img2dataset"), *(f"--{name}={value}" for name, value in options.items())]


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Seconds, and processor seconds of the command and all its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.stderr[-2000:]}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def num_written(out: Path) -> int:
    """Images that img2dataset says it wrote."""
    return sum(json.loads(path.read_bytes())["successes"] for path in out.glob("*_stats.json"))


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *words: object) -> None:  # noqa: A002  # the name that the base gives it
        """Say nothing."""


def _serve(folder: str, pipe: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder))
    pipe.send(server.server_port)
    server.serve_forever()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL below which the folder's files are to be had."""
    spawn = multiprocessing.get_context("spawn")
    ours_end, theirs_end = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(str(folder), theirs_end), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours_end.recv()}"
    finally:
        process.terminate()
        process.join()


def measure(count: int, trials: int, work: Path, inputs: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One row a contestant."""
    raw = work / f"photographs-{count}"
    if not raw.exists():
        raw.mkdir()
        LOOPS["photographs"].make(raw, count)
    files = sorted(raw.iterdir())
    python = interpreter(PEER, work / "environments", say=lambda text: print(text, file=sys.stderr))
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(trials):
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            for resampler in RESAMPLERS:
                command = ours(raw, Path(scratch) / resampler, resampler)
                found.setdefault(f"biovfm ({resampler})", []).append(timed(command))
            for source in inputs:
                out = Path(scratch) / source
                with served(raw) if source == "http" else nullcontext(raw.as_uri()) as base:
                    command = theirs(python, [f"{base}/{file.name}" for file in files], out)
                    found.setdefault(f"{PEER.label}, {source}", []).append(timed(command))
                if num_written(out) != count:
                    raise SystemExit(f"img2dataset wrote {num_written(out)} of {count} images")
    rates = {name: count / statistics.median(seconds for seconds, _ in pairs) for name, pairs in found.items()}
    for name, pairs in found.items():
        cpu = statistics.median(used for _, used in pairs) / count * 1000
        times = {resampler: round(rates[f"biovfm ({resampler})"] / rates[name], 2) for resampler in RESAMPLERS}
        rate = round(rates[name], 1)
        yield {"name": name, "images": count, "images_per_second": rate, "cpu": round(cpu, 2), **times}


def main(arguments: Sequence[str]) -> None:
    """Run and print a row a line, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.img2dataset", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("count", nargs="?", type=int, default=2000)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--input", nargs="+", choices=("file", "http"), default=("file", "http"))
    wanted = parser.parse_args(arguments)
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        work = (wanted.work or Path(scratch)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        for row in measure(wanted.count, wanted.trials, work, wanted.input):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
