"""`biovfm withdraw`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from infra.console import answer, answer_table, emit, number, size, stderr

if TYPE_CHECKING:
    from pydantic import SecretStr

    from ingest.withdrawal.choose import Chosen
    from ingest.withdrawal.holders import Holder
    from ingest.withdrawal.purge import Purged
    from ingest.withdrawal.withdraw import Withdrawn
    from shards.dataset.dataset import Dataset


def withdraw(
    dataset: str,
    /,
    *,
    group: tuple[str, ...] = (),
    key: tuple[str, ...] = (),
    raw_path: tuple[str, ...] = (),
    source: tuple[str, ...] = (),
    reason: Literal["consent", "rights", "quality", "other"] = "consent",
    lock: tuple[Path, ...] = (),
    run: tuple[Path, ...] = (),
    purge: bool = False,
    grace: float = 7.0,
    dry_run: bool = False,
    yes: bool = False,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Take samples out of a dataset and keep them out; with --purge also out of its older versions and the store.

    Shards are written again without the samples, their rows leave all tables, and tombstones let later jobs reject the
    same pixels, and whatever else comes of a withdrawn group. Who streams an older version reads on until the purge.
    A command that was interrupted is completed by the next one.

    Example: `biovfm withdraw ./data --source our-ct --group PATIENT-0815 --lock ct.lock.yaml --dry-run`

    Example: `biovfm withdraw ./data --purge --yes`

    Parameters
    ----------
    dataset
        Folder or URL of the dataset.
    group
        A patient's (or volume's) own identifier, as the source's grouping rule sees it, or the pseudonym in `group_id`;
        may be repeated.
    key
        Key of a sample; may be repeated.
    raw_path
        A raw file, a folder or an archive, below the source's raw URL, or a raw path as the index has it; may be
        repeated.
    source
        Only samples of this source; without any of the others, all of them. May be repeated.
    reason
        Kept with the tombstones and in the history; says nothing of the person.
    lock
        Say whether this lock held the samples, and which command makes one without them; may be repeated.
    run
        Say whether this pretraining run saw the samples; may be repeated.
    purge
        Take the bytes out of older versions and of the store, for withdrawals whose grace has ended. Older versions
        cannot be read afterwards.
    grace
        Days after a withdrawal until a purge takes its bytes; with 0, no ingest may run on the dataset.
    dry_run
        Say what would go and change nothing.
    yes
        Do not ask before a purge.
    json_
        Print one JSON object.
    """
    from ingest.withdrawal.choose import Asked, choose
    from ingest.withdrawal.holders import holders_of
    from ingest.withdrawal.withdraw import require_match
    from ingest.withdrawal.withdraw import withdraw as take_out
    from shards.dataset import Dataset
    from shards.errors import ConfigError

    asked = Asked(groups=group, keys=key, raw_paths=raw_path, sources=source)
    if asked == Asked() and not purge:
        raise ConfigError("nothing to withdraw", hint="give --group, --key, --raw-path or --source, or --purge")
    if grace < 0:
        raise ConfigError(f"--grace {grace:g}: days are not negative", hint="give 0 for at once")
    opened = Dataset.open(dataset)
    secret = _secret(opened, create=not dry_run)
    if purge and not dry_run:
        _confirm(opened, yes=yes)
    chosen, done = None, None
    holders: Sequence[Holder] = ()
    if asked != Asked():
        chosen = choose(opened, asked, secret)
        holders = holders_of(opened, chosen, locks=lock, runs=run)
        if dry_run:
            require_match(opened, chosen, asked, secret)
        else:
            done = take_out(opened, asked, secret, reason=reason, progress=_tell)
    purged = _purge(opened, secret, grace=grace, dry_run=dry_run) if purge else None
    if json_:
        _emit(opened, chosen, done, purged, holders)
    else:
        _show(opened, chosen, done, purged, holders)
    return 1 if purged is not None and purged.young else 0


