"""`biovfm vacuum`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from infra.console import answer, emit


def vacuum(
    dataset: str,
    /,
    *,
    keep_days: float = 30.0,
    lock: tuple[Path, ...] = (),
    unpin: tuple[int, ...] = (),
    orphan_hours: float = 24.0,
    dry_run: bool = False,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Remove the shards and table files that no kept version of a dataset needs.

    Kept are the newest version, every version that was the newest within --keep-days, and every version that a lock
    pins. `biovfm subset create` and `biovfm sweep` record the version of each lock in the dataset (`pins/`); a lock
    that was made where the dataset could not be written to is named by --lock. A version that is not kept can no
    longer be read; its locks are still found where a kept version holds the same samples.

    Example: `biovfm vacuum ./data --lock ct-us.lock.yaml --dry-run`

    Parameters
    ----------
    dataset
        Folder or URL of the dataset.
    keep_days
        Keep the versions that were the newest at some time within so many days.
    lock
        Keep the version that this lock file pins, too; repeat for several.
    unpin
        Forget the recorded pins of this version first; repeat for several.
    orphan_hours
        Keep what no version names while it is younger: a job that is under way may be about to name it.
    dry_run
        Only say what would be removed.
    """
    from dataclasses import asdict

    from infra.console import number, size
    from shards.dataset import Dataset
    from shards.dataset.pins import drop_pins
    from shards.dataset.vacuum import vacuum as remove
    from shards.subset.finding import version_of
    from shards.subset.lock import Lock

    opened = Dataset.open(dataset)
    locked = [version_of(Lock.read(path), opened, path) for path in lock]
    forgotten = [] if dry_run else drop_pins(opened, unpin)
    done = remove(opened, keep_days=keep_days, orphan_hours=orphan_hours, locked=locked, dry_run=dry_run)
    if json_:
        emit({"dataset": opened.url, "dry_run": dry_run, "unpinned": [pin.path for pin in forgotten], **asdict(done)})
        return
    word = "would go" if dry_run else "removed"
    answer(f"{opened.url}: {number(len(done.paths), 'object')} ({size(done.num_bytes)}) {word}")
    pinned = f", of which locks pin {_listed(done.pinned)}" if done.pinned else ""
    answer(f"kept: {number(len(done.kept), 'version')}{pinned}")
    if done.dropped:
        answer(f"no longer readable: {_listed(done.dropped)}")


def _listed(versions: Sequence[int]) -> str:
    shown = ", ".join(str(version) for version in versions[:12])
    return f"version{'' if len(versions) == 1 else 's'} {shown}{', …' if len(versions) > 12 else ''}"
