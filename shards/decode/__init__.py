"""Compressed images to uint8 crops, one call a chunk."""

from __future__ import annotations

from shards.decode.base import Crops, Decoder, Status

__all__ = ["Crops", "Decoder", "Status"]
