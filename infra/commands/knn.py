"""`biovfm knn`."""

from __future__ import annotations

from infra.commands._probing import DEFAULTS, Options, probe_all
from shards.errors import ConfigError


def knn(
    *checkpoints: str,
    k: tuple[int, ...] = (5, 10, 20, 50, 100, 200),
    temperature: float = 0.07,
    options: Options = DEFAULTS,
) -> None:
    """Classify MedMNIST by the k nearest neighbours of frozen features; k is chosen on the validation split.

    Example: `biovfm knn runs/demo --tasks breast --data ~/medmnist`

    Parameters
    ----------
    checkpoints
        Run folders, exports, timm names, ARCHITECTURE@FILE.safetensors, Hugging Face folders, random:…, or pixels.
    k
        Numbers of neighbours to choose from; repeat for several.
    temperature
        Of the softmax over similarities.
    """
    from eval.medmnist.data import Task
    from eval.probes.features import Report
    from eval.probes.knn import knn as classify_by_neighbours
    from eval.probes.results import ProbeResult

    if min(k, default=0) < 1:
        raise ConfigError(f"--k {' '.join(map(str, k))}: not positive", hint="pass --k 5 or another positive number")
    if not temperature > 0:
        raise ConfigError(f"--temperature {temperature:g} is not positive", hint="pass --temperature 0.07")
    extraction = options.extraction()

    def classify(checkpoint: str, task: Task, report: Report) -> list[ProbeResult]:
        return classify_by_neighbours(
            checkpoint,
            [task],
            ks=k,
            temperature=temperature,
            num_resamples=options.choice.resamples,
            report=report,
            **extraction,
        )

    probe_all(checkpoints, options, classify, command="knn")
