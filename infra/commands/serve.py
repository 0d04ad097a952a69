"""`biovfm serve`."""

from __future__ import annotations

import socket

from infra.console import LogFormat, log_as, stderr
from shards.errors import ConfigError

_LAST_PORT = 65535


def serve(
    dataset: str,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    allow_host: tuple[str, ...] = (),
    metrics: bool = False,
    log_format: LogFormat = "text",
) -> None:
    """Look at a dataset in the browser: figures, images by modality, single samples, rejects.

    Needs `pip install 'biovfm[serve]'`. It answers on this machine alone unless `--host` says otherwise; there is no
    login, so think before you say otherwise.

    Example: `biovfm serve ./data --port 8080`

    Example: `biovfm serve ./data --host 0.0.0.0 --allow-host images.example.org`

    Parameters
    ----------
    dataset
        Folder or URL of the dataset.
    host
        Address to listen on.
    port
        Port to listen on; 0 takes a free one.
    allow_host
        A name or address by which browsers reach the pages from elsewhere; repeat for several, `*` for any. Without it
        the pages answer under --host and the names of this machine alone, so that no web page elsewhere reads them.
    metrics
        Answer Prometheus at /metrics, under any name: requests by route and code, their times, the size of the
        dataset. Needs `pip install 'biovfm[metrics]'`.
    log_format
        `json` prints each line of standard error as an object with time, level, message and run.
    """
    log_as(log_format, run=dataset)
    try:
        import uvicorn

        from infra.web.app import make_app
        from infra.web.hosts import LOCAL_NAMES, is_loopback, parse_name
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed", hint="pip install 'biovfm[serve]'") from error
    names = [*dict.fromkeys([*LOCAL_NAMES, host.lower(), *map(parse_name, allow_host)])]
    app = make_app(dataset, hosts=names, metrics=metrics)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    with _listen(host, port) as listener:
        place = f"[{host}]" if ":" in host else host
        stderr().print(f"http://{place}:{listener.getsockname()[1]} shows {dataset}; Ctrl-C stops", soft_wrap=True)
        if not allow_host and not is_loopback(host):
            known = ", ".join(names)
            stderr().print(f"the pages answer as {known} alone; --allow-host NAME adds a name", soft_wrap=True)
        server.run(sockets=[listener])
    raise KeyboardInterrupt  # a server ends by a signal alone, also by one that a background shell ignores


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: The port is taken, or the address is not this machine's.
    """
    hint = "give another --port, or 0 for a free one"
    if not 0 <= port <= _LAST_PORT:
        raise ConfigError(f"there is no port {port}", hint=hint)
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}", hint=hint) from error
