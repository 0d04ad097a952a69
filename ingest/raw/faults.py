"""Tells errors of the machine, the network and the right to read from properties of a raw file.

Readers and decoders turn any `OSError` into "this file cannot be read", since that is what a broken file makes them
raise. Whether the file is to blame is seen from the error behind it: `fault_of` follows the chain of causes.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final

from shards.errors import MachineError, NotFoundError, StoreError, UnavailableError

__all__ = ["fault_of"]

_NO_ACCESS: Final = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ETIMEDOUT),
        *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EHOSTUNREACH, errno.ENETUNREACH),
        *(errno.ENETDOWN, errno.EHOSTDOWN, errno.EREMOTEIO, errno.ENOTCONN, errno.ESHUTDOWN, errno.EPIPE, errno.EAGAIN),
        *(errno.EBUSY, errno.ENOKEY, errno.EKEYEXPIRED, errno.ETXTBSY, errno.EINTR),
        *(errno.EUCLEAN, errno.EBADMSG, errno.ENODATA, errno.ENOLINK, errno.EBADE, errno.EPROTO, errno.ENOMEDIUM),
    }
)
_NO_RESOURCES: Final = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS),
    }
)
_DECODERS: Final = frozenset({"av"})
"""Libraries whose own errors borrow the system's numbers: FFmpeg says EIO and EPERM of files that are broken."""

_HTTP_LATER: Final = frozenset({401, 402, 403, 407, 408, 409, 423, 425, 429})
_NETWORK: Final = frozenset(
    {"ClientConnectionError", "ClientPayloadError", "ConnectionError", "ConnectionClosedError", "HTTPClientError"}
    | {"EndpointConnectionError", "NoCredentialsError", "PartialCredentialsError", "TransportError", "HTTPException"}
)
"""Names of base classes of network errors: the libraries that raise them are loaded only where they are used."""


def fault_of(error: BaseException) -> UnavailableError | MachineError | None:
    """The fault behind an error, or None where the file itself is to blame.

    Args:
        error: What was caught, with its chain of causes and contexts.

    Returns:
        `UnavailableError` where the file cannot be read now: no right to it, a failing device, a network or server
        error, an expired link. `MachineError` where this machine has no space, memory or file handles left. The
        message holds the kind of error alone, never a path or text of the file.
    """
    for link in _chain(error):
        if isinstance(link, UnavailableError | MachineError):
            return link
        if isinstance(link, StoreError) and not isinstance(link, NotFoundError):
            return UnavailableError("the storage failed", hint=link.hint)
        if isinstance(link, MemoryError):
            return MachineError("out of memory", hint="use fewer workers, or a machine with more memory")
        if type(link).__module__.partition(".")[0] in _DECODERS:
            continue
        if isinstance(link, OSError) and link.errno in _NO_RESOURCES:
            return MachineError(_said(link), hint="free disk space, or raise the limit of open files (`ulimit -n`)")
        if _is_unavailable(link):
            return UnavailableError(_said(link), hint="check the rights, the link or the server, then run it again")
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, each once; what was raised `from None` came from nothing."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _is_unavailable(error: BaseException) -> bool:
    status = _http_status(error)
    if status:
        return status in _HTTP_LATER or status >= 500
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _NO_ACCESS
    if isinstance(error, FileNotFoundError):
        return False
    if isinstance(error, TimeoutError | PermissionError):
        return True
    return any(kind.__name__ in _NETWORK for kind in type(error).__mro__)


def _http_status(error: BaseException) -> int:
    """The HTTP status of a client library's error; 0 without one."""
    for name in ("status", "status_code", "code"):
        value = getattr(error, name, None)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return 0


def _said(error: BaseException) -> str:
    status = _http_status(error)
    if status:
        return f"HTTP {status}"
    if isinstance(error, OSError) and error.errno is not None:
        return errno.errorcode.get(error.errno, "OSError")
    return type(error).__name__
