"""Decoding libraries quote values out of the files in their logs and warnings: none of it may reach a log of ours."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LIBRARIES = ("pydicom", "PIL", "tifffile", "tiffslide", "nibabel", "nrrd", "h5py", "libav", "av", "pylibjpeg")


@contextmanager
def silence() -> Iterator[None]:
    """Nothing that a library logs or warns of is heard inside."""
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
