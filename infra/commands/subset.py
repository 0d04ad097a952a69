"""`biovfm subset create | show | verify | materialize | export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from infra.console import emit, progress, stderr

app = App(name="subset", help="Pin subsets by tag; show, verify, materialize and export them.")

Json = Annotated[bool, Parameter(name="--json")]


@app.command
def create(
    dataset: str,
    /,
    *,
    out: Path,
    modality: tuple[str, ...] = (),
    source: tuple[str, ...] = (),
    anatomy: tuple[str, ...] = (),
    licence: tuple[str, ...] = (),
    where: str | None = None,
    fraction: float | None = None,
    count: int | None = None,
    per: tuple[Literal["modality", "source", "anatomy", "licence"], ...] = ("modality",),
    seed: int = 0,
    version: int | None = None,
    json_: Json = False,
) -> None:
    """Pin a subset in a lock file.

    Example: `biovfm subset create ./data --modality CT --modality US --fraction 0.1 --out ct-us.lock.yaml`

    Parameters
    ----------
    dataset
        Folder or URL of the dataset.
    out
        The lock file to write.
    modality
        Modality tags to keep; repeat for several.
    source
        Source ids to keep.
    anatomy
        Body parts to keep.
    licence
        Licences to keep.
    where
        DuckDB predicate over the index columns, e.g. "width >= 256 AND channels = 1".
    fraction
        Share of each group to keep.
    count
        Samples of each group to keep.
    per
        What a group is.
    seed
        Seed of the sampling.
    version
        Index version to pin; the newest without it.
    """
    from shards.dataset.dataset import Dataset
    from shards.settings import parse
    from shards.subset import lock as subset

    asked = {
        "modality": modality,
        "source": source,
        "anatomy": anatomy,
        "licence": licence,
        "where": where,
        "fraction": fraction,
        "count": count,
        "per": per,
        "seed": seed,
    }
    selection = parse(subset.Selection, asked, where="subset create")
    lock = subset.create(Dataset.open(dataset), selection, version=version)
    lock.write(out)
    _show(lock, json_=json_, note=f"wrote {out}")


@app.command
def show(lock: Path, /, *, json_: Json = False) -> None:
    """Print what a lock file pins.

    Example: `biovfm subset show ct-us.lock.yaml`
    """
    from shards.subset.lock import Lock

    _show(Lock.read(lock), json_=json_)


@app.command
def verify(lock: Path, /, *, json_: Json = False) -> None:
    """Recompute a lock from its dataset; exit 1 with what differs where it does not hold.

    Example: `biovfm subset verify ct-us.lock.yaml`
    """
    from shards.dataset.dataset import Dataset
    from shards.subset import lock as subset

    pinned = subset.Lock.read(lock)
    subset.verify(pinned, Dataset.open(pinned.dataset))
    _show(pinned, json_=json_, note="verified: same samples, same pixels")


@app.command
def materialize(lock: Path, target: str, /, *, json_: Json = False) -> None:
    """Copy a subset into a dataset of its own.

    Example: `biovfm subset materialize ct-us.lock.yaml ./ct-us`

    Parameters
    ----------
    lock
        The lock file.
    target
        Folder or URL of the new dataset.
    """
    from shards.subset.canonical import materialize as copy
    from shards.subset.lock import Lock

    with progress(disable=json_) as bar:
        task = bar.add_task("copying shards", total=None, note="")
        dataset = copy(
            Lock.read(lock), target, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    if json_:
        emit({"dataset": dataset.url, "version": dataset.version()})
    else:
        stderr().print(f"{dataset.url}: version {dataset.version()}")


@app.command
def export(
    lock_or_dataset: str,
    /,
    *,
    format_: Annotated[Literal["tsv", "jsonl"], Parameter(name="--format")] = "tsv",
    out: Path | None = None,
) -> None:
    """Export the data list of a subset: for `tsv`, sample file name and raw file path (with its frame).

    Example: `biovfm subset export ct-us.lock.yaml --format tsv --out data_list.tsv`

    Parameters
    ----------
    lock_or_dataset
        A lock file or a dataset.
    format_
        `tsv` is the two columns of a data list, `jsonl` every index column.
    out
        File to write; standard output without it.
    """
    from shards.files import write_text
    from shards.subset.data_list import export_list

    lines = export_list(lock_or_dataset, format_=format_)
    if out is None:
        sys.stdout.writelines(lines)
        return
    write_text(out, "".join(lines))
    stderr().print(f"wrote {out}")


def _show(lock: object, *, json_: bool, note: str = "") -> None:
    from shards.subset.lock import Lock

    assert isinstance(lock, Lock)
    if json_:
        emit(lock.model_dump(mode="json"))
        return
    console = stderr()
    console.print(f"dataset {lock.dataset}, index version {lock.index_version}")
    console.print(f"{lock.num_samples:,} samples in {lock.num_shards:,} shards")
    for modality, count in lock.counts.items():
        console.print(f"  {modality:<12} {count:>10,}")
    console.print(f"digest {lock.digest}")
    if note:
        console.print(note)
