"""A model in a browser.

The page of `distill export --web` in a headless Chromium, one thread, beside onnxruntime in Python with one
thread: the same graph and photo of 12 megapixels, by turns. Times are a processor's, so that what else runs
does not count, and medians of turns; p50 is by the clock. "To prepare" is what the page takes besides, to
decode the photo and to squash it as Python does. The graph's MB are the file's, "packed" is what a browser
loads of it, and of the vocabulary's words with their rows; onnxruntime-web is 3.7 MB more. A page has started
when it has unpacked all, opened the graph and run it once.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.turns import Row, in_turn, medians, one_number, timed
from cache.runtime.errors import UserError
from distill.deploy.info import ONNX
from distill.deploy.model import Model
from distill.deploy.web import write_web

COLUMNS = {
    "student": "{}",
    "file": "{}",
    "in": "{}",
    "ms": "{:.1f}",
    "p50, ms": "{:.1f}",
    "to prepare, ms": "{:.0f}",
    "starts, s": "{:.1f}",
    "MB of the graph": "{:.1f}",
    "packed": "{:.1f}",
    "words, packed": "{:.1f}",
    "cosine": "{:.4f}",
}
OPTIONS = {"models": [Path("models/first")], "photo": Path, "repeats": 50}
EMBED = """
const [repeats, done] = arguments, times = [];
(async () => {
  for (let i = 0; i < repeats; i++) {
    const began = performance.now();
    await state.embed(given);
    times.push(performance.now() - began);
  }
  done(times);
})();
"""


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Measure every model's page, of its own precision, beside Python."""
    rows: list[Row] = []
    for folder in args.models:
        rows += _of_model(folder, args)
    return rows, None


def _of_model(folder: Path, args: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as temporary, _browser() as browser:
        page = write_web(folder, Path(temporary) / "page")
        model = Model.open(folder, precision=page.precision, threads=1)
        image = model.prepare_file(args.photo.read_bytes())
        browser.get((page.folder / "index.html").resolve().as_uri())
        _until(browser, "return document.getElementById('state').textContent === 'Give it a picture.'")
        started = _processor(browser)
        browser.find_element("id", "file").send_keys(str(args.photo.resolve()))
        _until(browser, "return state.times !== null")
        whole = _processor(browser) - started
        found = browser.execute_script("return Array.from(state.embedding)")
        browser.execute_script("globalThis.given = Float32Array.from(arguments[0])", image.ravel().tolist())

        def in_page() -> dict[str, float]:
            began = _processor(browser)
            taken = browser.execute_async_script(EMBED, args.repeats)
            return {"ms": (_processor(browser) - began) / args.repeats, "p50, ms": statistics.median(taken)}

        def in_python() -> dict[str, float]:
            taken, began = [], time.process_time()
            for _ in range(args.repeats):
                taken.append(1000 * timed(lambda: model.embed(image[None]))[0])
            ms = 1000 * (time.process_time() - began) / args.repeats
            return {"ms": ms, "p50, ms": statistics.median(taken)}

        turns = in_turn({"the page": in_page, "onnxruntime, one thread": in_python}, args.rounds)
    rows: list[Row] = [
        {"student": model.info.arch, "file": page.precision, "in": way}
        | {name: medians(one_number(turns, name))[way] for name in ("ms", "p50, ms")}
        for way in turns[0]
    ]
    rows[0] |= {
        "to prepare, ms": whole - rows[0]["ms"],
        "starts, s": started / 1000,
        "MB of the graph": (folder / ONNX[page.precision]).stat().st_size / 1e6,
        "packed": 0.75 * page.model_bytes / 1e6,
        "cosine": float(np.array(found) @ model.embed(image[None])[0]),
    }
    if page.vocabulary_bytes:
        rows[0]["words, packed"] = 0.75 * page.vocabulary_bytes / 1e6
    return rows


def _processor(browser: Any) -> float:
    """Return the milliseconds of a processor that the page's process has taken."""
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return 1000 * next(one["value"] for one in metrics if one["name"] == "ProcessTime")


@contextmanager
def _browser() -> Iterator[Any]:
    from selenium import webdriver

    browser, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if browser is None or driver is None:
        raise UserError("chromium or chromedriver is not installed", fix="install both.")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chrome.set_script_timeout(600)
    chrome.execute_cdp_cmd("Performance.enable", {})
    try:
        yield chrome
    finally:
        chrome.quit()


def _until(browser: Any, done: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 120, poll_frequency=0.05).until(lambda one: one.execute_script(done))
