"""What `biovfm doctor --bench --json` has measured on a GPU, in the words of an estimate."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final, get_args

from eval.scaling.parameters import SIZES
from infra.estimate.operations import PEAK_BF16, Method, operations
from shards.errors import ConfigError

__all__ = ["Benchmark", "Known", "is_benchmark", "read_benchmark"]

_IMAGE_PX, _PATCH_PX = 224, 16
"""Of the steps that the benchmark measures."""
_FED: Final = ("fed (host decode)", "fed (device decode)", "resident")
"""Parts that give a speed, the first one that was measured."""
_MOST_IMAGES: Final = 1e9
"""Beyond what any GPU trains on in a second."""


@dataclass(frozen=True, slots=True)
class Known:
    """A number and where it comes from.

    Attributes:
        value: The number.
        why: Its origin, for the user.
    """

    value: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Measured speeds of one GPU.

    Attributes:
        path: The report, for messages.
        card: Name of the GPU.
        figures: Name of a part → what it measured.
    """

    path: Path
    card: str
    figures: Mapping[str, Mapping[str, Any]]

    def peak(self) -> dict[str, Known]:
        """The constant of the card, where it is known."""
        found = next((name for name in PEAK_BF16 if name in self.card), None)
        return {} if found is None else {"peak_flops": Known(PEAK_BF16[found], f"published: {found} SXM, dense bf16")}

    def part(self, method: Method, size: str) -> str | None:
        """The part that measured the speed of a model."""
        return next((name for name in _parts(method, size) if "images_per_second" in self.figures.get(name, {})), None)

    def speed(self, method: Method, size: str, *, image_px: int, patch_px: int) -> Known | None:
        """Images per second, where this very model was measured.

        Raises:
            ConfigError: The report has a number there that is no rate.
        """
        part = self.part(method, size) if (image_px, patch_px) == (_IMAGE_PX, _PATCH_PX) else None
        return None if part is None else self._known(part, "images_per_second", most=_MOST_IMAGES)

    def utilisation(self, method: Method, size: str, *, image_px: int) -> dict[str, Known]:
        """The constant by which to compute a model's speed: of the measured model that is nearest in operations.

        Raises:
            ConfigError: Nothing is known, or the report has a number there that is no share.
        """

        def work(of: str) -> float:
            return operations(method, of, image_px=_IMAGE_PX, patch_px=_PATCH_PX)

        parts = {of: _parts(method, of)[-1] for of in sorted(SIZES, key=work)}
        measured = [of for of, part in parts.items() if "mfu" in self.figures.get(part, {})]
        if not measured or not self.peak():
            raise ConfigError(
                f"{self.path}: the benchmark of {self.card} says nothing of {method} {size} at {image_px} px",
                hint="measure it, or give --images-per-second or --utilisation",
            )
        nearest = min(measured, key=lambda of: max(work(of) / work(size), work(size) / work(of)))
        return {"utilisation": self._known(parts[nearest], "mfu", most=1)}

    def _known(self, part: str, key: str, *, most: float) -> Known:
        value = self.figures[part][key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            raise ConfigError(
                f"{self.path}: {key} of {part!r} is {reprlib.repr(value)}",
                hint=f"measure again (`biovfm doctor --bench --json`): it is a number above 0 and at most {most:g}",
            )
        return Known(float(value), f"measured: {part}, {self.card}")


def _parts(method: Method, size: str) -> list[str]:
    """Names of the parts that measure the speed of a model."""
    return [f"{method} {size}, {part}" for part in _FED]


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
        is_gpu, card = str(found["device"]).startswith("cuda"), " ".join(str(found["card"]).split())
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no report of the benchmark", hint="biovfm doctor --bench --json") from error
    benchmark = Benchmark(path=path, card=card, figures=figures)
    if not is_gpu or not any(benchmark.part(method, size) for method, size in product(get_args(Method), SIZES)):
        raise ConfigError(f"{path} has no rate of training steps", hint="biovfm doctor --bench --json, on a GPU")
    return benchmark
