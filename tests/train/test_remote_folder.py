"""The folder of a run on object storage: what one host wrote, another goes on with."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from shards.store import open_store
from train.remote_folder import RemoteFolder, is_remote

pytestmark = pytest.mark.s3


@pytest.fixture
def url(bucket: str) -> str:
    return f"{bucket}/runs/{uuid.uuid4().hex[:6]}"


def on_host(name: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteFolder:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
    folder = RemoteFolder(url)
    folder.local.mkdir(parents=True, exist_ok=True)
    return folder


def write(folder: RemoteFolder, steps: int) -> str:
    text = "".join(json.dumps({"step": step}) + "\n" for step in range(1, steps + 1))
    (folder.local / "metrics.jsonl").write_text(text)
    return text


def test_another_host_takes_the_lines_over(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = on_host("one", url, tmp_path, monkeypatch)
    write(one, 10)
    one.keep_metrics(10)
    lines = write(one, 20)
    one.keep_metrics(20)
    one.keep_metrics(20)  # the checkpoint was cut off and is written again
    assert [item.path for item in open_store(url).list("metrics/")] == ["metrics/00000020.jsonl"]

    two = on_host("two", url, tmp_path, monkeypatch)
    assert two.local != one.local
    two.fetch_metrics()
    assert (two.local / "metrics.jsonl").read_text() == lines


def test_a_host_keeps_its_own_lines_where_they_go_on_longer(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = on_host("one", url, tmp_path, monkeypatch)
    one.fetch_metrics()
    assert not (one.local / "metrics.jsonl").exists()
    write(one, 10)
    one.keep_metrics(10)
    longer = write(one, 15)
    one.fetch_metrics()
    assert (one.local / "metrics.jsonl").read_text() == longer


def test_a_finished_run_leaves_its_recipe_and_export(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = on_host("one", url, tmp_path, monkeypatch)
    (one.local / "recipe.yaml").write_text("name: a\n")
    (one.local / "export").mkdir()
    (one.local / "export" / "config.json").write_text("{}")
    one.finish()
    one.finish()
    assert open_store(url).read("export/config.json") == b"{}"
    assert open_store(url).read("recipe.yaml") == b"name: a\n"
    assert one.checkpoints == f"{url}/checkpoints"


@pytest.mark.parametrize(("out", "remote"), [("s3://b/run", True), ("runs/a", False), ("file:///runs/a", False)])
def test_what_is_a_url(out: str, *, remote: bool) -> None:
    assert is_remote(out) is remote
