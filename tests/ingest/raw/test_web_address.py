"""URLs with signatures: what is kept of them names the file, and lets nobody read it."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.job.list import list_raw
from ingest.privacy.pseudonyms import KeyedNames, Pseudonyms
from ingest.raw.items import RawItem
from ingest.raw.list_file import listed_items
from ingest.raw.root import RawRoot
from ingest.raw.web_address import name_in, plain_address, query_of, without_secrets
from ingest.settings import IngestSettings, LimitSettings
from ingest.withdrawal.choose import Asked
from ingest.withdrawal.choose import _stated_paths as stated_paths
from tests.ingest.material import encoded, ingest, photo, public_spec, tables

SIGNED = "http://h/d/a.jpg?X-Amz-Algorithm=A&X-Amz-Credential=AK%2F1&X-Amz-Date=2&X-Amz-Expires=9&X-Amz-Signature={}"


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://h/d/a.jpg", "http://h/d/a.jpg"),
        (SIGNED.format("abc"), "http://h/d/a.jpg"),
        ("https://me:secret@h:1/a.jpg?Signature=x&Expires=12&AWSAccessKeyId=k#f", "https://h:1/a.jpg"),
        (
            "https://x.blob.core.windows.net/c/a.png?sv=1&sr=b&sp=r&se=2&sig=x%3D",
            "https://x.blob.core.windows.net/c/a.png",
        ),
        ("HTTP://h/a.jpg#x", "HTTP://h/a.jpg"),
        ("zip://d/12:30@x?.png::https://h/x.zip?sig=1", "zip://d/12:30@x?.png::https://h/x.zip"),
        ("ftp://me:secret@h/a.png", "ftp://h/a.png"),
        ("s3://b/a?b#c.png", "s3://b/a?b#c.png"),
        ("file:///d/a?b#c.png", "file:///d/a?b#c.png"),
        ("a?b#c.png", "a?b#c.png"),
    ],
)
def test_what_is_kept_of_a_url(url: str, kept: str) -> None:
    assert without_secrets(url) == plain_address(url) == without_secrets(kept) == kept


def test_a_query_that_says_which_file_it_is_is_kept_as_a_hash() -> None:
    kept = {
        url: without_secrets(f"http://h/api?{url}") for url in ("id=1", "id=2", "id=1&token=t", "key=a.png", "se=1")
    }
    assert len(set(kept.values())) == 5
    for query, url in kept.items():
        assert url.startswith("http://h/api?query-")
        assert query not in url
        assert without_secrets(url) == url
    assert without_secrets("http://h/api?id=1&Signature=a&Expires=3") == kept["id=1"]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (SIGNED.format("a/b.png"), "a.jpg"),
        ("http://h/a.jpg#x/y.png", "a.jpg"),
        ("http://h/download?file=a.jpg", "download"),
        ("zip://d/a.png::http://h/x.zip?sig=1", "a.png"),
        ("file:///d/a#1.png", "a#1.png"),
    ],
)
def test_the_name_is_that_of_the_path(url: str, name: str) -> None:
    assert name_in(url) == name
    assert RawItem(path=url, kind="url").name == name


@given(st.text())
def test_any_text_is_an_address(text: str) -> None:
    for path in (text, f"http://{text}", f"zip://{text}::https://h/{text}"):
        assert without_secrets(without_secrets(path)) == without_secrets(path)
        assert path.endswith(query_of(path))


def test_raw_paths_hold_no_query() -> None:
    item = RawItem(path="http://h/d/api?id=1&token=abc", kind="url")
    assert item.raw_path == without_secrets(item.path) != item.path
    assert item.inner_path == "http://h/d/api"
    hidden = Pseudonyms(public_spec(raw_paths="hash"), IngestSettings())
    first, second = (RawItem(path=SIGNED.format(text), kind="url") for text in ("a", "b"))
    assert first.raw_path == second.raw_path
    assert hidden.raw_path(first) == hidden.raw_path(second)


def test_a_file_is_withdrawn_by_any_link_to_it() -> None:
    names = {"s": (KeyedNames("s"),)}
    first, second = (stated_paths(Asked(raw_paths=(SIGNED.format(text),)), names).to_pylist() for text in ("a", "b"))
    assert first == second
    assert {"source": "s", "path": "h/d/a.jpg"} in first


def test_a_list_has_one_row_for_each_file(tmp_path: Path) -> None:
    rows = [SIGNED.format("a"), SIGNED.format("b"), "http://h/api?id=1", "http://h/api?id=2", "http://h/d/a.jpg"]
    (tmp_path / "l.csv").write_text("url,label,age\n" + "".join(f"{row},{n},{n}\n" for n, row in enumerate(rows)))
    found = list(listed_items(RawRoot(str(tmp_path / "l.csv")), LimitSettings()))
    assert [(item.path, item.stated.label) for item in found] == [(rows[2], "2"), (rows[3], "3"), (rows[0], "0")]
    layout = {"reader": "list", "columns": {"years": "age"}}
    listing = list_raw(str(tmp_path / "l.csv"), public_spec(layout=layout), IngestSettings())
    assert len(listing.items) == 3
    (own,) = listing.own
    assert [own.rows_of(item)[0] for item in listing.items] == [2, 3, 0]


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(self.data())

        def do_GET(self) -> None:
            self.wfile.write(self.answer(self.data()))

        def data(self) -> bytes:
            path, _, query = self.path.partition("?")
            if path.endswith((".jpg", ".csv")) and "Signature=" not in query:
                return b""
            if path.endswith(".csv"):
                return b"path\ngone.png\n"
            number = sum(self.path.encode()) % 251
            return (
                b"words" if path.endswith("/text.php") else encoded(photo(number), "PNG" if "id=" in query else "JPEG")
            )

        def answer(self, data: bytes) -> bytes:
            self.send_response(200 if data else 403)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            return data

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name of the base class
            del format, args

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.process
@pytest.mark.slow
def test_files_behind_signed_urls_are_read_by_path_or_content(tmp_path: Path, server: str) -> None:
    urls = [
        "a.jpg?Signature=s3cret&Expires=12",
        "b.jpg?Signature=s3cret#x",
        "api?id=77",
        "get.php?id=78",
        "text.php?id=1",
    ]
    (tmp_path / "l.csv").write_text("url\n" + "".join(f"{server}/{url}\n" for url in urls))
    report = ingest(tmp_path / "l.csv", tmp_path / "d", public_spec(layout={"reader": "list"}))
    assert (report.files, report.kept, report.reasons) == (5, 4, {"unsupported": 1})
    found = tables(tmp_path / "d")
    names = [row["raw_path"].removeprefix(server) for row in found["index"]]
    assert sorted(name.partition("?query-")[0] for name in names) == ["/a.jpg", "/api", "/b.jpg", "/get.php"]
    assert not any("s3cret" in str(row) for rows in found.values() for row in rows)


@pytest.mark.process
@pytest.mark.slow
def test_a_signed_raw_url_is_read_by_its_path(server: str) -> None:
    root = RawRoot(f"{server}/l.csv?Signature=a/b&Expires=12")
    assert root.single == "l.csv"
    assert [(file.path, file.size) for file in root.walk()] == [("l.csv", 14)]
    with root.open("l.csv") as stream:
        assert stream.read() == b"path\ngone.png\n"
