"""A shipped model over HTTP: answers, labels, errors, the page, what openapi.json promises."""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import json
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from helpers.browsers import device
from helpers.exported import invoke, val_photos
from helpers.pictures import png_of
from helpers.services import Ask, connected, post, rest, running, serving
from PIL import Image

from cache import EmbeddingCache
from distill.deploy.batching import Batcher
from distill.deploy.class_sets import ClassSet, names_in
from distill.deploy.model import Model
from distill.deploy.predict import predict


@pytest.fixture(scope="module")
def service(exported: Path) -> Iterator[Ask]:
    """A running service."""
    with running(Model.open(exported), megabytes=1, rate=100_000) as ask:
        yield ask


def test_the_command_answers_as_predict_does_and_loses_no_request(trained, exported):
    photos = val_photos(trained)
    model = Model.open(exported)
    expected = {
        str(photo): one.labels[0]
        for photo, one in zip(photos, predict(model, photos, model.class_set()), strict=True)
    }
    many = [photos[i % len(photos)] for i in range(500)]
    with serving(exported) as ask, concurrent.futures.ThreadPoolExecutor(500) as pool:
        answers = list(pool.map(lambda photo: ask("/predict?top=2", photo.read_bytes()), many))
    assert Counter(status for status, _ in answers) == {200: 500}
    for photo, (_, answer) in zip(many, answers, strict=True):
        assert answer["answer"] == expected[str(photo)].label
        assert answer["labels"][0]["score"] == pytest.approx(expected[str(photo)].score, abs=1e-3)


def test_the_service_says_what_is_wrong_in_one_line(service, trained):
    raw = val_photos(trained)[0].read_bytes()
    wide = io.BytesIO()
    Image.effect_noise((1200, 1200), 200).save(wide, format="BMP")
    for path, body, status, message in (
        ("/predict", b"", 400, "the body is empty"),
        ("/predict", b"hello", 415, "is no image"),
        ("/predict", raw[:-60], 415, "is damaged"),
        ("/predict", png_of(30_000), 413, "pixels"),
        ("/predict", wide.getvalue(), 413, "larger than 1 MB"),
        ("/predict?names=lemonn", raw, 404, "did you mean 'lemon'"),
        ("/predict?names=", raw, 422, "names is empty"),
        ("/predict?bank=x", raw, 404, "no text bank 'x'"),
        ("/predict?top=0", raw, 422, "top is '0'"),
        ("/predict?names=lemon,lemon", raw, 422, "'lemon' is there twice"),
        ("/predict?nearest_images=21", raw, 422, "nearest_images is '21'"),
        ("/predict?labels=lemon", raw, 422, "no parameter 'labels'. Fix: there are bank, names"),
        ("/nothing", raw, 404, "Not Found"),
        ("/predict", None, 405, "Method Not Allowed"),
        ("/health", raw, 405, "Method Not Allowed"),
    ):
        answered, answer = service(path, body)
        assert (answered, message in answer["error"]) == (status, True), (path, answer)
        assert "\n" not in answer["error"]
    assert service("/predict?names=plum&names=lemon", raw)[1]["labels"][1]["label"] in ("plum", "lemon")
    form = (
        b'--B\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n%b\r\n--B--\r\n' % raw
    )
    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    assert (
        service("/predict?nearest_images=3", form, **headers)[1]["labels"]
        == service("/predict", raw)[1]["labels"]
    )
    assert len(service("/predict?nearest_images=3", raw)[1]["nearest_images"]) == 3
    for wrong, message in (
        (b"--B--", "the form"),
        (b"", "the form has no file"),
        (
            b'--B\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--B--\r\n',
            "the form has no file",
        ),
    ):
        status, answer = service("/predict", wrong, **headers)
        assert (status, message in answer["error"]) == (400, True), answer
    assert service("/predict", form, **{"Content-Type": "multipart/form-data"})[0] == 400
    for method in ("HEAD", "OPTIONS", "DELETE"):
        status, answer = service("/predict", method=method)
        assert (status, service.headers["Allow"]) == (405, "POST")
        assert method == "HEAD" or "Method Not Allowed" in answer["error"]


