"""Pages over a dataset: its figures, its images by modality, one sample with its index row, what was rejected.

Everything is read where it lies, and read only. Images come out of the shards through the same checked reader as in
training.
"""

from __future__ import annotations

import html
from collections.abc import Collection
from urllib.parse import quote as quote_url

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from infra.web.hosts import KnownHosts
from infra.web.html import render_cards, render_page, render_table
from infra.web.queries import Browser
from shards.errors import BiovfmError, ShardError
from shards.schema import MODALITIES

PAGE_IMAGES = 96
_GRID = (
    "<style>.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(120px,1fr));gap:6px}"
    ".grid img{width:100%;aspect-ratio:1;object-fit:cover;background:#000;border-radius:4px}</style>"
)
_POLICY = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'"


def make_app(url: str, *, hosts: Collection[str], metrics: bool = False) -> Starlette:
    """The application.

    Args:
        url: The dataset.
        hosts: Host names under which it answers (`infra.web.hosts`); `*` for any.
        metrics: Also answer Prometheus at `/metrics`, under every name: there are counts alone, and Prometheus asks by
            the address of a pod.

    Raises:
        BiovfmError: There is no dataset at `url`.
        ConfigError: prometheus_client is not installed.
    """
    pages = _Pages(Browser(url))
    routes = [
        Route("/", pages.overview),
        Route("/modality/{modality}", pages.modality),
        Route("/sample/{key}", pages.sample),
        Route("/image/{key}", pages.image),
        Route("/rejects", pages.rejects),
    ]
    open_paths = ["/metrics"] if metrics else []
    middleware = [Middleware(KnownHosts, names=hosts, open_paths=open_paths)]
    if metrics:
        from infra.metrics.exporter import new_registry
        from infra.metrics.pages import CountedRequests, DatasetFigures, metrics_route

        registry = new_registry()
        DatasetFigures(registry, pages.browser.summary)
        routes.append(metrics_route(registry))
        middleware.insert(0, Middleware(CountedRequests, registry=registry, routes=list(routes)))
    return Starlette(routes=routes, middleware=middleware, exception_handlers={BiovfmError: _failed})


class _Pages:
    """One method a page; they run in threads, since DuckDB and the reader block."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser

    def overview(self, _request: Request) -> Response:
        summary = self.browser.summary()
        links = "".join(
            f'<li><a href="/modality/{quote_url(row["modality"])}">{html.escape(row["modality"])}</a>, '
            f"{row['samples']:,} images</li>"
            for row in summary.by_modality
        )
        sources = [[row["source"], row["modality"], row["samples"], row["licence"]] for row in summary.by_source]
        rejected = sum(row["images"] for row in summary.rejects)
        body = [
            render_cards([(summary.num_samples, "images"), (summary.num_shards, "shards"), (rejected, "rejected")]),
            f"<h2>Modalities</h2><ul>{links}</ul>",
            "<h2>Sources</h2>",
            render_table(["source", "modality", "images", "licence"], sources),
            '<p><a href="/rejects">What was rejected</a></p>',
        ]
        return _page(f"Dataset {summary.url}", "".join(body), lead=f"index version {summary.version}")

    def modality(self, request: Request) -> Response:
        modality = request.path_params["modality"]
        if modality not in MODALITIES:
            return _page("No such modality", '<p><a href="/">Overview</a></p>', status=404)
        number = max(int(request.query_params.get("page", "1") or 1), 1) if _is_number(request) else 1
        keys = self.browser.keys(modality, start=(number - 1) * PAGE_IMAGES, num=PAGE_IMAGES + 1)
        tiles = "".join(
            f'<a href="/sample/{key}"><img loading="lazy" src="/image/{key}" alt="{key}"></a>'
            for key in keys[:PAGE_IMAGES]
        )
        back = f'<a href="?page={number - 1}">previous</a> ' if number > 1 else ""
        onward = f'<a href="?page={number + 1}">next</a>' if len(keys) > PAGE_IMAGES else ""
        links = f'<p><a href="/">Overview</a> · page {number} {back}{onward}</p>'
        return _page(modality, f'{_GRID}{links}<div class="grid">{tiles}</div>')

    def sample(self, request: Request) -> Response:
        row = self.browser.row(request.path_params["key"])
        if row is None:
            return _page("No such sample", '<p><a href="/">Overview</a></p>', status=404)
        facts = [[name, str(value)] for name, value in row.items()]
        back = f'<p><a href="/modality/{quote_url(row["modality"])}">{html.escape(row["modality"])}</a></p>'
        image = f'<figure><img src="/image/{row["key"]}" alt="{row["key"]}"></figure>'
        return _page(row["key"], back + image + render_table(["column", "value"], facts))

    def image(self, request: Request) -> Response:
        found = self.browser.image(request.path_params["key"])
        if found is None:
            return Response(status_code=404)
        data, extension = found
        kind = "image/png" if extension == "png" else "image/jpeg"
        return Response(data, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})

    def rejects(self, _request: Request) -> Response:
        rows = [[row["source"], row["reason"], row["images"]] for row in self.browser.summary().rejects]
        return _page(
            "Rejected images", '<p><a href="/">Overview</a></p>' + render_table(["source", "reason", "images"], rows)
        )


def _page(title: str, body: str, *, lead: str = "", status: int = 200) -> Response:
    page = render_page(title=title, body=body, lead=lead)
    return HTMLResponse(page, status_code=status, headers={"Content-Security-Policy": _POLICY})


def _is_number(request: Request) -> bool:
    return str(request.query_params.get("page", "1")).isdecimal()


def _failed(_request: Request, error: Exception) -> Response:
    status = 502 if isinstance(error, ShardError) else 500
    return _page("That did not work", f"<p>{html.escape(str(error))}</p>", status=status)
