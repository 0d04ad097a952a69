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
    from eval.probes.features import FeatureSet, Report
    from eval.probes.knn import predict_knn
    from eval.probes.linear import Prediction, ProbeResult, run

    if not k or min(k) < 1:
        raise ConfigError(f"--k {k} must be one or more positive numbers")
    chosen = options.extraction()

    def predict(features: FeatureSet, task: Task, _seed: int) -> Prediction:
        return predict_knn(features, task, ks=k, temperature=temperature, device=chosen["device"])

    def classify(checkpoint: str, task: Task, report: Report) -> list[ProbeResult]:
        fixed = {"ks": list(k), "temperature": temperature}
        return run(predict, checkpoint, [task], protocol="knn", options=fixed, report=report, **chosen)

    probe_all(checkpoints, options, classify, command="knn")