def _secret(dataset: Dataset, *, create: bool) -> SecretStr:
    """The dataset's secret; one is made for a dataset that needed none so far, since tombstones do."""
    from ingest.job.secret_check import needs_no_other, require_secret
    from ingest.privacy.secret import load_secret

    secret = load_secret(create=create and needs_no_other(dataset.url))
    require_secret(dataset, secret)
    return secret


def _confirm(dataset: Dataset, *, yes: bool) -> None:
    """Ask before older versions are taken away."""
    from shards.errors import ConfigError

    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(
            "a purge takes older versions away for good", hint="look at it with --dry-run, then add --yes"
        )
    sys.stderr.write(f"Take the withdrawn samples out of all older versions of {dataset.url}, for good? [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError("nothing was purged", hint="answer y, or give --yes")


def _purge(dataset: Dataset, secret: SecretStr, *, grace: float, dry_run: bool) -> Purged:
    from ingest.withdrawal.purge import purge

    return purge(dataset, secret, grace=timedelta(days=grace), progress=_tell, dry_run=dry_run)


def _tell(line: str) -> None:
    stderr().print(line, soft_wrap=True)


def _emit(
    dataset: Dataset,
    chosen: Chosen | None,
    done: Withdrawn | None,
    purged: Purged | None,
    holders: Sequence[Holder],
) -> None:
    emit(
        {
            "dataset": dataset.url,
            "version": dataset.version(),
            "would_withdraw": None if chosen is None or done is not None else len(chosen.samples),
            "withdrawn": None if done is None else asdict(done),
            "purged": None if purged is None else asdict(purged),
            "held": [asdict(holder) for holder in holders],
        }
    )


def _show(
    dataset: Dataset,
    chosen: Chosen | None,
    done: Withdrawn | None,
    purged: Purged | None,
    holders: Sequence[Holder],
) -> None:
    if done is not None:
        _show_done(dataset, done)
    elif chosen is not None:
        answer(
            f"would withdraw {number(len(chosen.samples), 'sample')}, {number(len(chosen.paths), 'raw file')}; "
            "nothing was changed (--dry-run)"
        )
    answer_table("held by", [asdict(holder) for holder in holders])
    if purged is not None:
        _show_purged(dataset, purged)


def _show_done(dataset: Dataset, done: Withdrawn) -> None:
    for name in done.completed:
        answer(f"completed {name}, which had been interrupted")
    if done.repeated:
        answer("withdrawn before; nothing to do")
        return
    answer(
        f"{dataset.url}: version {done.version}; withdrew {number(done.num_samples, 'sample')}, "
        f"{number(done.num_files, 'raw file')}"
        + (f"; {done.num_copies:,} of them were copies without a row" if done.num_copies else "")
    )
    for source, count in done.by_source.items():
        answer(f"  {source:<20} {count:>10,}")
    answer(
        f"older versions hold them until the purge: `biovfm withdraw {dataset.url} --purge --yes`; pages of `biovfm "
        "report` and `ingest --report` may show them still: write them anew"
    )


def _show_purged(dataset: Dataset, purged: Purged) -> None:
    if purged.names:
        answer(
            f"{dataset.url}: purged what {number(len(purged.names), 'withdrawal')} left: "
            f"{number(purged.num_objects, 'object')} ({size(purged.num_bytes)}), "
            f"{purged.num_entries:,} of the logs' entries; "
            f"versions before {purged.first_version} cannot be read any more"
        )
    for name, until in purged.waiting.items():
        answer(f"{name} waits until {until} (--grace)")
    if not purged.names and not purged.waiting:
        answer("nothing was withdrawn from this dataset; nothing to purge")
    if purged.young:
        stderr().print(
            f"{number(len(purged.young), 'object')} that no version names may belong to a job that runs (such as "
            f"{purged.young[0]}); purge again when no job runs, in a day or with --grace 0",
            soft_wrap=True,
        )
