"""A lock without what was withdrawn: the old selection, evaluated on the newest version, on samples of the old jobs.

Samples that came later stay out, and a fraction or count is not drawn anew: its thresholds are those of the old lock.
So the new lock holds what the old one held, less what is gone. Own columns that the selection names are those of their
newest version: an older one may hold withdrawn samples.
"""

from __future__ import annotations

from shards.dataset.columns import columns_version
from shards.dataset.dataset import Dataset
from shards.dataset.query import quote
from shards.dataset.withdrawals import RELOCK
from shards.errors import ConfigError, SubsetError
from shards.subset.chosen import choose_from, samples
from shards.subset.expression import check_expression
from shards.subset.finding import Found
from shards.subset.lock import Lock, facts_of, predicate


def relock(lock: Lock, dataset: Dataset) -> Lock:
    """Pin what is left of a lock.

    Args:
        lock: The old lock.
        dataset: Where its dataset lies.

    Raises:
        SubsetError: Nothing is left, or more than was pinned: the dataset is another one.
    """
    if lock.dataset_id and dataset.id and lock.dataset_id != dataset.id:
        raise ConfigError(
            f"{dataset.url} is another dataset than the one that was locked", hint="give the lock's own by `--dataset`"
        )
    newest = dataset.version()
    selection = lock.selection.model_copy(update={"where": _where(lock, dataset)})
    columns = columns_version(dataset)
    with samples(dataset, newest, predicate=selection.where, columns_version=columns) as database:
        if selection.where:
            check_expression(database, selection.where)
        chosen = choose_from(database, predicate(selection, lock.thresholds))
    if not chosen.num_samples or chosen.num_samples > lock.num_samples:
        raise SubsetError(
            f"{dataset.url} holds {chosen.num_samples:,} of the {lock.num_samples:,} locked samples",
            hint="make a new lock with `biovfm subset create`",
        )
    return lock.model_copy(
        update={
            **facts_of(chosen),
            "format": 2,
            "dataset": dataset.url,
            "dataset_id": dataset.id,
            "index_version": newest,
            "columns_version": columns,
            "selection": selection,
            "keys": "",
        }
    )


def _where(lock: Lock, dataset: Dataset) -> str | None:
    """The lock's predicate, and that no later job brought the sample."""
    later = [job for job in dataset.jobs() if job["version"] > lock.index_version and job.get("source") != "withdraw"]
    if not later:
        return lock.selection.where
    others = f"job_id NOT IN ({', '.join(quote(str(job['job_id'])) for job in later)})"
    if lock.selection.where is None:
        return others
    return f"(\n{lock.selection.where}\n) AND {others}"  # on lines of its own: it may end with a comment


def require_nothing_withdrawn(found: Found) -> None:
    """Refuse to copy samples that were withdrawn after the version in which a lock was found.

    An older version holds them until the purge, for who streams it; a copy would bring them back.

    Raises:
        SubsetError: The lock holds such samples.
    """
    dataset = found.dataset
    num = 0
    for job in dataset.jobs():
        if job.get("source") == "withdraw" and job["version"] > found.version:
            num += _num_withdrawn(found, int(job["version"]))
    if num:
        raise SubsetError(
            f"{num:,} of the {found.lock.num_samples:,} locked samples were withdrawn from {dataset.url}", hint=RELOCK
        )


def _num_withdrawn(found: Found, version: int) -> int:
    """How many of a lock's samples the withdrawal that made a version took."""
    dataset = found.dataset
    sql = "SELECT key FROM samples"
    before, after = (dataset.query(sql, version=number) for number in (version - 1, version))
    with samples(dataset, found.version, predicate=found.where, columns_version=found.columns_version) as database:
        database.register("before_it", before)
        database.register("after_it", after)
        rows = f"""SELECT count(*)::BIGINT FROM samples WHERE ({found.where}) AND key IN
            (SELECT key FROM before_it EXCEPT SELECT key FROM after_it)"""  # noqa: S608
        ((num,),) = database.sql(rows).fetchall()
    return int(num)
