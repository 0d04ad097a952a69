"""The commands that use a dataset: they must give what they give of the undisturbed reference."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.bench.soak.attempts import Attempt, undisturbed
from infra.bench.soak.material import write_labels, write_recipe
from infra.bench.soak.session import WITHDRAWN, Session
from shards.dataset.dataset import Dataset
from shards.store import join_url

__all__ = ["pretrain", "probe", "stream", "verify"]

_TIMES = ("seconds", "origin", "scores_path", "lines")


def stream(session: Session) -> None:
    """Stream an epoch: its keys, or its images.

    While a group is withdrawn, a stream gives the version before it or the one after it, nothing between them.
    """
    words = ["stream", "{}", "--global-batch", "8", "--epoch", str(session.rng.randrange(5)), "--last", "pad"]
    only_keys = session.rng.random() < 0.3
    words += (
        ["--keys"] if only_keys else ["--workload", session.rng.choice(("raw", "center")), "--size", "64", "--json"]
    )
    judge_one = _judge_keys if only_keys else _judge_images
    versions = [undisturbed([word.format(session.place.reference) for word in words])]

    def follow(one: Attempt) -> None:
        if one.fault == WITHDRAWN:
            versions.append(undisturbed([word.format(session.place.reference) for word in words]))

    def judge(one: Attempt) -> Sequence[str]:
        allowed = versions[-2:] if one.fault == WITHDRAWN else versions[-1:]
        findings = [judge_one(one, expected) for expected in allowed]
        return [] if [] in findings else findings[-1]

    session.insist(
        "stream", [word.format(session.place.dataset) for word in words], judge=judge, follow=follow, reads_only=True,
        more_faults={WITHDRAWN: session.withdraw_meanwhile},
    )  # fmt: skip


def lock(session: Session) -> tuple[Path, Path]:
    """Pin the dataset and its reference; both locks must agree."""
    name = f"round{session.rounds}.lock.yaml"
    mine, other = session.place.folder / name, session.place.references / name
    expected = undisturbed(["subset", "create", session.place.reference, "--out", str(other), "--json"])

    def judge(one: Attempt) -> Sequence[str]:
        wrong = [key for key in ("digest", "order", "num_samples") if one.answer.get(key) != expected[key]]
        return [f"other {key}: {one.answer.get(key)} for {expected[key]}" for key in wrong]

    session.insist("subset", ["subset", "create", session.place.dataset, "--out", str(mine), "--json"], judge=judge)
    return mine, other


def pretrain(session: Session) -> None:
    """Train a few steps; every loss must be that of the undisturbed run."""
    mine, other = lock(session)
    name = f"run{session.rounds}"
    recipe = write_recipe(session.place.references / f"{name}.yaml")
    session.run = session.place.references / name
    undisturbed(["pretrain", str(other), "--recipe", str(recipe), "--out", str(session.run), "--json"])
    expected = _losses(session.run)
    out = session.place.folder / name
    mirror = join_url(session.place.base, f"mirror-{name}") if session.place.server else None
    recipe = write_recipe(session.place.folder / f"{name}.yaml", mirror=mirror)

    def judge(one: Attempt) -> Sequence[str] | None:
        if not one.answer.get("finished"):
            return None if one.fault == "SIGTERM" else ["exit code 0 and not finished"]
        return [] if _losses(out) == expected else [f"other losses: {_losses(out)[-1:]} for {expected[-1:]}"]

    def between() -> None:
        if mirror and session.rng.random() < 0.3:  # as on a machine that takes over
            shutil.rmtree(out / "checkpoints", ignore_errors=True)

    session.insist(
        "pretrain", ["pretrain", str(mine), "--recipe", str(recipe), "--out", str(out), "--json"],
        judge=judge, between=between, more_faults={WITHDRAWN: session.withdraw_meanwhile},
    )  # fmt: skip


def probe(session: Session) -> None:
    """Probe the newest run on labels for the dataset's samples; the scores must be those of the reference."""
    if session.run is None:
        return
    mine, other = lock(session)
    labels = write_labels(session.place.references / "labels.csv", Dataset.open(session.place.reference))

    def command(lock: Path, cache: Path) -> list[str]:
        return [
            "probe", str(session.run), "--labels", str(labels), "--lock", str(lock), "--size", "28", "--json",
            "--cache", str(cache / f"features{session.rounds}"),
        ]  # fmt: skip

    expected = _scores(undisturbed(command(other, session.place.references)))

    def judge(one: Attempt) -> Sequence[str]:
        found = _scores(one.answer)
        return [] if found == expected else [f"other scores: {found[:300]} for {expected[:300]}"]

    session.insist(
        "probe", command(mine, session.place.folder), judge=judge, more_faults={WITHDRAWN: session.withdraw_meanwhile}
    )


def verify(session: Session) -> None:
    """Verify under faults: what is whole must never be called damaged, what is damaged never whole."""

    def judge(one: Attempt) -> Sequence[str]:
        return ["a changed byte was not found"] if one.rotten else []

    def follow(one: Attempt) -> None:
        damaged = [found for found in one.answer.get("problems", ()) if found["kind"] != "unreadable"]
        if damaged and not one.rotten:
            one.findings.append(f"called damaged: {damaged[:2]}")

    command = ["verify", session.place.dataset, "--deep", "--json"]
    session.insist(
        "verify", command, judge=judge, follow=follow, reads_only=True,
        more_faults={WITHDRAWN: session.withdraw_meanwhile},
    )  # fmt: skip


def _judge_keys(one: Attempt, expected: Mapping[str, Any]) -> list[str]:
    lines = expected["lines"]
    return [] if one.lines == lines else [f"other keys: {one.lines[:2]} for {lines[:2]}"]


def _judge_images(one: Attempt, expected: Mapping[str, Any]) -> list[str]:
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
