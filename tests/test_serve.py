"""A shipped model over HTTP: answers, limits, errors, the page."""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import json
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from deploy_parts import val_photos
from PIL import Image
from test_untrusted import png_of

from distill.deploy.batching import Batcher
from distill.deploy.model import Model
from distill.deploy.predict import predict
from distill.deploy.serve import Rates, Refused


@contextmanager
def serving(model: Path, *options: str) -> Iterator[Callable[..., tuple[int, Any]]]:
    """Yield a function that asks a running service, and returns the status and the answer."""
    command = [sys.executable, "-m", "cli", "serve", str(model), "--port", "0", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().split()[-1]

    def ask(path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        request = urllib.request.Request(address + path, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    ask.address = address  # type: ignore[attr-defined]
    try:
        yield ask
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=600)
    assert process.returncode == 143
    assert "Traceback" not in said, said


@pytest.fixture
def service(exported: Path) -> Iterator[Callable[..., tuple[int, Any]]]:
    """A running service."""
    with serving(exported, "--max-megabytes", "1") as ask:
        yield ask


@pytest.mark.slow
def test_the_service_answers_as_predict_does_and_loses_no_request(service, trained, exported):
    photos = val_photos(trained)
    model = Model.open(exported)
    expected = {
        str(photo): one.labels[0]
        for photo, one in zip(photos, predict(model, photos, model.class_set()), strict=True)
    }
    many = [photos[i % len(photos)] for i in range(500)]
    with concurrent.futures.ThreadPoolExecutor(500) as pool:
        found = list(pool.map(lambda photo: service("/predict?top=2", photo.read_bytes()), many))
    assert Counter(status for status, _ in found) == {200: 500}
    for photo, (_, answer) in zip(many, found, strict=True):
        assert answer["answer"] == expected[str(photo)].label
        assert answer["labels"][0]["score"] == pytest.approx(expected[str(photo)].score, abs=1e-3)


@pytest.mark.slow
def test_a_client_that_asks_too_often_is_told_so(exported):
    with serving(exported, "--rate", "0.01") as ask:
        assert ask("/health")[0] == 200
        assert ask("/health") == (429, {"error": "more than 0.01 requests a second; ask again in a second"})


@pytest.mark.slow
def test_the_service_says_what_is_wrong_in_one_line(service, trained):
    raw = val_photos(trained)[0].read_bytes()
    wide = io.BytesIO()
    Image.effect_noise((1200, 1200), 200).save(wide, format="BMP")
    for path, body, status, said in (
        ("/predict", b"", 400, "the body is empty"),
        ("/predict", b"hello", 415, "is no image"),
        ("/predict", raw[:-60], 415, "is damaged"),
        ("/predict", png_of(30_000), 413, "pixels"),
        ("/predict", wide.getvalue(), 413, "larger than 1 MB"),
        ("/predict?labels=lemonn", raw, 422, "did you mean 'lemon'"),
        ("/predict?labels=", raw, 400, "labels names nothing"),
        ("/predict?bank=x", raw, 422, "no text bank 'x'"),
        ("/predict?top=0", raw, 422, "top is '0'"),
        ("/nothing", raw, 404, "Not Found"),
    ):
        found, answer = service(path, body)
        assert (found, said in answer["error"]) == (status, True), (path, answer)
        assert "\n" not in answer["error"]
    assert service("/predict?labels=plum&labels=lemon", raw)[1]["labels"][1]["label"] in ("plum", "lemon")
    form = (
        b'--B\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n%b\r\n--B--\r\n' % raw
    )
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    assert (
        service("/predict?neighbours=3", form, **kind)[1]["labels"] == service("/predict", raw)[1]["labels"]
    )
    assert len(service("/predict?neighbours=3", raw)[1]["neighbours"]) == 3
    assert service("/predict", b"--B--", **kind)[0] == 400
    assert "/predict" in service("/openapi.json")[1]["paths"]


@pytest.mark.slow
def test_an_image_dropped_on_the_page_is_answered_beside_training_images(service, trained):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(word)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.get(service.address)
        WebDriverWait(driver, 20).until(lambda d: d.find_elements(By.CSS_SELECTOR, "#bank option"))
        driver.find_element(By.ID, "file").send_keys(str(val_photos(trained)[0]))
        WebDriverWait(driver, 20).until(lambda d: d.find_element(By.ID, "best").text)
        assert len(driver.find_elements(By.CSS_SELECTOR, "#scores tr")) == 5
        assert len(driver.find_elements(By.CSS_SELECTOR, "#neighbours img")) == 6
        driver.execute_script(
            "const l = document.getElementById('labels'); l.value = 'lemonn'; l.dispatchEvent(new Event('change'))"
        )
        WebDriverWait(driver, 20).until(lambda d: "did you mean" in d.find_element(By.ID, "said").text)
    finally:
        driver.quit()


def test_a_client_gets_ten_seconds_worth_at_once_and_no_more():
    rates = Rates(2)
    for _ in range(20):
        rates.take("a")
    with pytest.raises(Refused, match="more than 2 requests a second"):
        rates.take("a")
    rates.take("b")


def test_a_batch_that_fails_is_told_to_each_and_the_next_is_served():
    def embed(images: np.ndarray) -> np.ndarray:
        if images.max() > 8:
            raise MemoryError("too much")
        return images * 2

    async def ask() -> list[Any]:
        batcher = Batcher(embed, most=4, waiting=8)
        running = asyncio.create_task(batcher.run())
        asked = [batcher.embed(np.full(2, value, dtype=np.float32)) for value in (1, 9, 2)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        # Images of other sizes make no batch: that is told too.
        odd = [batcher.embed(np.zeros(size, dtype=np.float32)) for size in (2, 3)]
        found += await asyncio.gather(*odd, return_exceptions=True)
        found.append(await batcher.embed(np.full(2, 3, dtype=np.float32)))
        running.cancel()
        return found

    *failed, after = asyncio.run(ask())
    assert [type(one) for one in failed] == [MemoryError] * 3 + [ValueError] * 2
    np.testing.assert_array_equal(after, [6, 6])
