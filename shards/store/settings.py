"""How a remote store is read and written: sizes, time limits, retries. Each has a default and an environment name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from shards.errors import ConfigError

MIB = 1 << 20
DRIVERS = ("auto", "obstore", "fsspec")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Sizes, time limits and retries of a remote store. Holds nothing secret.

    Attributes:
        driver: `obstore`, `fsspec`, or `auto`: obstore where it speaks the scheme, fsspec for the rest.
        range_bytes: Largest single read; longer ones are split and read side by side.
        concurrency: Requests in flight for one store object in one process.
        readahead: Ranges that a stream fetches ahead of its reader; it holds at most `readahead + 1` ranges.
        connect_seconds: Limit for making a connection.
        read_seconds: Limit for waiting on the next bytes of a reply; this is what ends a stall.
        request_seconds: Limit for one read request with its body.
        write_seconds: Limit for one write request with its body.
        budget_seconds: After this much time on one call no further attempt begins. A call fails within
            `budget_seconds + read_seconds`, or `+ request_seconds` where bytes trickle in.
        backoff_seconds: Pause before the second attempt; doubled each time, half of it random.
        backoff_max_seconds: Longest pause between attempts.
        hedge_seconds: A range that has not arrived after this long is asked for a second time and the first reply
            counts; 0 switches it off.
        single_put_bytes: Larger objects are uploaded in parts under a hidden name, then given theirs.
    """

    driver: str = "auto"
    range_bytes: int = 8 * MIB
    concurrency: int = 8
    readahead: int = 2
    connect_seconds: float = 10.0
    read_seconds: float = 20.0
    request_seconds: float = 120.0
    write_seconds: float = 600.0
    budget_seconds: float = 120.0
    backoff_seconds: float = 0.2
    backoff_max_seconds: float = 10.0
    hedge_seconds: float = 0.0
    single_put_bytes: int = 256 * MIB

    def __post_init__(self) -> None:
        if self.driver not in DRIVERS:
            raise ConfigError(
                f"no storage driver called {self.driver!r}", hint=f"BIOVFM_STORE is one of {', '.join(DRIVERS)}"
            )
        for name in ("range_bytes", "concurrency", "connect_seconds", "read_seconds", "request_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0", hint=f"correct {_variable(name)}")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> StoreSettings:
        """The defaults, changed by `BIOVFM_STORE` (the driver) and `BIOVFM_STORE_<NAME>` (the others).

        Raises:
            ConfigError: A value that is not a number, or out of range.
        """
        environ = os.environ if environ is None else environ
        changes: dict[str, Any] = {}
        for field in fields(cls):
            text = environ.get(_variable(field.name))
            if not text:
                continue
            try:
                changes[field.name] = {"str": str, "int": int, "float": float}[str(field.type)](text)
            except ValueError as error:
                raise ConfigError(
                    f"{_variable(field.name)}={text!r} is not a number", hint="give a plain number"
                ) from error
        return replace(cls(), **changes)


def _variable(name: str) -> str:
    return "BIOVFM_STORE" if name == "driver" else f"BIOVFM_STORE_{name.upper()}"
