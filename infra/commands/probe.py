"""`biovfm probe`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache as cache_once
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from infra.commands._probing import DEFAULTS, Options, ProbeOptions, check_checkpoints, probe_all, show_all
from shards.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from eval.labelled.table import By
    from shards.dataset import Dataset

PAPER_PX = 224
"""Edge of the images in the paper's protocol."""


def probe(
    *checkpoints: str,
    seeds: int = 1,
    seed: int | None = None,
    shots: int | None = None,
    paper_protocol: bool = False,
    train_mode_backbone: bool = False,
    epochs: int = 100,
    labels: Path | None = None,
    lock: str | None = None,
    label: tuple[str, ...] = (),
    ordinal: bool = False,
    dataset: str | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Linear probes of frozen backbones on MedMNIST or on labelled images of your own, with intervals.

    Several models are compared pair by pair. With --labels and --lock the task is your own: whole groups (patients)
    are dealt to training, validation and test, so that none is on two sides.

    Example: `biovfm probe runs/demo random:runs/demo --tasks breast,retina --data ~/medmnist --out results.jsonl`

    Parameters
    ----------
    checkpoints
        Run folders, exports, timm names, ARCHITECTURE@FILE.safetensors, Hugging Face folders, random:…, or pixels.
    seeds
        Repetitions, shown as mean and deviation; they matter for random weights, --shots and --paper-protocol only.
    seed
        The first of them: 0 unless given, the paper's 42 with --paper-protocol.
    shots
        Fit on that many training images per class.
    paper_protocol
        BioVFM's own probe: BatchNorm and a linear head by AdamW on augmented images of 224 px, 100 epochs. Slow.
    train_mode_backbone
        With --paper-protocol: leave the frozen backbone in train mode, as the authors' code does, so that
        stochastic depth stays on while the head trains. Off, because it makes DINOv2 and MAE incomparable.
    epochs
        With --paper-protocol: epochs.
    labels
        CSV of your own labels: a column key, raw_path or group_id, label columns, and split where it is fixed.
    lock
        With --labels: the lock (or dataset) that holds the images; they are cut to squares of --size, else 224 px.
    label
        With --labels: a label column; repeat for several of zeros and ones. All other columns without it.
    ordinal
        With --labels: the classes are ordered.
    dataset
        With --lock: where its dataset lies now.
    """
    from eval.medmnist.data import Task
    from eval.probes.features import Report
    from eval.probes.linear import probe as probe_linear
    from eval.probes.paper import SEED, probe_paper
    from eval.probes.results import ProbeResult

    _check(seeds=seeds, shots=shots, epochs=epochs, paper=paper_protocol, train_mode=train_mode_backbone)
    extraction, resamples = options.extraction(), options.choice.resamples
    first = seed if seed is not None else SEED if paper_protocol else 0
    repeated = range(first, first + seeds)

    def classify(checkpoint: str, task: Task, report: Report) -> list[ProbeResult]:
        if paper_protocol:
            return probe_paper(
                checkpoint,
                [task],
                seeds=repeated,
                num_epochs=epochs,
                train_mode_backbone=train_mode_backbone,
                image_size_px=options.choice.image_size,
                cache=options.cache,
                device=extraction["device"],
                num_resamples=resamples,
                report=report,
            )
        return probe_linear(
            checkpoint, [task], seeds=repeated, shots=shots, num_resamples=resamples, report=report, **extraction
        )

    if labels is not None and lock is not None:
        check_checkpoints(checkpoints, command="probe")
        _check_own(options)

        def load() -> Task:
            from eval.labelled.table import read_labels
            from eval.labelled.task import load_labelled

            table = read_labels(labels, columns=label, ordinal=ordinal)
            size_px = options.choice.size_px(PAPER_PX)
            return load_labelled(
                lock,
                table,
                size_px=size_px,
                seed=seed or 0,
                cache=options.cache,
                dataset=dataset,
                resolve=_resolve,
            )

        show_all(checkpoints, {labels.stem: cache_once(load)}, classify, options)
        return
    _check_alone(labels=labels, lock=lock, label=label, ordinal=ordinal, dataset=dataset)
    probe_all(checkpoints, options, classify, command="probe", size_px=PAPER_PX if paper_protocol else None)


def _resolve(dataset: Dataset, ids: Sequence[str], by: By, version: int | None) -> pa.Table:
    """The samples of a label table's identifiers, in clear or hashed with the user's secret."""
    from ingest.columns.matching import find_samples
    from ingest.privacy.secret import load_secret

    names: dict[By, Literal["key", "group", "raw-path"]] = {"key": "key", "raw_path": "raw-path", "group_id": "group"}
    secret = load_secret(create=False).get_secret_value()
    return find_samples(dataset, ids, names[by], secret=secret, version=version)


def _check_own(options: ProbeOptions) -> None:
    """Refuse what belongs to MedMNIST beside labels of the user's own."""
    options.check()
    choice = options.choice
    given = {"--tasks": choice.tasks != "all", "--data": choice.data is not None, "--skip-missing": choice.skip_missing}
    given["--published"] = options.published
    if wrong := [name for name, is_given in given.items() if is_given]:
        raise ConfigError(f"{wrong[0]} is for MedMNIST's tasks, not for --labels", hint=f"leave {wrong[0]} out")


def _check_alone(
    *, labels: Path | None, lock: str | None, label: Sequence[str], ordinal: bool, dataset: str | None
) -> None:
    if (labels is None) != (lock is None):
        missing, there = ("--lock", "--labels") if labels else ("--labels", "--lock")
        raise ConfigError(
            f"{there} needs {missing}", hint="biovfm probe RUN --labels labels.csv --lock subset.lock.yaml"
        )
    given = {"--label": bool(label), "--ordinal": ordinal, "--dataset": dataset is not None}
    if wrong := [name for name, is_given in given.items() if is_given]:
        raise ConfigError(f"{wrong[0]} belongs to --labels", hint="biovfm probe --help")


def _check(*, seeds: int, shots: int | None, epochs: int, paper: bool, train_mode: bool) -> None:
    for name, value in (("--seeds", seeds), ("--shots", shots), ("--epochs", epochs)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} {value} is not positive", hint=f"pass {name} 1 or more")
    if paper and shots is not None:
        raise ConfigError("--paper-protocol fits on all training images", hint="leave out --shots")
    if train_mode and not paper:
        raise ConfigError("--train-mode-backbone belongs to --paper-protocol", hint="add --paper-protocol")
