"""Training steps of this tree against those of another one, such as a checkout of an earlier commit.

    git worktree add --detach /somewhere/before COMMIT
    python -m infra.bench.steps --against /somewhere/before --rounds 9

Each tree trains by its own command line, `biovfm pretrain`, in a process of its own with this Python, on a dataset that
the other tree has made; the steps' times come from the run's `metrics.jsonl`. Nothing of the other tree is imported, so
its modules may have other names. The trees take turns, and the one that begins changes from round to round. A round's
ratio is the other tree's median step over this one's, so above 1 this tree is faster; the first steps of a run are left
out. `computing` is the same without the time that a step waited for data.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shards.errors import BiovfmError, ConfigError

__all__ = ["CASES", "Times", "compare", "ratios_of", "run_steps"]

ROOT: Final = Path(__file__).parents[2]
WARM_UP: Final = 2
"""Steps at the start of a run that are not counted."""
NUM_IMAGES: Final = 96
CASES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "mae-tiny": ("tiny", {}),
    "dinov2-tiny": ("tiny-dinov2", {}),
    "mae-vits": ("mae-paper", {"model.size": "small", "run.global_batch": 16, "run.unit_images": 16}),
    "dinov2-vits": ("dinov2-short", {"model.size": "small", "run.global_batch": 4, "run.unit_images": 4}),
}
"""Name → recipe and its changes."""
_COMMON: Final = {"run.precision": "fp32", "run.decode_threads": 1, "checkpoint.every": 100_000}
_BUILDERS: Final = ("shards.native.build", "shards.decode.native.build")
"""Where trees have the command that compiles their decoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Median step of a run.

    Attributes:
        step: Seconds, waiting for data included.
        computing: Seconds without it.
    """

    step: float
    computing: float


def main() -> None:
    """Print one JSON object a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, help="root of the other tree")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=8, help=f"of a run; the first {WARM_UP} are not counted")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    options = parser.parse_args()
    if options.steps <= WARM_UP:
        parser.error(f"--steps has to be more than {WARM_UP}")
    try:
        _compare_all(options.against.resolve(), options)
    except BiovfmError as error:
        sys.exit(f"steps: {error}")


def _compare_all(other: Path, options: argparse.Namespace) -> None:
    if not (other / "train" / "recipes").is_dir():
        raise ConfigError(f"{other} is no tree of this project", hint="give the root of a checkout with --against")
    with tempfile.TemporaryDirectory() as folder:
        for tree in (other, ROOT):
            _compile_decoder(tree)
        data = make_dataset(other, Path(folder))
        for case in options.cases:
            figures = compare(case, other, data=data, rounds=options.rounds, steps=options.steps)
            print(json.dumps({"case": case, **figures}), flush=True)


def compare(case: str, other: Path, *, data: Path, rounds: int, steps: int) -> dict[str, Any]:
    """Train in turns and compare.

    Args:
        case: Of `CASES`.
        other: Root of the other tree.
        data: A dataset that both trees can read.
        rounds: How often each tree trains.
        steps: Of a run.
    """
    trees = {"there": other, "here": ROOT}
    times: dict[str, list[Times]] = {"there": [], "here": []}
    for number in range(rounds):
        for side in sorted(trees, reverse=number % 2 == 0):
            with tempfile.TemporaryDirectory() as folder:
                times[side].append(run_steps(trees[side], case, data=data, out=Path(folder) / "run", steps=steps))
        before, now = times["there"][-1], times["here"][-1]
        print(f"{case}, round {number + 1}: {before.step:.3f} s there, {now.step:.3f} s here", file=sys.stderr)
    return ratios_of(times["there"], times["here"])


def ratios_of(before: Sequence[Times], now: Sequence[Times]) -> dict[str, Any]:
    """Medians of the rounds' ratios, and of the steps."""
    pairs = list(zip(before, now, strict=True))
    return {
        "ratio": round(statistics.median(old.step / new.step for old, new in pairs), 4),
        "ratio_computing": round(statistics.median(old.computing / new.computing for old, new in pairs), 4),
        "seconds_there": round(statistics.median(one.step for one in before), 4),
        "seconds_here": round(statistics.median(one.step for one in now), 4),
        "rounds": len(pairs),
    }


def run_steps(tree: Path, case: str, *, data: Path, out: Path, steps: int) -> Times:
    """Train in a process of its own; its median step.

    Raises:
        ConfigError: The run ended with an error.
    """
    recipe, changes = CASES[case]
    settings = {**_COMMON, "run.steps": steps, **changes}
    if "epochs:" in (tree / "train" / "recipes" / f"{recipe}.yaml").read_text():
        settings["run.epochs"] = None  # a run has a length in steps or in epochs, and older recipes in steps alone
    words = ["pretrain", str(data), "--recipe", recipe, "--out", str(out)]
    words += [word for name, value in settings.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    _biovfm(tree, words)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][WARM_UP:]
    return Times(
        step=statistics.median(line["seconds"] for line in lines),
        computing=statistics.median(line["seconds"] * (1 - line["stall_share"]) for line in lines),
    )


def make_dataset(tree: Path, folder: Path) -> Path:
    """A dataset of noise-like JPEGs, ingested by a tree: what an older one has made, a newer one reads."""
    import numpy as np
    from PIL import Image

    raw = folder / "raw"
    raw.mkdir()
    rng = np.random.default_rng(7)
    for number in range(NUM_IMAGES):
        small = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        stream = io.BytesIO()
        small.resize((320, 288), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        (raw / f"{number:04d}.jpg").write_bytes(stream.getvalue())
    _biovfm(tree, ["ingest", "bench", str(raw), str(folder / "dataset"), "--modality", "CT"])
    return folder / "dataset"


def _compile_decoder(tree: Path) -> None:
    """So that both trees decode by their extension; where it cannot be built, both commands say so in their logs."""
    for module in _BUILDERS:
        if (tree / module.replace(".", "/")).with_suffix(".py").is_file():
            _run(tree, [sys.executable, "-m", module])


def _biovfm(tree: Path, words: Sequence[str]) -> None:
    done = _run(tree, [sys.executable, "-m", "infra.cli", *words])
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no word"]
        raise ConfigError(
            f"`biovfm {words[0]}` of {tree} ended with exit code {done.returncode}: {said[0]}",
            hint="give the root of a checkout with --against",
        )


def _run(tree: Path, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run in a tree, whose packages come before those that are installed."""
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": str(tree)}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    main()
