"""See the package: `python -m infra.bench.soak --minutes 5 --seed 1`."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from infra import s3_server
from infra.bench.soak.attempts import Attempt, CommandFailedError
from infra.bench.soak.places import disk_place, store_place
from infra.bench.soak.rounds import finish, one_round
from infra.bench.soak.session import Session
from shards.errors import ConfigError

_LINES_SHOWN = 40
PLACES = {"disk": disk_place, "s3": store_place}


def soak(
    *, minutes: float, seed: int, places: Sequence[str], most_faults: int = 3, verbose: bool = True
) -> list[Attempt]:
    """Run rounds at every place in turn until the time is up.

    Args:
        minutes: After which no round begins.
        seed: Of the faults, their moments and the material.
        places: `disk`, `s3`.
        most_faults: Under so many a command is tried at most, before it is left alone.
        verbose: Print a line for each attempt on standard error.

    Returns:
        Every attempt; those with findings are what must not be.
    """
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="biovfm-soak-")))
        sessions = []
        for turn, name in enumerate(places):
            place = stack.enter_context(PLACES[name](work / name))
            place.work.mkdir(parents=True, exist_ok=True)
            rng = random.Random(f"{seed} {name}")  # noqa: S311 - chance that can be repeated
            show = _tell if verbose else _say_nothing
            sessions.append(
                Session(place=place, rng=rng, seed=seed, show=show, first_turn=turn, most_faults=most_faults)
            )
        end = time.monotonic() + 60 * minutes  # a slow start of the server takes nothing away
        while time.monotonic() < end:
            for session in sessions:
                _or_a_finding(session, one_round)
        for session in sessions:
            _or_a_finding(session, finish)
        return [one for session in sessions for one in session.attempts]


def _or_a_finding(session: Session, do: Callable[[Session], None]) -> None:
    """Do something; where a command of the reference fails, that is a finding, and another dataset is begun."""
    try:
        do(session)
    except CommandFailedError as error:
        one = Attempt(place=session.place.name, action="reference", fault="none", exit_code=1, findings=[str(error)])
        session.keep(one)
        session.start_another()


def _say_nothing(_one: Attempt) -> None:
    pass


def _tell(one: Attempt) -> None:
    line = f"{one.place:4} {one.action:10} {one.fault} {one.detail}: exit code {one.exit_code}, {one.seconds:.1f} s"
    error = f"; {one.error[:160]}" if one.exit_code > 0 else ""
    sys.stderr.write(f"{line}{error}\n" + "".join(f"    FINDING: {finding}\n" for finding in one.findings))
    sys.stderr.write("".join(f"    | {line}\n" for line in one.errors[-_LINES_SHOWN:] if one.findings))
    sys.stderr.flush()


def table(attempts: Iterable[Attempt]) -> str:
    """Attempts by place, command and fault: how they ended."""
    kinds = Counter[tuple[str, str, str]]()
    ends = Counter[tuple[tuple[str, str, str], str]]()
    for one in attempts:
        kind = (one.place, one.action, one.fault)
        kinds[kind] += 1
        ends[kind, "done" if one.exit_code == 0 else "killed" if one.exit_code < 0 else "failed"] += 1
        ends[kind, "findings"] += len(one.findings)
    columns = ("done", "failed", "killed", "findings")
    lines = [
        "| place | command | fault | attempts | exit code 0 | error in one line | killed | findings |",
        "|---" * 8 + "|",
    ]
    for kind, number in sorted(kinds.items()):
        lines.append("| " + " | ".join([*kind, str(number), *(str(ends[kind, name]) for name in columns)]) + " |")
    return "\n".join(lines)


def main() -> int:
    """Print the table; exit code 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--places", nargs="+", choices=sorted(PLACES), default=_available())
    parser.add_argument("--json", action="store_true", help="one object per attempt instead of the table")
    arguments = parser.parse_args()
    attempts = soak(minutes=arguments.minutes, seed=arguments.seed, places=arguments.places)
    found = [one for one in attempts if one.findings]
    if arguments.json:
        print(json.dumps([_record(one) for one in attempts], indent=2))
    else:
        print(table(attempts))
        print(f"\n{len(attempts)} attempts, {sum(len(one.findings) for one in found)} findings (seed {arguments.seed})")
        for one in found:
            print(f"- {one.place}, {one.action}, {one.fault} {one.detail}: {'; '.join(one.findings)}")
    return 1 if found else 0


def _record(one: Attempt) -> dict[str, object]:
    names = ("place", "action", "fault", "detail", "exit_code", "seconds", "error", "findings")
    return {name: getattr(one, name) for name in names}


def _available() -> list[str]:
    try:
        s3_server.find_program()
    except ConfigError:
        return ["disk"]
    return ["disk", "s3"]


if __name__ == "__main__":
    sys.exit(main())
