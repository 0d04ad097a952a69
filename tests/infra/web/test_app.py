"""The dataset in a browser, over a real server."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from infra.web.app import make_app
from infra.web.queries import Browser
from shards.dataset.dataset import Dataset
from tests.browser import open_page
from tests.shards.builders import small_dataset

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("serve") / "data")


@pytest.fixture(scope="module")
def address(dataset: Dataset) -> Iterator[str]:
    app = make_app(dataset.url, hosts=["127.0.0.1"])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.browser
def test_the_pages_open_without_an_error(address: str) -> None:
    front = open_page(f"{address}/")
    assert front.errors == []
    assert "Fundus" in front.text
    grid = open_page(f"{address}/modality/US")
    assert grid.errors == []
    assert grid.picture_widths == [80] * 40


def test_images_are_the_bytes_of_the_shard(address: str, dataset: Dataset) -> None:
    browser = Browser(dataset.url)
    key = browser.keys("CT", start=3, num=1)[0]
    row = browser.row(key)
    assert row is not None
    shard = Path(dataset.url, row["shard"]).read_bytes()
    assert get(f"{address}/image/{key}") == (200, shard[row["byte_offset"] : row["byte_offset"] + row["byte_length"]])
    status, page = get(f"{address}/sample/{key}")
    assert status == 200
    assert row["pixel_sha256"].encode() in page


@pytest.mark.parametrize(
    "path", ["/image/nothing", "/sample/x'--", "/modality/Bread", "/image/..%2F..%2Fetc%2Fpasswd", "/nowhere"]
)
def test_what_is_not_there_is_not_found(address: str, path: str) -> None:
    assert get(f"{address}{path.replace(' ', '%20')}")[0] == 404


def test_pages_of_other_names_are_refused(address: str) -> None:
    assert get(f"{address}/", Host="evil.example")[0] == 400


def test_a_strange_page_number_is_the_first_page(address: str) -> None:
    assert get(f"{address}/modality/US?page=abc")[0] == 200
    assert get(f"{address}/modality/US?page=99")[0] == 200


def test_metrics_count_requests_by_route(dataset: Dataset) -> None:
    app = make_app(dataset.url, hosts=["127.0.0.1"], metrics=True)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    base = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        for path in ("/", "/sample/none-1", "/sample/none-2", "/nowhere"):
            get(f"{base}{path}")
        status, body = get(f"{base}/metrics")
        asked = get(f"{base}/metrics", Accept="application/openmetrics-text; version=1.0.0")[1].decode()
        by_another_name = [get(f"{base}{path}", Host="10.1.2.3:8080")[0] for path in ("/metrics", "/")]
    finally:
        server.should_exit = True
        thread.join()
    assert status == 200
    assert by_another_name == [200, 400]
    found = {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert found["biovfm_http_requests_total", "200", "GET", "/"] == 1
    assert found["biovfm_http_requests_total", "404", "GET", "/sample/{key}"] == 2
    assert found["biovfm_http_requests_total", "404", "GET", "none"] == 1
    assert found["biovfm_dataset_samples", "US"] == 40
    assert asked.endswith("# EOF\n")


def test_no_metrics_unless_asked_for(address: str) -> None:
    assert get(f"{address}/metrics")[0] == 404
