"""How long ranks wait for each other."""

from __future__ import annotations

import os
from datetime import timedelta

from shards.errors import ConfigError

__all__ = ["collective_timeout"]


def collective_timeout() -> timedelta:
    """After this long a collective fails, so that torchrun can start the ranks anew without a host that is gone.

    `BIOVFM_COLLECTIVE_SECONDS` sets it; half an hour without it, as in torch.

    Raises:
        ConfigError: It is no positive number.
    """
    text = os.environ.get("BIOVFM_COLLECTIVE_SECONDS", "1800")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"BIOVFM_COLLECTIVE_SECONDS={text!r} is no positive number", hint="give seconds, such as 600")
    return timedelta(seconds=seconds)
