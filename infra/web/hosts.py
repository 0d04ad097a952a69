"""Under which names the pages answer.

A web page elsewhere may let its own name resolve to this machine (DNS rebinding) and read what a browser here may read.
Its requests carry that name in their Host header, and so they are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import IPv6Address, ip_address

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from shards.errors import ConfigError

__all__ = ["LOCAL_NAMES", "KnownHosts", "is_loopback", "parse_name"]

LOCAL_NAMES = ("127.0.0.1", "::1", "localhost")
"""Names of this machine that no other machine can take."""
_NAME = r"[a-z0-9_](?:[a-z0-9_.\-]*[a-z0-9_])?"
_HEADER = re.compile(rf"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>{_NAME})\.?)(?::[0-9]*)?")


class KnownHosts:
    """Middleware that refuses requests under a name that is not known.

    Args:
        app: The application inside.
        names: Host names and addresses, from `parse_name`; `*` stands for any.
        open_paths: Paths that answer under every name.
    """

    def __init__(self, app: ASGIApp, *, names: Collection[str], open_paths: Collection[str] = ()) -> None:
        self._app, self._names, self._open_paths = app, frozenset(names), frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket") or "*" in self._names or scope["path"] in self._open_paths:
            await self._app(scope, receive, send)
            return
        found = _HEADER.fullmatch(Headers(scope=scope).get("host", "").lower())
        name = (found["address"] or found["name"]) if found else ""
        if name in self._names:
            await self._app(scope, receive, send)
            return
        said = f"these pages do not answer under the name {name} — --allow-host {name} lets them" if name else "no host"
        await PlainTextResponse(f"{said}\n", status_code=400)(scope, receive, send)


def parse_name(text: str) -> str:
    """A name or address as it is compared with a Host header; `*` stays.

    Raises:
        ConfigError: It is neither.
    """
    plain = text.lower().removesuffix(".")
    if plain == "*" or re.fullmatch(_NAME, plain):
        return plain
    try:
        return str(IPv6Address(plain.removeprefix("[").removesuffix("]")))
    except ValueError as error:
        raise ConfigError(
            f"--allow-host {text!r} is no host name", hint="give a name or an address without a port, or * for any"
        ) from error


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
