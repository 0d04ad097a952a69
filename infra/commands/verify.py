"""`biovfm verify`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from infra.console import emit, number, progress, size
from shards.dataset.dataset import Dataset
from shards.dataset.verify import Orphan, Report, remove_orphans, verify

_SHOWN = 20


def verify_dataset(
    dataset: str,
    /,
    *,
    deep: bool = False,
    remove_orphan_objects: bool = False,
    older_than_hours: float = 24.0,
    threads: int = 4,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Compare a dataset's objects with its index; change nothing unless told to.

    Orphans are objects that no index row names: a job that died, or one that has not committed yet, left them. They
    harm nobody and do not fail the check.

    Example: `biovfm verify s3://my-bucket/my-dataset --deep`

    Parameters
    ----------
    dataset
        The dataset's folder or URL.
    deep
        Read every shard: hashes, tar structure, checksum of every image.
    remove_orphan_objects
        Delete orphans that are older than `--older-than-hours`.
    older_than_hours
        Age from which an orphan cannot belong to a job that still runs.
    threads
        Shards read side by side.
    json_
        Print one JSON object.
    """
    opened = Dataset.open(dataset)
    with progress(disable=json_ or not deep) as bar:
        task = bar.add_task("shards", total=None, note="")
        report = verify(
            opened,
            deep=deep,
            threads=threads,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    removed: Sequence[Orphan] = ()
    if remove_orphan_objects:
        removed = remove_orphans(opened, report.orphans, older_than_seconds=3600 * older_than_hours)
    if json_:
        emit({"ok": not report.problems, **asdict(report), "removed": [orphan.path for orphan in removed]})
    else:
        _show(report, removed)
    return 1 if report.problems else 0


def _show(report: Report, removed: Sequence[Orphan]) -> None:
    lines = [
        f"{report.url} version {report.version}: {number(report.num_samples, 'sample')} in "
        f"{number(report.num_shards, 'shard')}, {size(report.num_bytes)}" + (", every byte read" if report.deep else "")
    ]
    lines += [f"  {problem.kind:<10} {problem.path}: {problem.detail}" for problem in report.problems[:_SHOWN]]
    if len(report.problems) > _SHOWN:
        lines.append(f"  … and {len(report.problems) - _SHOWN} more")
    num_unread = sum(problem.kind == "unread" for problem in report.problems)
    if num_unread:
        lines.append("raw files without their images: `biovfm ingest` with --remap NEW_DATASET reads them again")
    if damaged := len(report.problems) - num_unread:
        lines.append(f"{number(damaged, 'problem')}: bring these objects back from a copy")
    elif not num_unread:
        lines.append("sound" if report.deep else "sound, as far as names and sizes tell; --deep reads every byte")
    if report.num_unhashed_files:
        count = number(report.num_unhashed_files, "table file")
        lines.append(f"{count} of an older release or of a rewritten table: no hash was kept, its structure was read")
    if report.unfinished:
        count = number(len(report.unfinished), "job")
        lines.append(
            f"{count} noted raw files and left no samples ({report.unfinished[0]}): run the same ingest again; where "
            "it had ended well before, the newest version of the index is gone"
        )
    if report.orphans:
        total = size(sum(orphan.size for orphan in report.orphans))
        done = f"{len(removed)} removed" if removed else "--remove-orphan-objects removes old ones"
        lines.append(f"{number(len(report.orphans), 'orphan')} ({total}) that no index row names; {done}")
    sys.stdout.write("\n".join(lines) + "\n")
