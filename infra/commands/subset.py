"""`biovfm subset create | show | verify | materialize | export | diff | relock | rebuild`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from infra.console import answer, answer_table, emit, number, progress, stderr

if TYPE_CHECKING:
    import pyarrow as pa

app = App(name="subset", help="Pin subsets by tag; show, verify, compare, materialize and export them.")

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
    with_keys: bool = False,
    relative: bool = False,
    ranks: int = 64,
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
        DuckDB predicate over the columns of the index and your own (`biovfm columns list`), e.g. "width >= 256".
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
    with_keys
        Write the list of the samples beside the lock too, so that `verify` names each that is missing or changed.
    relative
        Write the dataset's path relative to the lock file, so that both can be moved together.
    ranks
        Ranks of the largest run that will stream the lock, where they are more than 64: then each rank reads its own
        shards alone. The number is part of the order, and costs small runs memory.
    """
    from infra.commands._probing import check_writable
    from shards.dataset import Dataset
    from shards.dataset.pins import record_pin
    from shards.errors import ConfigError
    from shards.settings import parse
    from shards.subset import Selection
    from shards.subset import create as pin
    from shards.subset.keys import keys_name, write_keys
    from shards.subset.lock import DEFAULT_LANES, LARGEST_LANES

    if not 1 <= ranks <= LARGEST_LANES:
        raise ConfigError(f"--ranks {ranks} are no ranks of a run", hint=f"give from 1 to {LARGEST_LANES:,}")
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
    selection = parse(Selection, asked, where="subset create")
    check_writable(out, option="--out")
    opened = Dataset.open(dataset)
    lock = pin(opened, selection, version=version, most_lanes=max(ranks, DEFAULT_LANES))
    if with_keys:
        lock = lock.model_copy(update={"keys": keys_name(out)})
        write_keys(lock, opened, out.parent / lock.keys)
    lock.write(out, relative=relative)
    if not record_pin(opened, lock.index_version, digest=lock.digest):
        stderr().print(
            f"{opened.url} may not be written to: whoever vacuums it gives `--lock {out.name}` to keep the version",
            markup=False,
            soft_wrap=True,
        )
    _show(lock, json_=json_, note=f"wrote {out}")


@app.command
def show(lock: Path, /, *, json_: Json = False) -> None:
    """Print what a lock file pins.

    Example: `biovfm subset show ct-us.lock.yaml`
    """
    from shards.subset.lock import Lock

    _show(Lock.read(lock), json_=json_)


@app.command
def verify(lock: Path, /, *, dataset: str | None = None, json_: Json = False) -> None:
    """Compare a lock with its dataset, sample by sample; exit 1 with what differs where the samples are not there.

    Example: `biovfm subset verify ct-us.lock.yaml`

    Parameters
    ----------
    lock
        The lock file.
    dataset
        Where its dataset lies now; where the lock says, without it.
    """
    from shards.subset import Lock
    from shards.subset import verify as compare
    from shards.subset.keys import check_keys, keys_of

    pinned = Lock.read(lock)
    keys = keys_of(pinned, lock)
    if keys is not None:
        check_keys(pinned, keys)
    found = compare(pinned, dataset, keys=keys)
    said = {
        True: "verified: same samples, same pixels, same order",
        False: "same samples, same pixels; they are packed into other shards, so the order of an epoch is not the "
        "locked one: stream and pretrain refuse it unless given --accept-packing; `biovfm subset materialize` makes "
        "the form that is the same everywhere",
        None: "verified: same samples, same pixels",
    }[found.same_order]
    if json_:
        order = {True: "same", False: "other packing", None: "not pinned"}[found.same_order]
        place = {"found_in": found.dataset.url, "found_version": found.version}
        emit({**pinned.model_dump(mode="json"), **place, "samples_verified": True, "order_verified": order})
        return
    _show(pinned, json_=False)
    for line in (*found.notes, said):
        answer(line)


