"""`biovfm probe`."""

from __future__ import annotations

from infra.commands._probing import DEFAULTS, Options, probe_all
from shards.errors import ConfigError

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
    options: Options = DEFAULTS,
) -> None:
    """Linear probes of frozen backbones on MedMNIST, with intervals; several models are compared pair by pair.

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

    probe_all(checkpoints, options, classify, command="probe", size_px=PAPER_PX if paper_protocol else None)


def _check(*, seeds: int, shots: int | None, epochs: int, paper: bool, train_mode: bool) -> None:
    for name, value in (("--seeds", seeds), ("--shots", shots), ("--epochs", epochs)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} {value} is not positive", hint=f"pass {name} 1 or more")
    if paper and shots is not None:
        raise ConfigError("--paper-protocol fits on all training images", hint="leave out --shots")
    if train_mode and not paper:
        raise ConfigError("--train-mode-backbone belongs to --paper-protocol", hint="add --paper-protocol")
