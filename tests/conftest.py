"""Fixtures that several packages' tests share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from infra import s3_server as servers
from shards.errors import ConfigError


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """A real S3 server on loopback for the whole run."""
    try:
        servers.find_program()
    except ConfigError as error:
        pytest.skip(str(error))
    with servers.start(tmp_path_factory.mktemp("s3-server")) as server:
        yield server


@pytest.fixture
def s3_env(s3_server: servers.Server, monkeypatch: pytest.MonkeyPatch) -> servers.Server:
    """The environment in which every client finds the server, and no setting of the user's."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "BIOVFM_STORE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def bucket(s3_env: servers.Server) -> Iterator[str]:
    """The URL of a bucket of its own for one test."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield s3_env.make_bucket(name)
    s3_env.remove_bucket(name)
