"""Probes on the MedMNIST tasks and the scaling analysis.

`import eval` is light: a name is imported from its module when it is first asked for (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.encoders.encoder import Backbone, load_backbone
    from eval.medmnist.data import Task, load_task, task_names
    from eval.probes.comparison import compare, side_by_side
    from eval.probes.features import extract
    from eval.probes.knn import knn
    from eval.probes.linear import probe
    from eval.probes.metrics import evaluate
    from eval.probes.paper import probe_paper
    from eval.probes.results import ProbeResult, append_results, read_results
    from eval.scaling.laws import PowerLaw, Slope, correlate, fit_power_law, fit_slopes
    from eval.scaling.measurements import Measurement, read_measurements
    from eval.scaling.task_factors import task_factors

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

_MODULES = {
    "eval.encoders.encoder": ("Backbone", "load_backbone"),
    "eval.medmnist.data": ("Task", "load_task", "task_names"),
    "eval.probes.comparison": ("compare", "side_by_side"),
    "eval.probes.features": ("extract",),
    "eval.probes.knn": ("knn",),
    "eval.probes.linear": ("probe",),
    "eval.probes.metrics": ("evaluate",),
    "eval.probes.paper": ("probe_paper",),
    "eval.probes.results": ("ProbeResult", "append_results", "read_results"),
    "eval.scaling.laws": ("PowerLaw", "Slope", "correlate", "fit_power_law", "fit_slopes"),
    "eval.scaling.measurements": ("Measurement", "read_measurements"),
    "eval.scaling.task_factors": ("task_factors",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
