"""The Grafana dashboard: Grafana's own model takes every key of it, and its queries ask for figures that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard as GrafanaDashboard
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from infra.metrics.ingesting import IngestFigures
from infra.metrics.pages import CountedRequests, DatasetFigures
from infra.metrics.streaming import StreamFigures
from infra.metrics.training import TrainingFigures
from infra.web.queries import Browser
from ingest.job.report import JobReport
from shards.stream.stats import StreamStats
from tests.shards.builders import small_dataset

PATH = Path(__file__).parents[3] / "infra" / "deploy" / "grafana" / "biovfm.json"
TEXT = PATH.read_text(encoding="utf-8")
BOARD = json.loads(TEXT)
QUERIES = [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", ())]


def lost(given: Any, kept: Any, where: str = "") -> list[str]:
    """Keys and items of the file that the model does not know."""
    if isinstance(given, dict):
        missing = [f"{where}.{key}" for key in given if key not in kept]
        return missing + [
            line for key in given if key in kept for line in lost(given[key], kept[key], f"{where}.{key}")
        ]
    if isinstance(given, list):
        return [
            line
            for n, (one, other) in enumerate(zip(given, kept, strict=True))
            for line in lost(one, other, f"{where}[{n}]")
        ]
    return [] if given == kept else [where]


def test_grafanas_model_knows_every_key() -> None:
    register_default_plugins()
    given = json.loads(TEXT)
    kept = json.loads(JSONEncoder().encode(GrafanaDashboard.from_json(given)))
    assert lost(given, kept) == []


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What all exporters offer."""
    registry = CollectorRegistry()
    StreamFigures(registry, run="a", rank=0).follow(StreamStats)
    TrainingFigures(registry, run="a", global_batch=8)
    report = JobReport(job_id="j", source="s", dataset="d", version=0, reasons={"blank": 1})
    IngestFigures(registry, source="s").finish(report, failed=False)
    CountedRequests(None, registry=registry, routes=[])  # type: ignore[arg-type]
    DatasetFigures(registry, Browser(small_dataset(tmp_path_factory.mktemp("data") / "d").url).summary)
    return {name for family in registry.collect() for name in names_of(family)}


def names_of(family: Metric) -> set[str]:
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
    return {family.name + ending for ending in endings}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_promql_over_figures_that_exist(query: str, names: set[str]) -> None:
    plain = query.replace("$__rate_interval", "1m").replace("$run", ".*")
    promql_parser.parse(plain)
    asked = set(re.findall(r"\bbiovfm_\w+", plain))
    assert asked
    assert asked <= names


def test_the_run_is_chosen_among_all_runs_and_holds_for_training_and_streams() -> None:
    (run,) = [variable for variable in BOARD["templating"]["list"] if variable["name"] == "run"]
    wanted = re.fullmatch(r"label_values\((.+), run\)", run["query"])
    assert wanted
    promql_parser.parse(wanted[1])
    assert "train_step" in wanted[1]
    assert "stream_batches_total" in wanted[1]
    for query in QUERIES:
        figures = re.findall(r"\bbiovfm_(?:train|stream)_\w+", query)
        assert query.count('{run=~"$run"}') == len(figures)


def test_every_part_is_shown() -> None:
    asked = {name.split("_")[1] for query in QUERIES for name in re.findall(r"\bbiovfm_\w+", query)}
    assert asked == {"train", "stream", "ingest", "dataset", "http"}
