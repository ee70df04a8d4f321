"""A headless Chromium that tells what it asks for, and JavaScript run by Node: each test skips where there is none."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync"
)


def skip_without_page() -> None:
    """Skip a test that opens a page where there is no browser, or no onnxruntime-web."""
    from cache.runtime.errors import UserError
    from distill.deploy.web_runtime import runtime_for_web

    if not (shutil.which("chromium") or shutil.which("google-chrome")) or not shutil.which("chromedriver"):
        pytest.skip("chromium and chromedriver are not installed")
    try:
        runtime_for_web()
    except UserError as error:
        pytest.skip(f"no onnxruntime-web: {error.problem}")


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """Yield a driver of selenium's, its own log and that of its network kept."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


def asked_for(browser: Any) -> list[str]:
    """The addresses that a page asked for since this was last called."""
    events = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


def device(browser: Any, width: int, *, dark: bool = False) -> None:
    """Make the browser's window so wide, and the system's colours dark or light."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def by_node(scripts: list[Path], expression: str, given: Any = None) -> Any:
    """The value of an expression of JavaScript that may use ``given`` and all that the scripts define."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    code = "\n".join(path.read_text() for path in scripts)
    code += "\nconst given = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
    code += f"\nprocess.stdout.write(JSON.stringify(({expression})));"
    done = subprocess.run([node, "-e", code], input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
