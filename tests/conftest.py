"""Fixtures that several packages' tests share."""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from infra import s3_server as servers
from shards.errors import ConfigError
from tests import unit

if not Path("/dev/nvidiactl").exists():
    # Without a GPU, Triton's kernels run in its interpreter, which has to be asked for before anything imports Triton.
    os.environ.setdefault("TRITON_INTERPRET", "1")

# How long an example takes tells of the machine: a busy one is no failure of a property.
settings.register_profile("biovfm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("biovfm")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--unit` runs the quick tests alone, and holds them to it; `--heavy` runs all the others."""
    parser.addoption("--unit", action="store_true", help="only tests without processes, servers and training")
    parser.addoption("--heavy", action="store_true", help="only the tests that --unit leaves out")


_GUARD = pytest.StashKey[unit.Guard]()


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--unit"):
        config.stash[_GUARD] = unit.Guard()
        for kind in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning"):
            config.addinivalue_line("filterwarnings", f"error::{kind}")
        # pynrrd writes its headers with `datetime.utcnow`, which Python 3.12 deprecates
        config.addinivalue_line("filterwarnings", "ignore:datetime.datetime.utcnow:DeprecationWarning:nrrd")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    guard = item.config.stash.get(_GUARD, None)
    if guard is None:
        return (yield)
    guard.active = True
    try:
        return (yield)
    finally:
        guard.active = False


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    wanted = config.getoption("--unit") and collection_path.name.startswith("test_")
    return True if wanted and unit.imports_torch(collection_path) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--unit") or config.getoption("--heavy"):
        wanted = bool(config.getoption("--heavy"))
        config.hook.pytest_deselected(items=[item for item in items if unit.is_heavy(item) is not wanted])
        items[:] = [item for item in items if unit.is_heavy(item) is wanted]


def pytest_report_header(config: pytest.Config) -> str | None:
    return "unit tests: no processes, no servers, no torch" if config.getoption("--unit") else None


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
