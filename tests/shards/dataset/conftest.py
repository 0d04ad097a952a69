"""A proxy between the clients of a test and the S3 server, which breaks what it is told to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.s3_server import Server
from tests.faults import FaultProxy


@pytest.fixture
def proxy(s3_env: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy
