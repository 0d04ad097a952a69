"""What `biovfm doctor --bench --json` has measured on a GPU, in the words of an estimate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from eval.scaling.parameters import SIZES
from infra.estimate.operations import PEAK_BF16, Method, operations
from shards.errors import ConfigError

__all__ = ["Benchmark", "is_benchmark", "read_benchmark"]

_IMAGE_PX, _PATCH_PX = 224, 16
"""Of the steps that the benchmark measures."""
_FED: Final = ("fed (host decode)", "fed (device decode)", "resident")
"""Parts that give a speed, the first one that was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Measured speeds of one GPU.

    Attributes:
        card: Name of the GPU.
        speeds: Method and size → images per second, and the part that measured them.
        utilisations: Method and size → share of the card's peak.
    """

    card: str
    speeds: Mapping[tuple[Method, str], tuple[float, str]]
    utilisations: Mapping[tuple[Method, str], float]

    def peak(self) -> dict[str, float]:
        """The constant of the card, where it is known."""
        value = next((value for name, value in PEAK_BF16.items() if name in self.card), None)
        return {} if value is None else {"peak_flops": value}

    def of(
        self, method: Method, size: str, *, image_px: int, patch_px: int
    ) -> tuple[float | None, str, dict[str, float]]:
        """What is known of a model's speed: images per second and what measured them, or the constant to compute it by.

        Raises:
            ConfigError: Nothing is known.
        """
        found = self.speeds.get((method, size)) if (image_px, patch_px) == (_IMAGE_PX, _PATCH_PX) else None
        if found is not None:
            return found[0], f"measured: {found[1]}, {self.card}", {}
        share = self._utilisation(method, size)
        if share is None or not self.peak():
            raise ConfigError(
                f"the benchmark of {self.card} says nothing of {method} {size} at {image_px} px",
                hint="measure it, or give --images-per-second or --utilisation",
            )
        return None, "", {"utilisation": share}

    def _utilisation(self, method: Method, size: str) -> float | None:
        """That of the measured model of the method that is nearest in operations."""

        def work(of: str) -> float:
            return operations(method, of, image_px=_IMAGE_PX, patch_px=_PATCH_PX)

        sizes = sorted((of for how, of in self.utilisations if how == method), key=work)
        if not sizes:
            return None
        nearest = min(sizes, key=lambda of: max(work(of) / work(size), work(size) / work(of)))
        return self.utilisations[method, nearest]


def is_benchmark(found: Mapping[str, Any]) -> bool:
    """Whether a JSON object is the benchmark's, and no constants."""
    return "parts" in found


def read_benchmark(found: Mapping[str, Any], path: Path) -> Benchmark:
    """Take the benchmark's report.

    Args:
        found: The JSON object.
        path: For messages.

    Raises:
        ConfigError: It is no such report, or holds no step on a GPU.
    """
    try:
        figures = {str(part["name"]): dict(part["figures"]) for part in found["parts"]}
        speeds: dict[tuple[Method, str], tuple[float, str]] = {}
        utilisations: dict[tuple[Method, str], float] = {}
        for method in get_args(Method):
            for size in SIZES:
                names = [f"{method} {size}, {part}" for part in _FED]
                name = next((name for name in names if "images_per_second" in figures.get(name, {})), None)
                if name is not None:
                    speeds[method, size] = float(figures[name]["images_per_second"]), name
                if "mfu" in figures.get(names[-1], {}):
                    utilisations[method, size] = float(figures[names[-1]]["mfu"])
        is_gpu, card = str(found["device"]).startswith("cuda"), str(found["card"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no report of the benchmark", hint="biovfm doctor --bench --json") from error
    if not speeds or not is_gpu:
        raise ConfigError(f"{path} has no rate of training steps", hint="biovfm doctor --bench --json, on a GPU")
    return Benchmark(card=card, speeds=speeds, utilisations=utilisations)
