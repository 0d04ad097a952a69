"""Linear probe and k-NN on frozen features, and their results."""

from typing import TYPE_CHECKING

from shards import lazily

if TYPE_CHECKING:
    from eval.probes.knn import KS, knn_scores, predict_knn
    from eval.probes.results import append_results, read_results
    from eval.scoring.metrics import evaluate
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "KS": "eval.probes.knn",
            "append_results": "eval.probes.results",
            "evaluate": "eval.scoring.metrics",
            "knn_scores": "eval.probes.knn",
            "predict_knn": "eval.probes.knn",
            "read_results": "eval.probes.results",
        },
    )

__all__ = ["KS", "append_results", "evaluate", "knn_scores", "predict_knn", "read_results"]
