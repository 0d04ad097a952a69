"""`biovfm compact`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from infra.console import answer, emit, progress


def compact(dataset: str, /, *, shard_mb: int = 64, json_: Annotated[bool, Parameter(name="--json")] = False) -> None:
    """Merge the small shards and table files of a dataset that grew in many jobs; the samples stay the same.

    The new version has another order. Locks go on with the version that they pin, and the old shards stay until
    `biovfm vacuum` removes what no kept version needs. A compact dataset is left as it is.

    Example: `biovfm compact s3://my-bucket/my-dataset`

    Parameters
    ----------
    dataset
        Folder or URL of the dataset.
    shard_mb
        Size of the new shards in MiB; those of less than half of it are merged.
    """
    from dataclasses import asdict

    from shards.dataset import Dataset
    from shards.dataset.compact import compact as merge
    from shards.errors import ConfigError

    if shard_mb < 1:
        raise ConfigError(f"--shard-mb {shard_mb} is too small", hint="give a number of MiB such as 64")
    with progress(disable=json_) as bar:
        task = bar.add_task("shards", total=None, note="")
        done = merge(
            Dataset.open(dataset),
            shard_bytes=shard_mb << 20,
            progress=lambda number, total: bar.update(task, completed=number, total=total),
        )
    if json_:
        emit({"dataset": dataset, **asdict(done)})
        return
    files = sum(done.files.values())
    if done.shards or files:
        merged = f"{done.shards:,} small shards became {done.into:,}, {files:,} table files were merged"
        answer(f"{dataset}: version {done.version}; {merged}. Older versions keep theirs; `biovfm vacuum` removes them")
    else:
        answer(f"{dataset}: version {done.version} is compact")
