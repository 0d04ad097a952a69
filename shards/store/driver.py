"""What a client library has to do for `RemoteStore`: single attempts, one way to fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from shards.store.base import ObjectInfo

Kind = Literal["missing", "bucket", "exists", "denied", "changed", "range", "unsupported", "transient", "fatal"]


NOT_A_STORE = "the reply has no entity tag: it is not from an object store, but perhaps a network's login page"


class DriverError(Exception):
    """One attempt failed.

    Args:
        kind: `transient` may be tried again; `exists` after a transient failure may be our own lost success.
        text: What the server said, in one line, nothing secret.
    """

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind: Kind = kind
        self.text = text


_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "RequestTimeTooSkewed"}
_PASSING = {"RequestTimeout", "SlowDown", "ServiceUnavailable", "InternalError"}


def kind_of(status: int, code: str, otherwise: Kind) -> Kind:
    """What an HTTP status and an S3 error code mean for the next attempt.

    Args:
        status: HTTP status; 0 where there was none.
        code: S3's word for the error; may be empty.
        otherwise: What the client library made of it.
    """
    if code == "NoSuchBucket":
        return "bucket"
    if code in _EXPIRED:
        return "denied"
    if code in _PASSING:
        return "transient"
    if status == 416:
        return "range"
    if otherwise == "transient" and 400 <= status < 500 and status not in {408, 409, 425, 429}:
        return "denied" if status in {401, 403} else "fatal"
    return otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeReply:
    """The beginning of a reply to a range request.

    Attributes:
        total: Size of the whole object in bytes; None where the server did not say.
        etag: The object's entity tag; empty where there is none.
        chunks: The body, piece by piece; raises `DriverError` where it breaks.
    """

    total: int | None
    etag: str
    chunks: Iterator[bytes] = field(repr=False)


class Driver(Protocol):
    """Single attempts on one bucket and prefix. All raise `DriverError`; none retries by itself."""

    def open_range(self, path: str, start: int, length: int, etag: str) -> RangeReply:
        """Ask for a range; with an `etag`, only of that version of the object."""
        ...

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several small ranges at once; short where the object ends."""
        ...

    def head(self, path: str) -> ObjectInfo:
        """Size and entity tag."""
        ...

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        """Everything below a folder (no trailing slash), in any order."""
        ...

    @property
    def uploads_are_checked(self) -> bool:
        """Whether the store itself refuses bytes that are not those that were sent."""
        ...

    def create(self, path: str, data: bytes | Path) -> str:
        """Create an object in one request; `exists` where the name is taken.

        Returns:
            The entity tag of what the store has got; empty where it does not say.
        """
        ...

    def upload(self, path: str, data: bytes | Path) -> None:
        """Write an object of any size in parts, over whatever is there."""
        ...

    def copy(self, source: str, target: str) -> None:
        """Copy inside the store; `exists` where the target's name is taken."""
        ...

    def delete(self, paths: Sequence[str]) -> None:
        """Delete; missing objects are no error."""
        ...

    def reset(self) -> None:
        """Forget the client, so that the next call connects anew with fresh credentials."""
        ...
