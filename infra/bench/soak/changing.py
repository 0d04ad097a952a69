"""The commands that change a dataset; what each leaves must be what it leaves of the undisturbed reference."""

from __future__ import annotations

from collections.abc import Sequence

from infra.bench.soak.attempts import Attempt, undisturbed
from infra.bench.soak.faults import Scene
from infra.bench.soak.material import SOURCES, num_files
from infra.bench.soak.session import GROWN, WITHDRAWN, Session
from shards.dataset.dataset import Dataset
from tests.ingest.withdrawal.material import traces

__all__ = ["compact", "ingest", "ingest_command", "purge", "withdraw"]

_SETTINGS = "unit_files: 4\nshard_bytes: 60000\n"


def ingest_command(session: Session, source: str, dataset: str, *, workers: int) -> list[str]:
    """The command that ingests a source."""
    settings = session.place.work / "settings.yaml"
    settings.write_text(_SETTINGS, encoding="utf-8")
    return [
        "ingest", source, session.place.raw(source), dataset, *SOURCES[source],
        "--settings", str(settings), "--workers", str(workers), "--json",
    ]  # fmt: skip


def ingest(session: Session, source: str) -> None:
    """Ingest a source; its reference follows after every commit."""
    command = ingest_command(session, source, session.place.dataset, workers=session.rng.choice((0, 1, 2)))
    before, _ = session.committed()
    least = num_files(source, session.place.files[source])

    def follow(one: Attempt) -> None:
        version, jobs = session.committed()
        if version > before or one.exit_code == 0:
            raced = one.fault in (GROWN, WITHDRAWN)
            session.same_history &= not raced and not any(job.get("pending") for job in jobs)
            undisturbed(ingest_command(session, source, session.place.reference, workers=0))

    def judge(one: Attempt) -> Sequence[str] | None:
        answer = one.answer
        findings = [f"exit code 0 with {answer['pending']} files pending"] if answer.get("pending") else []
        if answer.get("files", 0) < least:
            findings.append(f"listed {answer.get('files', 0)} files of {least}")
        if one.fault == GROWN:  # the new file may have come before the listing or after it
            return findings or None
        return [*findings, *session.differences()]

    def grow_meanwhile(scene: Scene) -> None:
        scene.wait_a_while()
        session.grow(source, 1)

    session.insist(
        "ingest", command, judge=judge, follow=follow,
        between=lambda: session.grow(source) if session.rng.random() < 0.2 else None,
        more_faults={GROWN: grow_meanwhile, WITHDRAWN: session.withdraw_meanwhile},
    )  # fmt: skip


def compact(session: Session) -> None:
    """Merge the small shards of dataset and reference."""

    def command(dataset: str) -> list[str]:
        return ["compact", dataset, "--shard-mb", "1", "--json"]

    def follow(one: Attempt) -> None:
        session.same_history &= one.fault != WITHDRAWN  # which of the two came first, the shards tell

    undisturbed(command(session.place.reference))
    session.insist(
        "compact", command(session.place.dataset), judge=lambda _: session.differences(), follow=follow,
        more_faults={WITHDRAWN: session.withdraw_meanwhile},
    )  # fmt: skip


def withdraw(session: Session) -> None:
    """Take a group out of dataset and reference."""
    group = session.choose_group(session.rng)
    if group is None:
        return
    session.withdraw_from_reference(group)
    command = session.withdrawal(session.place.dataset, group)
    session.insist("withdraw", command, judge=lambda _: session.differences())


def purge(session: Session) -> None:
    """Take everything that was withdrawn out of the store: no object may hold any of it afterwards."""
    if not session.withdrawn:
        return

    def judge(one: Attempt) -> Sequence[str]:
        done = one.answer.get("purged") or {}
        kept = [f"kept {done[name]}" for name in ("waiting", "young") if done.get(name)]
        return [*kept, *_traces(session), *session.differences()]

    session.insist(
        "purge", ["withdraw", session.place.dataset, "--purge", "--grace", "0", "--yes", "--json"], judge=judge
    )


def _traces(session: Session) -> list[str]:
    """Where something of the withdrawn groups is found in the dataset's objects."""
    dataset = Dataset.open(session.place.dataset)
    return [f"after the purge: {line}" for group in session.withdrawn.values() for line in traces(dataset, group)]
