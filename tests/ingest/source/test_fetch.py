"""Downloads from a server of this machine: whole, resumed, checked, and polite."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.cli import main
from ingest.source.fetch import Fetched, fetch
from ingest.source.spec import Link, parse_spec
from shards.errors import ConfigError, SourceError

pytestmark = pytest.mark.process
DATA = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
SHA256 = hashlib.sha256(DATA).hexdigest()


@dataclass
class Behaviour:
    """What the server does, and what it saw."""

    files: dict[str, bytes] = field(default_factory=lambda: {"a.zip": DATA})
    break_after: int = 0
    breaks: int = 0
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    tag: str = '"v1"'
    requests: list[dict[str, str]] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    hold_seconds: float = 0.0


class Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour

    def do_GET(self) -> None:
        own = self.behaviour
        with own.lock:
            own.requests.append({key.lower(): value for key, value in self.headers.items()} | {"path": self.path})
            own.running += 1
            own.most_running = max(own.most_running, own.running)
        try:
            time.sleep(own.hold_seconds)
            self.answer(own)
        finally:
            with own.lock:
                own.running -= 1

    def answer(self, own: Behaviour) -> None:
        if own.statuses:
            self.send_response(own.statuses.pop(0))
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = own.files.get(self.path.rpartition("/")[2].partition("?")[0])
        if data is None:
            self.send_error(404)
            return
        begun = 0
        wanted = self.headers.get("Range", "")
        if own.ranges and wanted and self.headers.get("If-Range") == own.tag:
            begun = int(wanted.removeprefix("bytes=").rstrip("-"))
        if begun >= len(data) > 0:
            self.send_error(416)
            return
        self.send_response(206 if begun else 200)
        if begun:
            self.send_header("Content-Range", f"bytes {begun}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begun))
        self.send_header("ETag", own.tag)
        self.end_headers()
        if own.breaks:
            own.breaks -= 1
            self.wfile.write(data[begun : begun + own.break_after])
            self.wfile.flush()
            self.connection.close()
            return
        with suppress(ConnectionError):
            self.wfile.write(data[begun:])

    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, Behaviour]]:
    behaviour = Behaviour()
    handler = type("Bound", (Handler,), {"behaviour": behaviour})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", behaviour
        http.shutdown()
        thread.join()


def get(folder: Path, *links: Link, **options: Any) -> list[Fetched]:
    return fetch(links, folder, pause_seconds=0.01, **options)


def test_a_file_is_downloaded_once_and_checked(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    link = Link(url=f"{url}/d/a.zip", sha256=SHA256, size=len(DATA))
    seen: list[tuple[str, int, int]] = []
    assert get(tmp_path / "raw", link, tell=lambda *told: seen.append(told)) == [
        Fetched(name="a.zip", url=link.url, state="downloaded", size=len(DATA), sha256=SHA256)
    ]
    assert (tmp_path / "raw" / "a.zip").read_bytes() == DATA
    assert seen[-1] == ("a.zip", len(DATA), len(DATA))
    assert [one.state for one in get(tmp_path / "raw", link)] == ["there"]
    assert len(behaviour.requests) == 1
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["a.zip"]


def test_a_broken_connection_is_resumed_where_it_stopped(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    behaviour.break_after, behaviour.breaks = 100_000, 2
    assert [one.state for one in get(tmp_path, Link(url=f"{url}/a.zip", sha256=SHA256))] == ["resumed"]
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert [request.get("range") for request in behaviour.requests] == [None, "bytes=100000-", "bytes=200000-"]


def test_an_interrupted_run_goes_on(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    (tmp_path / "a.zip.part").write_bytes(DATA[:123_456])
    (tmp_path / "a.zip.part.json").write_text(json.dumps({"tag": behaviour.tag}))
    assert [one.state for one in get(tmp_path, Link(url=f"{url}/a.zip", sha256=SHA256))] == ["resumed"]
    assert behaviour.requests[0]["range"] == "bytes=123456-"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]


@pytest.mark.parametrize("why", ["changed", "no ranges", "longer", "unreadable notes", "damaged part"])
def test_a_part_of_another_file_is_not_used(server: tuple[str, Behaviour], tmp_path: Path, why: str) -> None:
    url, behaviour = server
    (tmp_path / "a.zip.part").write_bytes(bytes(len(DATA) + 1) if why == "longer" else bytes(1000))
    (tmp_path / "a.zip.part.json").write_text("{" if why == "unreadable notes" else json.dumps({"tag": behaviour.tag}))
    if why == "changed":
        behaviour.tag = '"v2"'
    behaviour.ranges = why != "no ranges"
    assert [one.sha256 for one in get(tmp_path, Link(url=f"{url}/a.zip", sha256=SHA256))] == [SHA256]
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_a_busy_server_gets_its_pauses_and_no_more_than_two_downloads(
    server: tuple[str, Behaviour], tmp_path: Path
) -> None:
    url, behaviour = server
    behaviour.files = {f"{number}.zip": DATA[:1000] for number in range(8)}
    behaviour.statuses, behaviour.hold_seconds = [503, 429, 500], 0.05
    found = get(tmp_path, *(Link(url=f"{url}/{number}.zip") for number in range(8)), workers=8)
    assert {one.state for one in found} == {"downloaded"}
    assert len(behaviour.requests) == 11
    assert behaviour.most_running == 2
    assert all("biovfm" in request["user-agent"] for request in behaviour.requests)


def test_failures_are_told_and_the_other_files_come(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    behaviour.files |= {"page.zip": b"<!DOCTYPE html><html>Quota exceeded</html>", "b.zip": DATA}
    links = {
        "gone.zip": Link(url=f"{url}/gone.zip"),
        "page.zip": Link(url=f"{url}/page.zip"),
        "wrong.zip": Link(url=f"{url}/a.zip", name="wrong.zip", sha256="0" * 64),
        "size.zip": Link(url=f"{url}/a.zip", name="size.zip", size=1),
        "a.zip": Link(url=f"{url}/a.zip"),
        "b.zip": Link(url=f"{url}/b.zip?download=1", sha256=SHA256),
    }
    found = {one.name: one for one in get(tmp_path, *links.values())}
    assert {name: one.state for name, one in found.items()} == {
        **dict.fromkeys(("gone.zip", "page.zip", "wrong.zip", "size.zip"), "failed"),
        **dict.fromkeys(("a.zip", "b.zip"), "downloaded"),
    }
    assert "404" in found["gone.zip"].error
    assert "a web page" in found["page.zip"].error
    assert "checksum" in found["wrong.zip"].error
    assert "300000 bytes, not 1" in found["size.zip"].error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.zip"]


def test_a_server_that_stays_away_is_given_up_in_words(tmp_path: Path, server: tuple[str, Behaviour]) -> None:
    url, behaviour = server
    behaviour.statuses = [503] * 20
    (one,) = get(tmp_path, Link(url=f"{url}/a.zip"))
    assert (one.state, "6 times" in one.error, "run the same command again" in one.error) == ("failed", True, True)
    behaviour.statuses = [403]
    (one,) = get(tmp_path, Link(url=f"{url}/a.zip"))
    assert "register" in one.error


def test_a_file_that_is_there_and_another_one_is_not_overwritten(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"mine")
    (one,) = get(tmp_path, Link(url=f"{server[0]}/a.zip", sha256=SHA256))
    assert "is not the file that the link names" in one.error
    assert (tmp_path / "a.zip").read_bytes() == b"mine"


def test_names_must_differ_and_stay_in_the_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"both named a\.zip"):
        get(tmp_path, Link(url="http://h/1/a.zip"), Link(url="http://h/2/a.zip"))
    for url, name in (("http://h/", ""), ("http://h/a", "../a"), ("file:///etc/passwd", ""), ("http://h/%2e%2e", "")):
        with pytest.raises(ValueError, match="URL"):
            Link(url=url, name=name)
    with pytest.raises(ConfigError, match="links"):
        parse_spec("id: x\nmodality: [CT]\nlinks: [{url: 'http://h/a.zip', sha256: 12}]", name="x.yaml")


def test_the_command_downloads_open_links_and_prints_the_steps_for_the_rest(
    server: tuple[str, Behaviour], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = server
    spec = tmp_path / "x.yaml"
    spec.write_text(f"id: x\nmodality: [CT]\naccess: open\nlinks: [{url}/a.zip]\n")
    assert main(["sources", "fetch", str(spec), str(tmp_path / "raw"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["state"], one["sha256"]) for one in answer["files"]] == [("a.zip", "downloaded", SHA256)]
    assert answer["steps"] == []
    spec.write_text("id: x\nmodality: [CT]\naccess: gated\nurl: https://example.org/x\n")
    assert main(["sources", "fetch", str(spec), str(tmp_path / "raw")]) == 1
    said = capsys.readouterr().out
    assert "1. open https://example.org/x" in said
    assert "ask for access" in said
    assert f"biovfm sources check {spec} " in said
    tables = "layout: {downloads: [b.zip], tables: [{path: '**/list.txt', select: listed}]}"
    spec.write_text(f"id: x\nmodality: [CT]\naccess: open\nlinks: [{url}/a.zip]\n{tables}\n")
    assert main(["sources", "fetch", str(spec), str(tmp_path / "raw")]) == 1
    assert "download b.zip, list.txt into" in capsys.readouterr().out
    spec.write_text(f"id: x\nmodality: [CT]\naccess: open\nlinks: [{url}/gone.zip]\n")
    assert main(["sources", "fetch", str(spec), str(tmp_path / "raw")]) == 1
    assert "failed" in capsys.readouterr().out
