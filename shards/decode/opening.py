"""Chooses a decoder: the native one where it was built, else the one that needs nothing but wheels."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import Literal

from shards.decode.base import Decoder, Mode
from shards.decode.engines import EngineName
from shards.errors import ConfigError

__all__ = ["DecoderReport", "describe_decoder", "open_decoder"]

_BUILD_HINT = (
    "install a C compiler and libjpeg-turbo's headers (Debian: gcc libjpeg62-turbo-dev), then run "
    "`python -m shards.native.build`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderReport:
    """Which decoder `auto` takes, and why.

    Attributes:
        name: `native` or `library`.
        detail: Libraries and instruction set, or why the extension is not used.
        hint: What to do about it; empty where nothing is to be done.
    """

    name: Literal["native", "library"]
    detail: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.detail})" + (f" — {self.hint}" if self.hint else "")


def open_decoder(
    name: Literal["auto", "native", "library", "device"] = "auto",
    mode: Mode = "fast",
    *,
    device: str = "cuda",
    engine: EngineName | Literal["auto"] = "auto",
) -> Decoder:
    """Open a decoder.

    Args:
        name: `native` is the extension on libjpeg-turbo, `library` runs on wheels alone, `device` decodes with
            `engine` on `device`; `auto` takes `native` where it was built, else `library`, and logs so once.
        mode: Reduce while decoding (`fast`) or resize the whole image's pixels (`exact`).
        device: Torch device of the `device` decoder.
        engine: Its library: `torchcodec`, `nvimgcodec`, or `auto` for the first of them that is installed.

    Raises:
        ConfigError: There is no such decoder, or it cannot be used here.
    """
    if mode not in {"fast", "exact"}:
        raise ConfigError(f"there is no decoding mode {mode!r}", hint="use fast or exact")
    if name == "device":
        from shards.decode.device import DeviceDecoder

        return DeviceDecoder(mode=mode, device=device, engine=engine)
    if name == "library":
        return _library(mode)
    if name not in {"auto", "native"}:
        raise ConfigError(f"there is no decoder {name!r}", hint="use auto, native, library or device")
    from shards.decode.native_decoder import NativeDecoder, NativeUnavailableError

    try:
        return NativeDecoder(mode=mode)
    except NativeUnavailableError as error:
        if name == "native":
            raise ConfigError(f"the native decoder cannot be used: {error}", hint=_BUILD_HINT) from error
        _say_once(str(error))
        return _library(mode)


def describe_decoder() -> DecoderReport:
    """Which decoder `auto` takes here, and why; a line for `biovfm doctor`."""
    from shards.decode.native_decoder import NativeDecoder, NativeUnavailableError

    try:
        return DecoderReport(name="native", detail=NativeDecoder().description)
    except NativeUnavailableError as error:
        detail = f"simplejpeg and OpenCV; the native decoder cannot be used: {error}"
        return DecoderReport(name="library", detail=detail, hint=_BUILD_HINT)


def _library(mode: Mode) -> Decoder:
    from shards.decode.library import LibraryDecoder

    return LibraryDecoder(mode=mode)


@functools.cache
def _say_once(reason: str) -> None:
    logging.getLogger(__name__).warning(
        "decoding with simplejpeg and OpenCV at about half the speed, since the native decoder cannot be used: %s; %s",
        reason,
        _BUILD_HINT,
    )
