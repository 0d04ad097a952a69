"""One place through its rounds: a source grows, is ingested, streamed, trained on, probed and verified."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.bench.soak.attempts import Attempt, attempt, reap, undisturbed
from infra.bench.soak.compare import differences
from infra.bench.soak.faults import NO_FAULT, faults_for, grow
from infra.bench.soak.material import SOURCES, write_labels, write_recipe
from infra.bench.soak.places import Place
from shards.dataset.dataset import Dataset
from shards.store import join_url

__all__ = ["Session"]

_ROUNDS_PER_DATASET = 6
_MOST_FAULTS = 3
_FIRST_FILES = 12
_SETTINGS = "unit_files: 4\nshard_bytes: 60000\n"
_TIMES = ("seconds", "origin", "scores_path", "lines")

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
        attempts: All so far.
        rounds: How many the present dataset has seen.
        same_history: Whether the present dataset was committed job by job like its reference.
        run: The newest undisturbed training run of the present dataset's reference.
    """

    place: Place
    rng: random.Random
    seed: int
    show: Callable[[Attempt], None]
    attempts: list[Attempt] = field(default_factory=list)
    rounds: int = 0
    same_history: bool = True
    run: Path | None = None
    _usual: dict[str, float] = field(default_factory=dict)

    def one_round(self) -> None:
        """Grow a source, ingest it, and use the dataset."""
        if self.rounds >= _ROUNDS_PER_DATASET or not self.same_history:
            self.finish()
            self._start_another()
        source = list(SOURCES)[self.rounds % len(SOURCES)]
        self._grow(source)
        self.ingest(source)
        if self.same_history:
            self.stream()
            (self.pretrain, self.probe, self.verify)[self.rounds % 3]()
        self.rounds += 1

    def finish(self) -> None:
        """Hold the present dataset against its reference for the last time."""
        if not self.rounds and not self.place.files:
            return
        one = attempt(
            self.place, "verify at the end", ["verify", self.place.dataset, "--deep", "--json"],
            fault=NO_FAULT, rng=self.rng, seconds=1,
        )  # fmt: skip
        if one.exit_code or one.answer.get("problems"):
            one.findings.append(f"not clean: {one.answer.get('problems') or one.error}")
        one.findings += differences(self.place.dataset, self.place.reference, same_history=self.same_history)
        self._keep(one)

    def ingest(self, source: str) -> None:
        """Ingest a source; its reference follows after every commit."""
        settings = self.place.work / "settings.yaml"
        settings.write_text(_SETTINGS, encoding="utf-8")

        def command(dataset: str, workers: int) -> list[str]:
            return [
                "ingest", source, self.place.raw(source), dataset, "--modality", SOURCES[source], "--group", "file",
                "--settings", str(settings), "--workers", str(workers), "--json",
            ]  # fmt: skip

        def follow(one: Attempt) -> None:
            version, jobs = self._committed()
            if version > before or one.exit_code == 0:
                self.same_history &= not any(job.get("pending") for job in jobs)
                undisturbed(command(self.place.reference, 0))

        def judge(one: Attempt) -> Sequence[str]:
            pending = [f"exit code 0 with {one.answer['pending']} files pending"] if one.answer.get("pending") else []
            return [*pending, *differences(self.place.dataset, self.place.reference, same_history=self.same_history)]

        before, _ = self._committed()
        self._insist(
            "ingest", command(self.place.dataset, self.rng.choice((0, 1, 2))), judge=judge, follow=follow,
            between=lambda: self._grow(source) if self.rng.random() < 0.2 else None,
        )  # fmt: skip

    def stream(self) -> None:
        """Stream an epoch: its keys, or its images."""
        order = ["--global-batch", "8", "--epoch", str(self.rng.randrange(5)), "--last", "pad"]
        if self.rng.random() < 0.3:
            words = ["stream", "{}", "--keys", *order]
            expected = undisturbed([word.format(self.place.reference) for word in words])["lines"]

            def judge(one: Attempt) -> Sequence[str]:
                return [] if one.lines == expected else [f"other keys: {one.lines[:2]} for {expected[:2]}"]
        else:
            words = ["stream", "{}", "--workload", self.rng.choice(("raw", "center")), "--size", "64", "--json", *order]
            expected = undisturbed([word.format(self.place.reference) for word in words])

            def judge(one: Attempt) -> Sequence[str]:
                return _judge_stream(one, expected)

        self._insist("stream", [word.format(self.place.dataset) for word in words], judge=judge, reads_only=True)

    def lock(self) -> tuple[Path, Path]:
        """Pin the dataset and its reference; both locks must agree."""
        name = f"round{self.rounds}.lock.yaml"
        mine, other = self.place.folder / name, self.place.references / name
        expected = undisturbed(["subset", "create", self.place.reference, "--out", str(other), "--json"])

        def judge(one: Attempt) -> Sequence[str]:
            wrong = [key for key in ("digest", "order", "num_samples") if one.answer.get(key) != expected[key]]
            return [f"other {key}: {one.answer.get(key)} for {expected[key]}" for key in wrong]

        self._insist("subset", ["subset", "create", self.place.dataset, "--out", str(mine), "--json"], judge=judge)
        return mine, other

    def pretrain(self) -> None:
        """Train a few steps; every loss must be that of the undisturbed run."""
        mine, other = self.lock()
        name = f"run{self.rounds}"
        recipe = write_recipe(self.place.references / f"{name}.yaml")
        self.run = self.place.references / name
        undisturbed(["pretrain", str(other), "--recipe", str(recipe), "--out", str(self.run), "--json"])
        expected = _losses(self.run)
        out = self.place.folder / name
        mirror = join_url(self.place.base, f"mirror-{name}") if self.place.server else None
        recipe = write_recipe(self.place.folder / f"{name}.yaml", mirror=mirror)

        def judge(one: Attempt) -> Sequence[str] | None:
            if not one.answer.get("finished"):
                return None if one.fault == "SIGTERM" else ["exit code 0 and not finished"]
            return [] if _losses(out) == expected else [f"other losses: {_losses(out)[-1:]} for {expected[-1:]}"]

        def between() -> None:
            if mirror and self.rng.random() < 0.3:  # as on a machine that takes over
                shutil.rmtree(out / "checkpoints", ignore_errors=True)

        self._insist(
            "pretrain", ["pretrain", str(mine), "--recipe", str(recipe), "--out", str(out), "--json"],
            judge=judge, between=between,
        )  # fmt: skip

    def probe(self) -> None:
        """Probe the newest run on labels for the dataset's samples; the scores must be those of the reference."""
        if self.run is None:
            return
        mine, other = self.lock()
        labels = write_labels(self.place.references / "labels.csv", Dataset.open(self.place.reference))

        def command(lock: Path, cache: Path) -> list[str]:
            return [
                "probe", str(self.run), "--labels", str(labels), "--lock", str(lock), "--size", "28", "--json",
                "--cache", str(cache / f"features{self.rounds}"),
            ]  # fmt: skip

        expected = _scores(undisturbed(command(other, self.place.references)))

        def judge(one: Attempt) -> Sequence[str]:
            found = _scores(one.answer)
            return [] if found == expected else [f"other scores: {found[:300]} for {expected[:300]}"]

        self._insist("probe", command(mine, self.place.folder), judge=judge)

    def verify(self) -> None:
        """Verify under faults: what is whole must never be called damaged, what is damaged never whole."""

        def judge(one: Attempt) -> Sequence[str]:
            return ["a changed byte was not found"] if one.rotten else []

        def follow(one: Attempt) -> None:
            damaged = [found for found in one.answer.get("problems", ()) if found["kind"] != "unreadable"]
            if damaged and not one.rotten:
                one.findings.append(f"called damaged: {damaged[:2]}")

        command = ["verify", self.place.dataset, "--deep", "--json"]
        self._insist("verify", command, judge=judge, follow=follow, reads_only=True)

    def _insist(
        self,
        action: str,
        arguments: Sequence[str],
        *,
        judge: Judge,
        follow: Callable[[Attempt], None] = lambda _: None,
        between: Callable[[], None] = lambda: None,
        reads_only: bool = False,
    ) -> None:
        """Try a command under faults until it is done, the last time without one."""
        faults = faults_for(self.place, reads_only=reads_only)
        chosen = self.rng.sample(sorted(faults), self.rng.randint(1, _MOST_FAULTS))
        mine: list[Attempt] = []
        for fault in [*((name, faults[name]) for name in chosen), NO_FAULT]:
            if mine:
                between()
            seconds = self._usual.get(action, 3.0)
            one = attempt(self.place, action, arguments, fault=fault, rng=self.rng, seconds=seconds)
            mine.append(one)
            follow(one)
            verdict = judge(one) if one.exit_code == 0 else None
            one.findings += verdict or ()
            if one.exit_code and fault is NO_FAULT:
                one.findings.append(f"failed undisturbed: {one.error}")
            self._keep(one)
            if verdict is not None:
                self._usual[action] = one.seconds
                break
        reap(mine)

    def _keep(self, one: Attempt) -> None:
        self.attempts.append(one)
        self.show(one)

    def _grow(self, source: str) -> None:
        count = self.rng.randint(2, 6) + (0 if source in self.place.files else _FIRST_FILES)
        grow(self.place, source, count, seed=self.seed * 1_000_000 + self.place.generation * 100_000)

    def _committed(self) -> tuple[int, Sequence[Mapping[str, Any]]]:
        dataset = Dataset.find(self.place.dataset)
        return (-1, []) if dataset is None else (dataset.version(), dataset.jobs())

    def _start_another(self) -> None:
        shutil.rmtree(self.place.folder, ignore_errors=True)
        shutil.rmtree(self.place.references, ignore_errors=True)
        if self.place.server is None:
            shutil.rmtree(self.place.base, ignore_errors=True)
        self.place.generation += 1
        self.place.files.clear()
        self.rounds, self.same_history, self.run = 0, True, None


def _judge_stream(one: Attempt, expected: Mapping[str, Any]) -> Sequence[str]:
    found = [f"{one.answer['images']} images for {expected['images']}"]
    findings = found if one.answer["images"] != expected["images"] else []
    if one.rotten != bool(one.answer["num_bad"]):
        findings.append(f"{one.answer['num_bad']} bad samples: {one.answer['bad_samples'][:2]}")
    return findings


def _losses(run: Path) -> list[tuple[int, int, float]]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [(line["step"], line["keys_checksum"], line["loss"]) for line in map(json.loads, lines)]


def _scores(answer: Mapping[str, Any]) -> str:
    """Everything of a probe's answer but times and paths."""

    def stripped(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: stripped(item) for key, item in value.items() if key not in _TIMES}
        return [stripped(item) for item in value] if isinstance(value, list) else value

    return json.dumps(stripped(dict(answer)), sort_keys=True)
