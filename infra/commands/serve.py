"""`biovfm serve`."""

from __future__ import annotations

from infra.console import stderr
from shards.errors import ConfigError


def serve(dataset: str, /, *, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Look at a dataset in the browser: figures, images by modality, single samples, rejects.

    Needs `pip install 'biovfm[serve]'`. It answers on this machine alone unless `--host` says otherwise; there is no
    login, so think before you say otherwise.

    Example: `biovfm serve ./data --port 8080`

    Parameters
    ----------
    dataset
        Folder or URL of the dataset.
    host
        Address to listen on.
    port
        Port to listen on; 0 takes a free one.
    """
    try:
        import uvicorn

        from infra.web.app import make_app
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed", hint="pip install 'biovfm[serve]'") from error
    app = make_app(dataset, hosts=["127.0.0.1", "localhost", host])
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="warning", lifespan="off"))
    stderr().print(f"http://{host}:{port} shows {dataset}; Ctrl-C stops")
    server.run()
