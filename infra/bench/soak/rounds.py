"""One place through its rounds: a source grows, is ingested, and the dataset is changed, used and looked over."""

from __future__ import annotations

from infra.bench.soak import changing, using
from infra.bench.soak.attempts import attempt
from infra.bench.soak.faults import NO_FAULT
from infra.bench.soak.material import SOURCES
from infra.bench.soak.session import Session

__all__ = ["finish", "one_round"]

_ROUNDS_PER_DATASET = 6
_TURNS = (
    (changing.withdraw, using.pretrain),
    (changing.compact, using.probe),
    (changing.purge, using.verify),
)


def one_round(session: Session) -> None:
    """Grow a source, ingest it, change the dataset and use it."""
    if session.rounds >= _ROUNDS_PER_DATASET or not session.same_history:
        finish(session)
        session.start_another()
    source = list(SOURCES)[session.rounds % len(SOURCES)]
    session.grow(source)
    changing.ingest(session, source)
    turn = (session.first_turn + session.rounds) % len(_TURNS)
    change, use = _TURNS[turn]
    for step in (change, using.stream, use):
        if session.same_history:  # else neither shards nor order are those of the reference
            step(session)
    session.rounds += 1


def finish(session: Session) -> None:
    """Purge the present dataset, verify it, and hold it against its reference for the last time."""
    if not session.rounds and not session.place.files:
        return
    changing.purge(session)
    one = attempt(
        session.place, "verify at the end", ["verify", session.place.dataset, "--deep", "--json"],
        fault=NO_FAULT, rng=session.rng, seconds=1,
    )  # fmt: skip
    if one.exit_code or one.answer.get("problems"):
        one.findings.append(f"not clean: {one.answer.get('problems') or one.error}")
    one.findings += session.differences()
    session.keep(one)
