"""`biovfm s3-server`."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from infra import s3_server as servers
from infra.console import emit


def s3_server(
    folder: Path = Path("biovfm-s3"),
    /,
    *,
    port: int = 8333,
    bucket: str = "biovfm",
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Start a local S3 server (SeaweedFS, loopback only) and print the environment that its clients need.

    It runs until it is interrupted; its data stay in the folder. Needs `pip install 'biovfm[s3-server]'`.

    Example: `biovfm s3-server ./biovfm-s3`

    Parameters
    ----------
    folder
        Where the server keeps its data.
    port
        Port on 127.0.0.1; 0 takes a free one.
    bucket
        A bucket to make.
    json_
        Print the environment as one JSON object.
    """
    try:
        with servers.start(folder, port=port) as server:
            _show(server, server.make_bucket(bucket), as_json=json_)
            while True:  # `signal.pause` would sleep through a signal that comes just before it
                time.sleep(1)
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
    return 0


def _show(server: servers.Server, url: str, *, as_json: bool) -> None:
    if as_json:
        emit({"url": url, "env": server.env})
    else:
        lines = [f"export {name}={shlex.quote(value)}" for name, value in server.env.items()]
        sys.stdout.write("\n".join([*lines, f"# datasets go below {url}", ""]))
    sys.stdout.flush()
    sys.stderr.write(f"serving {url} at {server.endpoint}; paste the lines above into another shell, Ctrl-C ends\n")
