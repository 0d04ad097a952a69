"""What the soak knows of one place, and how a command is tried there until it is done."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.bench.soak.attempts import Attempt, CommandFailedError, attempt, reap, undisturbed
from infra.bench.soak.compare import differences
from infra.bench.soak.faults import NO_FAULT, FaultAction, Scene, faults_for, grow
from infra.bench.soak.places import Place
from shards.dataset.dataset import Dataset
from tests.ingest.withdrawal.material import identifiers_of

__all__ = ["GROWN", "WITHDRAWN", "Group", "Judge", "Session"]

GROWN, WITHDRAWN = "grown source", "withdrawn group"
"""Faults by another command or person that works with the same data."""
Group = tuple[str, str]
"""Source, and the group's pseudonym."""

_FIRST_FILES = 16
_LEAST_SAMPLES = 10

Judge = Callable[[Attempt], Sequence[str] | None]
"""Findings about a command that ended with exit code 0; None where it says itself that it is not done."""


@dataclass(slots=True, kw_only=True)
class Session:
    """What the soak does at one place.

    Attributes:
        place: Where.
        rng: Decides everything.
        seed: Of the material.
        show: Told of every attempt.
        first_turn: The place in the sequence of commands at which each dataset begins.
        most_faults: Under so many a command is tried at most, before it is left alone.
        attempts: All so far.
        rounds: How many the present dataset has seen.
        same_history: Whether the present dataset was committed job by job like its reference.
        run: The newest undisturbed training run of the present dataset's reference.
        withdrawn: What no object of the present dataset may hold after a purge, for each withdrawn group.
    """

    place: Place
    rng: random.Random
    seed: int
    show: Callable[[Attempt], None]
    first_turn: int = 0
    most_faults: int = 3
    attempts: list[Attempt] = field(default_factory=list)
    rounds: int = 0
    same_history: bool = True
    run: Path | None = None
    withdrawn: dict[Group, Mapping[str, list[bytes]]] = field(default_factory=dict)
    _meanwhile: list[Group] = field(default_factory=list)
    _usual: dict[str, float] = field(default_factory=dict)

    def insist(
        self,
        action: str,
        arguments: Sequence[str],
        *,
        judge: Judge,
        follow: Callable[[Attempt], None] = lambda _: None,
        between: Callable[[], None] = lambda: None,
        reads_only: bool = False,
        more_faults: Mapping[str, FaultAction] | None = None,
    ) -> None:
        """Try a command under faults until it is done, the last time without one.

        Args:
            action: Name of what is asked for.
            arguments: Of the command line.
            judge: Looks at an attempt that ended with exit code 0.
            follow: Called after every attempt, before it is judged.
            between: Called before every attempt but the first.
            reads_only: Whether the command only reads the dataset.
            more_faults: Faults of this command alone.
        """
        faults = {**faults_for(self.place, reads_only=reads_only), **(more_faults or {})}
        chosen = self.rng.sample(sorted(faults), self.rng.randint(1, self.most_faults))
        mine: list[Attempt] = []
        for fault in [*((name, faults[name]) for name in chosen), NO_FAULT]:
            if mine:
                between()
            seconds = self._usual.get(action, 3.0)
            one = attempt(self.place, action, arguments, fault=fault, rng=self.rng, seconds=seconds)
            mine.append(one)
            self.catch_up()
            follow(one)
            verdict = judge(one) if one.exit_code == 0 else None
            one.findings += verdict or ()
            if fault is NO_FAULT and (one.exit_code or verdict is None):
                one.findings.append(f"not done although nothing disturbed it: {one.error}")
            self.keep(one)
            if verdict is not None:
                self._usual[action] = one.seconds
                break
        reap(mine)

    def keep(self, one: Attempt) -> None:
        """Remember an attempt, and show it."""
        self.attempts.append(one)
        self.show(one)

    def differences(self) -> list[str]:
        """What the dataset has otherwise than its reference."""
        return differences(self.place.dataset, self.place.reference, same_history=self.same_history)

    def grow(self, source: str, count: int | None = None) -> None:
        """Add raw files to a source."""
        if count is None:
            count = self.rng.randint(2, 6) + (0 if source in self.place.files else _FIRST_FILES)
        grow(self.place, source, count, seed=self.seed * 1_000_000 + self.place.generation * 100_000)

    def choose_group(self, rng: random.Random) -> Group | None:
        """A group of the reference without which enough samples stay to be trained on; None where there is none."""
        dataset = Dataset.find(self.place.reference)
        if dataset is None:
            return None
        sql = (
            "SELECT source, group_id FROM samples GROUP BY ALL "
            "HAVING (SELECT count(*) FROM samples) - count(*) >= ? ORDER BY ALL"
        )
        groups = [(row["source"], row["group_id"]) for row in dataset.query(sql, params=[_LEAST_SAMPLES]).to_pylist()]
        return rng.choice(groups) if groups else None

    def withdrawal(self, dataset: str, group: Group) -> list[str]:
        """The command that takes a group out of a dataset."""
        source, name = group
        return ["withdraw", dataset, "--source", source, "--group", name, "--json"]

    def withdraw_from_reference(self, group: Group) -> None:
        """Take a group out of the reference, and remember what it was."""
        self.withdrawn[group] = identifiers_of(Dataset.open(self.place.reference), group[1])
        undisturbed(self.withdrawal(self.place.reference, group))

    def withdraw_meanwhile(self, scene: Scene) -> None:
        """A fault: another process takes a group out of the dataset while the command runs."""
        group = self.choose_group(scene.rng)
        if group is None:
            return
        scene.wait_a_while()
        try:
            undisturbed(self.withdrawal(self.place.dataset, group))
        except CommandFailedError as error:
            scene.failures.append(str(error))
        self._meanwhile.append(group)

    def catch_up(self) -> None:
        """Take out of the reference what was taken out of the dataset meanwhile."""
        while self._meanwhile:
            self.withdraw_from_reference(self._meanwhile.pop())

    def committed(self) -> tuple[int, Sequence[Mapping[str, Any]]]:
        """The dataset's version and its jobs; -1 where there is none yet."""
        dataset = Dataset.find(self.place.dataset)
        return (-1, []) if dataset is None else (dataset.version(), dataset.jobs())

    def start_another(self) -> None:
        """Leave the present dataset, and begin with an empty one."""
        shutil.rmtree(self.place.folder, ignore_errors=True)
        shutil.rmtree(self.place.references, ignore_errors=True)
        if self.place.server is None:
            shutil.rmtree(self.place.base, ignore_errors=True)
        self.place.generation += 1
        self.place.files.clear()
        self.withdrawn.clear()
        self.rounds, self.same_history, self.run = 0, True, None