@app.command
def materialize(
    lock: Path,
    target: str,
    /,
    *,
    dataset: str | None = None,
    workers: int = 1,
    lock_out: Path | None = None,
    json_: Json = False,
) -> None:
    """Copy a subset into a dataset of its own, in the form that is the same from every packing and secret.

    Example: `biovfm subset materialize ct-us.lock.yaml ./ct-us --lock-out ct-us-copy.lock.yaml`

    Parameters
    ----------
    lock
        The lock file.
    target
        Folder or URL of the new dataset.
    dataset
        Where the lock's dataset lies now; where the lock says, without it.
    workers
        Threads that copy; the bytes do not depend on their number.
    lock_out
        Write a lock of the copy too; it is the same for every copy of these samples.
    """
    from infra.commands._probing import check_writable
    from shards.subset import Lock, Selection
    from shards.subset import create as pin
    from shards.subset import materialize as copy
    from shards.subset.keys import keys_of

    pinned = Lock.read(lock)
    check_writable(lock_out, option="--lock-out")
    with progress(disable=json_) as bar:
        task = bar.add_task("copying samples", total=None, note="")
        made = copy(
            pinned,
            target,
            dataset=dataset,
            keys=keys_of(pinned, lock),
            workers=workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            withdrawn=_withdrawn_from(target),
        )
    if lock_out is not None:
        pin(made, Selection(), most_lanes=pinned.most_lanes).write(lock_out)
    if json_:
        emit({"dataset": made.url, "version": made.version()})
    else:
        answer(f"{made.url}: version {made.version()}")


@app.command
def export(
    lock_or_dataset: str,
    /,
    *,
    format_: Annotated[Literal["tsv", "jsonl"], Parameter(name="--format")] = "tsv",
    out: Path | None = None,
    dataset: str | None = None,
) -> None:
    """Export the data list of a subset: for `tsv`, sample file name, source, raw path, frame and pixel hash.

    Example: `biovfm subset export ct-us.lock.yaml --format tsv --out data_list.tsv`

    Parameters
    ----------
    lock_or_dataset
        A lock file or a dataset.
    format_
        `tsv` is what `biovfm ingest --only-listed` reads, `jsonl` every index column.
    out
        File to write; standard output without it.
    dataset
        Where the lock's dataset lies now; where the lock says, without it.
    """
    from infra.commands._probing import check_writable
    from shards.files import write_text
    from shards.subset.data_list import export_list

    check_writable(out, option="--out")
    lines = export_list(lock_or_dataset, format_=format_, dataset=dataset)
    if out is None:
        sys.stdout.writelines(lines)
        return
    write_text(out, "".join(lines))
    stderr().print(f"wrote {out}", soft_wrap=True)


@app.command
def diff(
    a: str,
    b: str,
    /,
    *,
    dataset: str | None = None,
    keys: Path | None = None,
    json_: Json = False,
) -> None:
    """Compare two locks, datasets or versions: samples by source, modality and reason.

    Example: `biovfm subset diff old.lock.yaml new.lock.yaml --keys changes.tsv`

    Parameters
    ----------
    a
        A lock file, a dataset, or a version of one as DATASET@3.
    b
        Likewise.
    dataset
        Where the datasets of the locks lie now; where the locks say, without it.
    keys
        Write a TSV of every sample that differs.
    """
    from dataclasses import asdict

    from infra.commands._probing import check_writable
    from shards.files import write_text
    from shards.subset.difference import diff as compare

    check_writable(keys, option="--keys")
    found = compare(a, b, dataset=dataset, with_keys=keys is not None)
    if keys is not None:
        lines = ["\t".join(("key", "where", "source", "modality", "reason")), *("\t".join(row) for row in found.keys)]
        write_text(keys, "".join(f"{line}\n" for line in lines))
    rows = [asdict(row) for row in found.rows]
    if json_:
        emit({"num_a": found.num_a, "num_b": found.num_b, "num_same": found.num_same, "rows": rows})
        return
    answer(f"A has {number(found.num_a, 'sample')}, B {found.num_b:,}; {found.num_same:,} are the same in both")
    answer_table("what differs", rows)