def test_what_is_no_http_is_told_as_any_other_error(service, trained):
    raw = val_photos(trained)[0].read_bytes()
    answer = rest(connected(service, b"hello\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (raw[:100], raw[100:], b""))
    chunked = post(b"Transfer-Encoding: chunked\r\nConnection: close\r\n") + chunks
    assert rest(connected(service, chunked)).startswith(b"HTTP/1.1 200 ")
    # More than was declared is no request; less, and then nothing, is a client that has gone.
    answer = rest(connected(service, post(b"Content-Length: 9\r\n") + raw))
    assert answer.startswith(b"HTTP/1.1 415")
    broken = rest(
        connected(service, post(b"Transfer-Encoding: chunked\r\n") + b"5\r\nhello\r\nno length\r\n")
    )
    assert broken.startswith(b"HTTP/1.1 400 ")
    short = connected(service, post(b"Content-Length: 9999\r\n") + raw[:100])
    short.shutdown(socket.SHUT_WR)
    assert rest(short) == b""
    huge = rest(connected(service, b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000))
    assert huge.startswith(b"HTTP/1.1 431 ")


def test_a_client_that_asks_for_another_protocol_is_answered_in_this_one(service, trained):
    raw = val_photos(trained)[0].read_bytes()
    # As Java's HttpClient begins.
    asks = b"Connection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
    answer = rest(connected(service, post(asks + b"Content-Length: %d\r\n" % len(raw)) + raw))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"answer"' in answer


def bank_of(labels: tuple[str, ...], embed_dim: int = 16) -> ClassSet:
    rows = np.eye(len(labels), embed_dim, dtype=np.float32)
    return ClassSet(labels=labels, classes=("",) * len(labels), texts=labels, embeddings=rows)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["plum,fig"], ("plum", "fig")),
        (["bell pepper, red"], ("bell pepper, red",)),
        (["Bell_Pepper,  Red"], ("bell pepper, red",)),
        (["bell pepper, red", "plum"], ("bell pepper, red", "plum")),
        (['"bell pepper, red",plum'], ("bell pepper, red", "plum")),
        (['plum, "bell pepper, red"', "fig"], ("plum", "bell pepper, red", "fig")),
        (["fig,,plum,"], ("fig", "plum")),
        (['5" pot'], ('5" pot',)),
    ],
)
def test_a_label_may_have_commas(values, expected):
    banks = {"a": bank_of(("plum", "fig", '5" pot')), "b": bank_of(("bell pepper, red", "bell pepper"))}
    assert (
        tuple(name.lower().replace("_", " ").replace(",  ", ", ") for name in names_in(values, banks))
        == expected
    )


def test_a_label_with_commas_is_chosen_over_http_and_on_the_command_line(
    exported, trained, teacher_dir, tmp_path
):
    model, photo = tmp_path / "model", val_photos(trained)[0]
    shutil.copytree(exported, model)
    add = ["--teacher-model", f"local-dir:{teacher_dir}", "--add", "bell pepper, red"]
    assert invoke("texts", model, *add).exit_code == 0
    several, quoted = tmp_path / "labels.txt", quote('"bell pepper, red",plum')
    several.write_text("bell pepper, red\n\nplum\n")
    with running(Model.open(model)) as ask:
        twice = ["--names", "bell pepper, red", "--names", "plum"]
        for query, options in (
            ("names=bell+pepper,+red&names=plum", twice),
            (f"names={quoted}", [f"--names=@{several}"]),
        ):
            status, answer = ask(f"/predict?{query}", photo.read_bytes())
            assert (status, {one["label"] for one in answer["labels"]}) == (200, {"bell pepper, red", "plum"})
            predicted = json.loads(invoke("predict", model, photo, *options, "--format", "jsonl").stdout)
            assert [one["label"] for one in predicted["labels"]] == [one["label"] for one in answer["labels"]]


