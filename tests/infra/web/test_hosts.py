"""Names under which the pages answer: those that are known, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message

from infra.web.hosts import LOCAL_NAMES, KnownHosts, is_loopback, parse_name
from shards.errors import ConfigError


def answer(host: str | None, *, names: Collection[str] = LOCAL_NAMES, path: str = "/") -> tuple[int, str]:
    """Status and text of a request with this Host header."""
    app = KnownHosts(PlainTextResponse("page"), names=names, open_paths=["/metrics"])
    headers = [] if host is None else [(b"host", host.encode("latin-1"))]
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    asyncio.run(app({"type": "http", "method": "GET", "path": path, "headers": headers}, receive, send))
    return sent[0]["status"], sent[1]["body"].decode()


@pytest.mark.parametrize("host", ["localhost", "LocalHost:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]", "localhost."])
def test_names_of_this_machine_are_known(host: str) -> None:
    assert answer(host) == (200, "page")


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:8080", "127.0.0.1.evil.example", "10.1.2.3:8080", "[fd00::1]:80"]
)
def test_other_names_are_refused_and_told_how_to_be_let_in(host: str) -> None:
    status, text = answer(host)
    assert status == 400
    assert text.count("\n") == 1
    assert "--allow-host" in text
    assert answer(host, names=["*"]) == (200, "page")


@pytest.mark.parametrize("host", [None, "", "a b", "<b>", "localhost:80:80", "user@localhost", "\xe9"])
def test_what_is_no_name_is_refused(host: str | None) -> None:
    assert answer(host) == (400, "no host\n")


@pytest.mark.parametrize("host", ["10.1.2.3:8080", "evil.example", None])
def test_open_paths_answer_under_every_name(host: str | None) -> None:
    assert answer(host, path="/metrics") == (200, "page")
    assert answer(host, path="/metrics/x")[0] == 400


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("Images.Example.org", "images.example.org:80"),
        ("serve", "serve:8080"),
        ("10.1.2.3", "10.1.2.3:8080"),
        ("FD00:0::1", "[fd00::1]:8080"),
        ("[fd00::1]", "[fd00::1]:8080"),
    ],
)
def test_a_name_that_is_given_is_known(given: str, host: str) -> None:
    assert answer(host)[0] == 400
    assert answer(host, names=[parse_name(given)]) == (200, "page")


@pytest.mark.parametrize("given", ["", "serve:8080", "http://serve", "a b", "*.example.org", "$(POD_IP)", "a/b"])
def test_what_is_no_name_cannot_be_given(given: str) -> None:
    with pytest.raises(ConfigError, match="is no host name — give a name"):
        parse_name(given)


def test_loopback_addresses() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.1.2.3", "images.example.org")] == [False] * 4