@app.command
def relock(
    lock: Path, /, *, out: Path, dataset: str | None = None, relative: bool = False, json_: Json = False
) -> None:
    """Pin what is left of a lock after samples were withdrawn: the same samples without them, and no later ones.

    Example: `biovfm subset relock ct-us.lock.yaml --out ct-us-relocked.lock.yaml`

    Parameters
    ----------
    lock
        The old lock file.
    out
        The lock file to write.
    dataset
        Where the lock's dataset lies now; where the lock says, without it.
    relative
        Write the dataset's path relative to the lock file, so that both can be moved together.
    """
    from shards.dataset import Dataset
    from shards.subset import Lock
    from shards.subset.relock import relock as pin_rest

    old = Lock.read(lock)
    new = pin_rest(old, Dataset.open(dataset or old.dataset))
    new.write(out, relative=relative)
    _show(
        new, json_=json_, note=f"wrote {out}: {number(old.num_samples - new.num_samples, 'sample')} fewer than {lock}"
    )


@app.command
def rebuild(
    lock: Path,
    target: str,
    /,
    *,
    raw: tuple[str, ...],
    dataset: str | None = None,
    workers: int = 1,
    scratch: Path | None = None,
    json_: Json = False,
) -> None:
    """Make a lock's samples again from the raw data alone, in canonical form.

    Example: `biovfm subset rebuild ct-us.lock.yaml ./rebuilt --raw kvasir-capsule=/raw/kvasir --raw busi=/raw/busi`

    Parameters
    ----------
    lock
        The lock file.
    target
        Folder or URL of the dataset to make.
    raw
        Where the raw data of a source lie, SOURCE=FOLDER; repeat for every source of the lock.
    dataset
        Where the lock's own dataset lies now: what was withdrawn from it is not brought back. Not needed otherwise.
    workers
        Processes of ingest and threads of the copy.
    scratch
        Folder for the dataset under way, which holds all images of the sources; the temporary folder without it.
    """
    from ingest.privacy.secret import load_secret
    from ingest.rebuild import rebuild as make
    from shards.errors import ConfigError
    from shards.subset import Lock
    from shards.subset.keys import keys_of

    pairs = [text.partition("=") for text in raw]
    if wrong := [name for name, equals, folder in pairs if not (name and equals and folder)]:
        raise ConfigError(f"--raw {wrong[0]}: expected SOURCE=FOLDER", hint="for example --raw busi=/raw/busi")
    pinned = Lock.read(lock)
    done = make(
        pinned,
        {name: folder for name, _, folder in pairs},
        target,
        dataset=dataset,
        keys=keys_of(pinned, lock),
        workers=workers,
        secret=load_secret(),
        scratch=scratch,
        progress=lambda line: stderr().print(line, soft_wrap=True),
    )
    if json_:
        emit({"dataset": done.dataset.url, "version": done.dataset.version(), "num_samples": pinned.num_samples})
        return
    for line in done.notes:
        stderr().print(line, soft_wrap=True)
    answer(f"{done.dataset.url}: the {pinned.num_samples:,} locked samples, version {done.dataset.version()}")


def _withdrawn_from(target: str) -> Callable[[pa.Table], Sequence[bool]] | None:
    """What tells which samples were withdrawn from a dataset; None where there is none, or nothing was."""
    from ingest.job.secret_check import require_secret
    from ingest.privacy.secret import load_secret
    from ingest.privacy.tombstones import has_tombstones, tombstones_of
    from shards.dataset import Dataset

    dataset = Dataset.find(target)
    if dataset is None or not has_tombstones(dataset):
        return None
    secret = load_secret(create=False)
    require_secret(dataset, secret)
    tombstones = tombstones_of(dataset, secret)
    return None if tombstones is None else tombstones.of_table


def _show(lock: object, *, json_: bool, note: str = "") -> None:
    from shards.subset.lock import Lock

    assert isinstance(lock, Lock)
    if json_:
        emit(lock.model_dump(mode="json"))
        return
    answer(f"dataset {lock.dataset}, index version {lock.index_version}")
    answer(f"{number(lock.num_samples, 'sample')} in {number(lock.num_shards, 'shard')}")
    for modality, count in lock.counts.items():
        answer(f"  {modality:<12} {count:>10,}")
    answer(f"digest of the samples {lock.digest}")
    answer(f"digest of the order   {lock.order}" if lock.order else lock.unpinned)
    if note:
        answer(note)
