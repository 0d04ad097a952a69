"""Probes on the MedMNIST tasks and the scaling analysis.

`import eval` is light: a name is imported from its module when it is first asked for.
"""

from typing import TYPE_CHECKING

from shards import lazily

if TYPE_CHECKING:
    from eval.encoders.encoder import Backbone, load_backbone
    from eval.medmnist.data import Task, load_task, task_names
    from eval.probes.comparison import compare, side_by_side
    from eval.probes.features import extract
    from eval.probes.knn import knn
    from eval.probes.linear import probe
    from eval.probes.paper import probe_paper
    from eval.probes.results import ProbeResult, append_results, read_results
    from eval.scaling.laws import PowerLaw, Slope, correlate, fit_power_law, fit_slopes
    from eval.scaling.measurements import Measurement, read_measurements
    from eval.scaling.task_factors import task_factors
    from eval.scoring.metrics import evaluate
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Backbone": "eval.encoders.encoder",
            "Measurement": "eval.scaling.measurements",
            "PowerLaw": "eval.scaling.laws",
            "ProbeResult": "eval.probes.results",
            "Slope": "eval.scaling.laws",
            "Task": "eval.medmnist.data",
            "append_results": "eval.probes.results",
            "compare": "eval.probes.comparison",
            "correlate": "eval.scaling.laws",
            "evaluate": "eval.scoring.metrics",
            "extract": "eval.probes.features",
            "fit_power_law": "eval.scaling.laws",
            "fit_slopes": "eval.scaling.laws",
            "knn": "eval.probes.knn",
            "load_backbone": "eval.encoders.encoder",
            "load_task": "eval.medmnist.data",
            "probe": "eval.probes.linear",
            "probe_paper": "eval.probes.paper",
            "read_measurements": "eval.scaling.measurements",
            "read_results": "eval.probes.results",
            "side_by_side": "eval.probes.comparison",
            "task_factors": "eval.scaling.task_factors",
            "task_names": "eval.medmnist.data",
        },
    )

__all__ = [
    "Backbone",
    "Measurement",
    "PowerLaw",
    "ProbeResult",
    "Slope",
    "Task",
    "append_results",
    "compare",
    "correlate",
    "evaluate",
    "extract",
    "fit_power_law",
    "fit_slopes",
    "knn",
    "load_backbone",
    "load_task",
    "probe",
    "probe_paper",
    "read_measurements",
    "read_results",
    "side_by_side",
    "task_factors",
    "task_names",
]
