"""Figures of the pages: requests by route and status, and how large the dataset is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily

    from shards.dataset.summary import Summary

__all__ = ["CountedRequests", "DatasetFigures", "metrics_route"]


class CountedRequests:
    """Middleware that counts requests and their time. Paths are told by their route: keys of samples are no labels.

    Args:
        app: The application inside.
        registry: Where the metrics register.
        routes: Its routes.
    """

    def __init__(self, app: ASGIApp, *, registry: CollectorRegistry, routes: list[Route]) -> None:
        from prometheus_client import Counter, Histogram

        self._app, self._routes = app, routes
        self._requests = Counter(
            "biovfm_http_requests", "Requests answered.", ["method", "route", "code"], registry=registry
        )
        self._seconds = Histogram(
            "biovfm_http_request_duration_seconds", "Time to answer a request.", ["method", "route"], registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        code, begin = 500, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            method, route = self._method(scope), self._route(scope)
            self._requests.labels(method, route, str(code)).inc()
            self._seconds.labels(method, route).observe(time.perf_counter() - begin)

    @staticmethod
    def _method(scope: Scope) -> str:
        return scope["method"] if scope["method"] in {"GET", "HEAD"} else "other"

    def _route(self, scope: Scope) -> str:
        return next((route.path for route in self._routes if route.matches(scope)[0] is not Match.NONE), "none")


class DatasetFigures:
    """A collector: the size of the dataset as its newest version says.

    Args:
        registry: Where it registers.
        ask: Summarises the newest version of the dataset.
    """

    def __init__(self, registry: CollectorRegistry, ask: Callable[[], Summary]) -> None:
        self._ask = ask
        registry.register(self)  # a collector is whatever has `collect`

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: registering must not read the dataset."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Samples by modality, shards, version."""
        from prometheus_client.core import GaugeMetricFamily

        summary = self._ask()
        samples = GaugeMetricFamily("biovfm_dataset_samples", "Samples of the newest version.", labels=["modality"])
        for row in summary.by_modality:
            samples.add_metric([row["modality"]], row["samples"])
        yield samples
        yield GaugeMetricFamily("biovfm_dataset_shards", "Shards of the newest version.", value=summary.num_shards)
        yield GaugeMetricFamily("biovfm_dataset_version", "Newest version of the index.", value=summary.version)


def metrics_route(registry: CollectorRegistry) -> Route:
    """`/metrics`, in OpenMetrics where the client asks for it."""
    from prometheus_client.exposition import choose_encoder

    def answer(request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": kind})

    return Route("/metrics", answer)
