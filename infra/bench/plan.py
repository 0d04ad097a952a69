"""What a subset of a web-scale index costs: pin it, plan it, and list the keys of a batch in the middle.

    python -m infra.bench.plan --work /tmp/plan --rows 21472715

Writes an index with the catalogue's sources and modalities at their published proportions (rows only, no images; one
commit a source) where there is none yet, then measures each step in a process of its own: seconds, those of the
processor, and peak memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from shards.dataset import Dataset

SAMPLES_PER_SHARD = 1_430
BYTES_PER_IMAGE = 46_000


def write_index(url: str, rows: int) -> None:
    """Commit synthetic rows, one job per source."""
    from ingest.source.spec import catalogue_ids, load_spec
    from shards.dataset.query import connect
    from shards.schema import index_schema, rejects_schema

    dataset = Dataset.create(url)
    specs = [load_spec(source) for source in catalogue_ids()]
    total = sum(spec.expected_images or 0 for spec in specs)
    for spec in specs:
        num = round((spec.expected_images or 0) * rows / total)
        if dataset.has_job(spec.id):
            continue
        with connect(memory_limit="4GB") as database:
            table = database.sql(_ROWS.format(source=spec.id, modality=spec.modality[0], num=num)).to_arrow_table()
        dataset.commit(job_id=spec.id, rows=table.select(index_schema().names), rejects=rejects_schema().empty_table())
        print(f"{spec.id}: {num:,} rows", file=sys.stderr)


_ROWS = f"""
    SELECT printf('%s-%016x', '{{source}}', i) AS key, '{{source}}' AS source, '{{modality}}' AS modality,
        '' AS anatomy, md5('{{source}}' || (i // 20)) AS group_id,
        printf('shards/%s/%s/%s.tar', '{{source}}', lower('{{modality}}'),
            md5('{{source}}' || (i // {SAMPLES_PER_SHARD}))) AS shard,
        (i % {SAMPLES_PER_SHARD})::INTEGER AS shard_row, (i % {SAMPLES_PER_SHARD}) * {BYTES_PER_IMAGE + 2048} + 512
            AS byte_offset,
        {BYTES_PER_IMAGE}::BIGINT AS byte_length, (hash(i) & 4294967295)::BIGINT AS crc32c, 'jpg' AS extension,
        512 AS width, 512 AS height, 3 AS channels, md5('{{source}}' || i) || md5('a{{source}}' || i) AS pixel_sha256,
        printf('%08d.png', i) AS raw_path, '' AS raw_frame, 'unknown' AS licence, 8 AS bit_depth,
        'nan'::DOUBLE AS window_center, 'nan'::DOUBLE AS window_width, '{{source}}' AS job_id,
        NULL::VARCHAR AS burned_in, NULL::VARCHAR AS burned_in_by
    FROM range({{num}}) AS numbers(i)"""  # noqa: S608 - our own names and numbers


def _plan_all(url: str, _lock: Path) -> object:
    from shards.stream.plan import plan_of

    _, plan = plan_of(url)
    return {"samples": plan.num_samples, "shards": len(plan.shards)}


def _pin(url: str, lock: Path, selection: dict[str, Any]) -> object:
    from shards.subset import Selection, create

    made = create(Dataset.open(url), Selection(**selection))
    made.write(lock)
    return {"samples": made.num_samples, "modalities": len(made.counts)}


def _verify(_url: str, lock: Path) -> object:
    from shards.subset import Lock, verify

    found = verify(Lock.read(lock))
    return {"samples": found.chosen.num_samples, "same_order": found.same_order}


def _plan_lock(_url: str, lock: Path) -> object:
    from shards.stream.plan import plan_of

    _, plan = plan_of(lock)
    return {"samples": plan.num_samples, "shards": len(plan.shards)}


def _keys_in_the_middle(url: str, _lock: Path) -> object:
    from shards.stream import Stream

    stream = Stream(url, global_batch=2048)
    stream.load_state_dict({**stream.state_dict(), "batch": stream.batches_per_epoch // 2})
    _, index, keys = next(stream.walk_keys())
    return {"batch": index, "keys": len(keys)}


def _order_of_a_billion(_url: str, _lock: Path) -> object:
    """Every hundredth batch of one of eight ranks over a billion samples, without an index."""
    import numpy as np

    from shards.stream.order import EpochOrder, OrderSettings

    counts = np.full(1_000_000_000 // SAMPLES_PER_SHARD, SAMPLES_PER_SHARD, dtype=np.int64)
    order = EpochOrder(counts, OrderSettings(global_batch=4096), epoch=0)
    start = _peak_mb()
    step = order.num_batches // 100
    for index in range(0, order.num_batches, step):
        order.batch(index, rank=3, world_size=8)
    return {"batches": order.num_batches, "grown_mb": round(_peak_mb() - start, 1)}


TEN: dict[str, Any] = {
    "modality": ("CT", "MR", "X-Ray", "US", "NM", "OCT", "Fundus", "Dermoscopy", "Endoscopy", "Microscopy")
}
STEPS: dict[str, Callable[[str, Path], object]] = {
    "plan of the whole dataset": _plan_all,
    "pin a subset by tag": partial(_pin, selection={"modality": ("US", "Fundus")}),
    "pin a tenth of each source": partial(_pin, selection={"fraction": 0.1, "per": ("source",)}),
    "pin ten modalities": partial(_pin, selection=TEN),
    "verify the lock of ten modalities": _verify,
    "plan of the lock of ten modalities": _plan_lock,
    "keys of a batch in the middle": _keys_in_the_middle,
    "order of a billion samples": _order_of_a_billion,
}


def measure(step: str, url: str, lock: Path) -> dict[str, object]:
    """Run one step in this process; imports are not counted."""
    import duckdb  # noqa: F401 - imported before the clock starts
    import pyarrow.dataset  # noqa: F401

    import shards.stream.stream  # noqa: F401

    base = _peak_mb()
    started, worked = time.perf_counter(), time.process_time()
    result = STEPS[step](url, lock)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    peak = _peak_mb()
    return {
        "step": step,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_memory_mb": round(peak),
        "after_imports_mb": round(base),
        "result": result,
    }


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the index")
    parser.add_argument("--rows", type=int, default=21_472_715)
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS), help="only these")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    url, lock = str(arguments.work / f"index-{arguments.rows}"), arguments.work / f"{arguments.rows}.lock.yaml"
    if arguments.step:
        print(json.dumps(measure(arguments.step, url, lock)))
        return 0
    write_index(url, arguments.rows)
    for step in arguments.steps:
        command = [sys.executable, "-m", "infra.bench.plan", "--work", str(arguments.work)]
        subprocess.run([*command, "--rows", str(arguments.rows), "--step", step], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
