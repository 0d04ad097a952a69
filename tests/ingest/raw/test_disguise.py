"""What a file really is."""

from __future__ import annotations

import gzip
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.raw.disguise import HEAD_BYTES, disguise
from tests.ingest.material import encoded, ingest, photo, public_spec, tables, write_folder, zip_of


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\xef\xbb\xbf\r\n<HTML lang=en>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "XML"),
        (b'{"message": "Not found"}', "error message"),
        (b"Rar!\x1a\x07\x01\x00", "RAR"),
        (b"%PDF-1.7", "PDF"),
        (bytes(HEAD_BYTES), "zeros"),
    ],
)
def test_downloads_that_are_something_else(head: bytes, word: str) -> None:
    assert word in disguise(head)


@pytest.mark.parametrize("head", [b"", b"\0" * 10, encoded(photo(0)), b"DICM", b"<svg"])
def test_what_says_nothing(head: bytes) -> None:
    assert disguise(head) == ""


@given(st.binary(max_size=HEAD_BYTES))
def test_any_bytes_get_words_of_our_own(head: bytes) -> None:
    assert disguise(head).isascii()


def test_rejects_say_what_was_downloaded_instead(tmp_path: Path) -> None:
    page = b"<!DOCTYPE html><html>Quota exceeded</html>"
    files = {
        "a.png": page,
        "b.dcm": page,
        "c.nii.gz": b"version https://git-lfs.github.com/spec/v1\n",
        "d.jpg": zip_of({}),
    }
    raw = write_folder(tmp_path / "raw", {**files, "e.tif": gzip.compress(b"x"), "z.png": encoded(photo(0))})
    assert ingest(raw, tmp_path / "dataset").kept == 1
    details = {row["raw_path"]: row["detail"] for row in tables(tmp_path / "dataset")["rejects"]}
    assert "a web page" in details["a.png"]
    assert "a web page" in details["b.dcm"]
    assert "Git LFS" in details["c.nii.gz"]
    assert "gzip" in details["e.tif"]


@pytest.mark.process
def test_a_page_in_place_of_a_file_is_pending_until_the_server_gives_the_file(tmp_path: Path) -> None:
    page = b"<!DOCTYPE html><html>Please log in</html>"
    web = write_folder(tmp_path / "web", {"a.png": encoded(photo(0)), "b.png": page, "c.png": b"no image"})
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(web))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        names = "".join(f"http://127.0.0.1:{server.server_port}/{path.name}\n" for path in sorted(web.iterdir()))
        (tmp_path / "list.csv").write_text("path\n" + names)
        spec = public_spec(reader="list")
        first = ingest(tmp_path / "list.csv", tmp_path / "dataset", spec)
        (web / "b.png").write_bytes(encoded(photo(1)))
        second = ingest(tmp_path / "list.csv", tmp_path / "dataset", spec)
        server.shutdown()
    assert (first.kept, first.pending, first.rejected) == (1, 1, 1)
    assert (second.kept, second.pending, second.rejected) == (2, 0, 1)
