"""`biovfm probe`."""

from __future__ import annotations

from infra.commands._probing import DEFAULTS, Options, probe_all
from shards.errors import ConfigError


def probe(
    *checkpoints: str,
    seeds: int = 1,
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
        Repetitions; they matter for random weights, --shots and --paper-protocol only.
    shots
        Fit on that many training images a class.
    paper_protocol
        BioVFM's own probe: BatchNorm and a linear head by AdamW on augmented images, 100 epochs. Slow.
    train_mode_backbone
        With --paper-protocol: leave the frozen backbone in train mode, as the authors' code does, so that
        stochastic depth stays on while the head trains. Off, because it makes DINOv2 and MAE incomparable.
    epochs
        With --paper-protocol: epochs.
    """
    from eval.medmnist.data import Task
    from eval.probes.features import Report
    from eval.probes.linear import ProbeResult
    from eval.probes.linear import probe as probe_linear
    from eval.probes.paper import probe_paper

    if paper_protocol and shots is not None:
        raise ConfigError("--paper-protocol fits on all training images", hint="leave out --shots")
    if train_mode_backbone and not paper_protocol:
        raise ConfigError("--train-mode-backbone belongs to --paper-protocol")
    chosen = options.extraction()

    def classify(checkpoint: str, task: Task, report: Report) -> list[ProbeResult]:
        if paper_protocol:
            own = {key: value for key, value in chosen.items() if key not in {"pooling", "batch_size"}}
            return probe_paper(
                checkpoint,
                [task],
                seeds=range(seeds),
                num_epochs=epochs,
                train_mode_backbone=train_mode_backbone,
                report=report,
                **own,
            )
        return probe_linear(checkpoint, [task], seeds=range(seeds), shots=shots, report=report, **chosen)

    probe_all(checkpoints, options, classify, command="probe")
