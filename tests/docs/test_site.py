"""The site builds strictly, asks nothing of any network, and is searched without one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from conftest import ROOT
from helpers.browsers import asked_for, chromium, device
from helpers.once import made_once

pytestmark = pytest.mark.long
# What a page loads by itself; links that a reader may follow are not.
LOADED = re.compile(
    r'<(?:script|img|iframe|source)[^>]* src="?(https?:)?//|<link[^>]* href="?https?://(?!www\.w3)[^>]*rel="?(?:stylesheet|preload)'
)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")

    def build(folder: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder / "site"],
            cwd=ROOT, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]

    return made_once(tmp_path_factory, "site", build) / "site"


def test_every_page_is_built_and_loads_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert {"index.html", "reference/commands.html"} <= {page.relative_to(site).as_posix() for page in pages}
    assert not [page for page in pages if LOADED.search(page.read_text(encoding="utf-8"))]


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that says nothing."""

    def log_message(self, *_: object) -> None: ...


def test_search_finds_a_page_from_a_server_and_from_the_disk(site, tmp_path):
    handler = partial(Quiet, directory=str(site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with chromium(tmp_path / "profile") as browser:
            for address in (f"http://127.0.0.1:{server.server_port}/", f"file://{site}/"):
                found = searched(browser, f"{address}index.html", "calibration")
                assert any("calibration" in one for one in found), address
                elsewhere = [
                    one for one in asked_for(browser) if one.startswith("http") and address not in one
                ]
                assert not elsewhere
    finally:
        server.shutdown()
        server.server_close()


def searched(browser, page: str, words: str) -> list[str]:
    """Where the results of a search lead."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    device(browser, 1280)
    browser.get(page)
    field = browser.find_element(By.CSS_SELECTOR, "input.md-search__input")
    field.click()  # which loads the index
    field.send_keys(words)
    results = (By.CSS_SELECTOR, "a.md-search-result__link")
    WebDriverWait(browser, 60).until(lambda one: one.find_elements(*results))
    return [one.get_attribute("href") for one in browser.find_elements(*results)]
