"""The constants of an estimate: measured here, published, or a price; each says which, and a file may replace them."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from shards.errors import ConfigError

_WRITER: Final = "`biovfm doctor --bench --json` writes one"
_LEAST, _MOST = 1e-12, 1e18
"""Beyond any constant, in any unit."""


def _constant(value: float, why: str) -> Any:
    return field(default=value, metadata={"why": why})


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Numbers that formulas multiply; `why` in a field's metadata is their origin.

    Attributes:
        image_bytes: Compressed bytes per image.
        sample_overhead_bytes: Tar headers, padding and sidecar per sample.
        shard_bytes: Target size of a shard.
        index_row_bytes: Index bytes per sample.
        request_bytes: Bytes per read request, neighbouring ranges read in one.
        read_amplification: Bytes read over bytes used.
        ingest_core_seconds: Per image: read, decode, normalise, fingerprint, encode.
        decode_core_seconds_per_megapixel: To decode an image, by its pixels.
        crop_core_seconds_per_megapixel: To resize and cut, by the pixels that come out.
        image_megapixels: Of a stored image.
        peak_flops: Of one GPU, dense bf16.
        utilisation: Share of the peak that training reaches.
        gpu_hour_price: Per GPU.
        storage_price: Per GB and month.
        get_price: Per 1,000 read requests.
        put_price: Per 1,000 write requests.
        core_hour_price: Per core of the machines that ingest.
        transfer_price: Per GB that is read.
    """

    image_bytes: float = _constant(30_000, "assumed; `biovfm stats` shows a dataset's own")
    sample_overhead_bytes: float = _constant(2_304, "two tar headers, a sidecar of 1 KiB, padding")
    shard_bytes: float = _constant(64 * 2**20, "the default of ingest")
    index_row_bytes: float = _constant(52, "measured: 21 million rows are 1.1 GB")
    request_bytes: float = _constant(2**20, "the reader's block")
    read_amplification: float = _constant(1.1, "assumed: lanes that end inside a shard are read by two ranks")
    ingest_core_seconds: float = _constant(0.023, "measured: 87 photographs/s on two cores")
    decode_core_seconds_per_megapixel: float = _constant(0.0048, "measured: libjpeg-turbo, 0.92 ms at 0.19 MP")
    crop_core_seconds_per_megapixel: float = _constant(0.0060, "measured: 0.3 ms per 224 px crop")
    image_megapixels: float = _constant(0.25, "assumed: 500 px edge")
    peak_flops: float = _constant(989e12, "published: H100 SXM, dense bf16")
    utilisation: float = _constant(0.30, "assumed: 0.2 to 0.4 is published for ViTs")
    gpu_hour_price: float = _constant(2.5, "assumed, in your currency: pass your own")
    storage_price: float = _constant(0.023, "list price of standard object storage")
    get_price: float = _constant(0.0004, "list price of standard object storage")
    put_price: float = _constant(0.005, "list price of standard object storage")
    core_hour_price: float = _constant(0.05, "assumed, in your currency")
    transfer_price: float = _constant(0, "within a region; list prices are 0.02 to another one, 0.09 out of the cloud")


def read_constants(path: Path | None, found: Mapping[str, Any], **chosen: float | None) -> Constants:
    """The constants, with those of a JSON file and of the command line in their place.

    Args:
        path: Of the file, for messages.
        found: JSON object of some of the names of `Constants`; `infra/bench/calibrate.py` writes one.
        chosen: From the command line; None leaves a constant as it is.

    Raises:
        ConfigError: A name is unknown, or a value means nothing; the file or the option is named.
    """
    known = {item.name for item in fields(Constants)}
    if unknown := sorted(set(found) - known):
        raise ConfigError(f"{path}: unknown constant {unknown[0]!r}", hint=f"there are {', '.join(sorted(known))}")
    values = {name: _checked(name, value, f"{path}: {name}") for name, value in found.items()}
    for name, value in chosen.items():
        if value is not None:
            values[name] = _checked(name, value, f"--{name.replace('_', '-')}")
    return replace(Constants(), **values)


def _checked(name: str, value: object, said: str) -> float:
    """A value that a constant may have.

    Args:
        name: Of the constant.
        value: From a file or the command line.
        said: What a message calls the constant.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
        raise ConfigError(f"{said} is {reprlib.repr(value)}", hint=f"give a number from 0 to {_MOST:g}")
    if value < _LEAST and not (value == 0 and name.endswith("_price")):
        raise ConfigError(f"{said} is {value:g}", hint="give a positive number")
    if name == "utilisation" and value > 1:
        raise ConfigError(f"{said} is {value:g}", hint="give a share, 0.3 for 30 %")
    if name == "read_amplification" and value < 1:
        raise ConfigError(f"{said} is {value:g}", hint="give at least 1: what is used has been read")
    return float(value)


def read_measured(path: Path | None) -> dict[str, Any]:
    """The JSON object of a file; empty without one.

    Raises:
        ConfigError: The file cannot be read, or holds no JSON object.
    """
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="pass --measured FILE.json") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON: {error}", hint=_WRITER) from error
    except RecursionError as error:
        raise ConfigError(f"{path} nests its values too deep to be read", hint=_WRITER) from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds no JSON object", hint=_WRITER)
    return found