@pytest.mark.long
def test_every_answer_is_as_openapi_promises(service, tmp_path):
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.address}/openapi.json"]
    options = ["--max-examples", "5", "--seed", "1", "--phases", "coverage,fuzzing", "--no-color"]
    # It leaves a folder where it runs.
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 selected / 3 total" in done.stdout
    schema = service("/openapi.json")[1]
    answers = schema["paths"]["/predict"]["post"]["responses"]
    assert set(answers) == {"200", "400", "404", "408", "413", "415", "422", "429", "503"}
    assert "Retry-After" in answers["503"]["headers"]
    assert {"type", "properties", "required"} <= schema["components"]["schemas"]["PredictAnswer"].keys()


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
        assert len(driver.find_elements(By.CSS_SELECTOR, "#nearest-images img")) == 6
        driver.execute_script(
            "const l = document.getElementById('names'); l.value = 'lemonn'; l.dispatchEvent(new Event('change'))"
        )
        WebDriverWait(driver, 20).until(lambda d: "did you mean" in d.find_element(By.ID, "said").text)
        # An earlier question that is answered later is not shown; meanwhile the page says that it is at work.
        first, second = driver.execute_async_script(
            """
            const done = arguments[0], real = window.fetch;
            window.fetch = async (path, more) => {
              const slow = decodeURIComponent(path).includes("lemonn");
              if (slow) await new Promise(after => setTimeout(after, 1500));
              return real(path, {...more, signal: undefined});
            };
            const names = document.getElementById("names");
            const asked = value => { names.value = value; names.dispatchEvent(new Event("change")); };
            asked("lemonn");
            const busy = document.getElementById("answer").getAttribute("aria-busy");
            asked("lemon");
            setTimeout(() => done([busy, document.getElementById("best").textContent]), 3000);
            """
        )
        assert (first, second.partition(" (")[0]) == ("true", "lemon")
        assert driver.find_element(By.ID, "answer").get_attribute("aria-busy") == "false"
        ground = "return getComputedStyle(document.body).backgroundColor"
        light = driver.execute_script(ground)
        device(driver, 390, dark=True)
        assert driver.execute_script(ground) != light
        assert driver.execute_script("return document.documentElement.scrollWidth") == 390
        driver.get(f"{service.address}/docs")
        assert "/predict" in driver.find_element(By.TAG_NAME, "body").text
        assert driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []
    finally:
        driver.quit()


@pytest.mark.long
def test_the_teacher_answers_beside_the_model_where_it_is_at_hand(exported, trained, teacher_dir, service):
    photo = val_photos(trained)[0]
    raw = photo.read_bytes()
    assert service("/predict?teacher=true", raw)[0] == 422
    assert service("/predict", raw)[1]["teacher"] is None
    split = EmbeddingCache.open(trained / "cache").split("ood_test")
    row = split.embeddings[split.keys.index(str(photo.relative_to(trained / "photos" / "val")))]
    classes = Model.open(exported).class_set()
    cosines = classes.embeddings @ (row / np.linalg.norm(row))
    with serving(exported, "--teacher-model", f"local-dir:{teacher_dir}") as ask:
        assert ask("/labels")[1]["teacher"] is True
        told = ask("/predict?teacher=true&top=3", raw)[1]["teacher"]
    assert told["answer"] == classes.labels[cosines.argmax()]
    assert [one["similarity"] for one in told["labels"]] == pytest.approx(sorted(cosines)[:-4:-1], abs=1e-3)
    assert len(told["labels"]) == 3


def test_a_batch_that_fails_is_told_to_each_and_the_next_is_served():
    def embed(images: np.ndarray) -> np.ndarray:
        if images.max() > 8:
            raise MemoryError("too much")
        return images * 2

    async def ask() -> list[Any]:
        batcher = Batcher(embed, most=4)
        running = asyncio.create_task(batcher.run())
        asked = [batcher.embed(np.full(2, value, dtype=np.float32)) for value in (1, 9, 2)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        # Images of other sizes make no batch: that is told too.
        odd = [batcher.embed(np.zeros(size, dtype=np.float32)) for size in (2, 3)]
        answers += await asyncio.gather(*odd, return_exceptions=True)
        answers.append(await batcher.embed(np.full(2, 3, dtype=np.float32)))
        running.cancel()
        return answers

    *failed, after = asyncio.run(ask())
    assert [type(one) for one in failed] == [MemoryError] * 3 + [ValueError] * 2
    np.testing.assert_array_equal(after, [6, 6])
