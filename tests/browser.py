"""Opens a page in headless Chromium and says what its console said."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

PATIENCE_MS = 120_000
"""A busy machine may take long to start a browser or to show a page."""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a page showed: its text, the sizes of its pictures, console errors, and requests that left the page."""

    text: str
    picture_widths: list[int]
    errors: list[str]
    requests: list[str]


def open_page(path: Path | str, *, screenshot: Path | None = None) -> Seen:
    """Open a local file or an address; skips the test where there is no Chromium."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    from playwright.sync_api import Error, sync_playwright

    errors: list[str] = []
    requests: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=FLAGS, timeout=PATIENCE_MS)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        address = path if isinstance(path, str) else path.absolute().as_uri()
        page.goto(address, wait_until="networkidle", timeout=PATIENCE_MS)
        with contextlib.suppress(Error):  # what is still missing shows as a width of 0
            page.wait_for_function("[...document.images].every(image => image.complete)", timeout=PATIENCE_MS)
        text = page.inner_text("body")
        widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
        if screenshot is not None:
            page.screenshot(path=str(screenshot), full_page=True)
        browser.close()
    home = (
        ("file:", "data:") if isinstance(path, Path) else ("data:", path.split("/", 3)[0] + "//" + path.split("/")[2])
    )
    outside = [url for url in requests if not url.startswith(home)]
    return Seen(text=text, picture_widths=widths, errors=errors, requests=outside)
