"""Weights & Biases and MLflow, each an extra. Logs a resumed run under the same run id.

The ids lie in `loggers.json` in the run's folder. Where they send to is theirs to decide, by their own environment
(`WANDB_MODE`, `WANDB_PROJECT`, `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME` …).
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from shards.errors import ConfigError
from shards.files import read_json_object, write_text
from train.recipe import Recipe

__all__ = ["Logger", "open_loggers"]

PROJECT = "biovfm"
IDS = "loggers.json"


class Logger(Protocol):
    """Another place for a run's numbers."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """The numbers of one step."""
        ...

    def close(self) -> None:
        """Send what is left and end the run there."""
        ...


def open_loggers(out: Path, recipe: Recipe) -> list[Logger]:
    """The loggers that `watch.loggers` names.

    Args:
        out: The run's folder.
        recipe: Goes to them as the run's settings.

    Raises:
        ConfigError: A package is missing, or its service cannot be reached.
    """
    path = out / IDS
    ids: dict[str, str] = {}
    if path.is_file():
        hint = "remove it: the loggers then begin new runs"
        ids = read_json_object(path, error=ConfigError, hint=hint)
    opened = {name: _open(name, out, recipe, ids.get(name)) for name in recipe.watch.loggers}
    if opened:
        write_text(path, json.dumps({**ids, **{name: logger.run_id for name, logger in opened.items()}}) + "\n")
    return list(opened.values())


class _Wandb:
    def __init__(self, out: Path, recipe: Recipe, run_id: str | None) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=out.name,
            dir=str(out),
            config=recipe.model_dump(mode="json"),
            id=run_id,
            resume="allow",
        )
        self.run_id: str = self._run.id

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, out: Path, recipe: Recipe, run_id: str | None) -> None:
        import mlflow

        self._mlflow: Any = mlflow
        if "MLFLOW_EXPERIMENT_NAME" not in os.environ and "MLFLOW_EXPERIMENT_ID" not in os.environ:
            self._mlflow.set_experiment(PROJECT)
        run = self._mlflow.start_run(run_id=run_id, run_name=out.name)
        self.run_id: str = run.info.run_id
        if run_id is None:
            self._mlflow.log_params(dict(_flat(recipe.model_dump(mode="json"))))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        # a step does not wait for the server's answer
        self._mlflow.log_metrics(dict(numbers), step=step, synchronous=False)

    def close(self) -> None:
        self._mlflow.flush_async_logging()
        self._mlflow.end_run()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as dotted keys, as `--set` takes them."""
    pairs: list[tuple[str, Any]] = []
    for key, value in settings.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return pairs


def _open(name: str, out: Path, recipe: Recipe, run_id: str | None) -> Any:
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"watch.loggers asks for {name}, which is missing", hint=f"pip install 'biovfm[{name}]'"
        ) from error
    try:
        return _LOGGERS[name](out, recipe, run_id)
    except Exception as error:  # each has exceptions of its own, for its own services
        said = " ".join(str(error).split())
        raise ConfigError(
            f"{name} does not start: {said}", hint="correct its settings, or leave it out of watch.loggers"
        ) from error


_LOGGERS: dict[str, Callable[[Path, Recipe, str | None], Any]] = {"wandb": _Wandb, "mlflow": _Mlflow}
