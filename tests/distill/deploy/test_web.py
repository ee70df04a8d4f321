"""A model as a page: what cannot be one, where onnxruntime-web comes from, and what a browser makes of it."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.browsers import asked_for, chromium, device
from helpers.exported import invoke, val_photos
from PIL import Image

from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import UserError
from distill.deploy.class_sets import unit
from distill.deploy.info import ModelInfo
from distill.deploy.model import Model
from distill.deploy.vocabulary import ROWS, WORDS, Vocabulary
from distill.deploy.web import precision_for_web, write_web
from distill.deploy.web_runtime import GLUE, SHA256, VERSION, WASM, kept_in, runtime_for_web
from distill.judge.rejection import NEGLABEL, Threshold

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"

NEGLABEL_THRESHOLDS = (Threshold(names=1, least=-12.4), Threshold(names=5, least=-11.0))


def with_words(model: Path, out: Path, words: tuple[str, ...]) -> Path:
    """A copy of a model that has a vocabulary, and rejects by it."""
    shutil.copytree(model, out)
    info = ModelInfo.load(out)
    rows = unit(np.random.default_rng(0).normal(size=(len(words), info.embed_dim)))
    Vocabulary(words=words, rows=rows).save(out)
    files = {**info.files, **{name: sha256_of(out / name) for name in (WORDS, ROWS)}}
    reject = {
        name: replace(one, score=NEGLABEL, temperature=0.05, thresholds=NEGLABEL_THRESHOLDS)
        for name, one in info.reject.items()
    }
    replace(info, files=files, reject=reject).save(out)
    return out


# Wrong input
@pytest.fixture
def no_npm(tmp_path, monkeypatch):
    """A user whose cache is empty, on a machine without npm."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def npm_that(folder: Path, does: str) -> None:
    (folder / "npm").write_text(f"#!/bin/sh\n{does}\n")
    (folder / "npm").chmod(0o755)


def test_a_page_without_npm_and_without_a_runtime_says_how_to_give_one(no_npm, plain, tmp_path):
    done = invoke("export", plain, "--web", tmp_path / "page")
    assert done.exit_code == 1
    assert f"a page needs onnxruntime-web@{VERSION}, and npm is not installed to fetch it" in done.output
    assert "give --runtime" in done.output
    assert not (tmp_path / "page").exists()


def test_what_npm_says_is_told_in_one_line(no_npm):
    npm_that(no_npm, "echo 'npm error code E404\nnpm error 404 Not Found - no such package' >&2; exit 1")
    with pytest.raises(UserError, match=r"could not fetch .* \(404 Not Found - no such package\)") as told:
        runtime_for_web()
    assert "\n" not in str(told.value)


def test_files_that_are_not_the_pinned_ones_are_refused_and_not_kept(no_npm, tmp_path):
    package = tmp_path / "package"
    (package / "dist").mkdir(parents=True)
    for name in SHA256:
        (package / "dist" / name).write_text("other")
    with pytest.raises(UserError, match=f"is not onnxruntime-web@{VERSION}: its .* has another checksum"):
        runtime_for_web(package)
    (package / "package.json").write_text(json.dumps({"version": "1.2.3"}))
    with pytest.raises(UserError, match=rf"is onnxruntime-web 1\.2\.3, and pages are made with {VERSION}"):
        runtime_for_web(package)
    with tarfile.open(tmp_path / "odd.tgz", "w:gz") as tar:
        tar.add(package, "package")
    npm_that(no_npm, f"/bin/cp {tmp_path}/odd.tgz $5/")
    for given in (None, tmp_path / "odd.tgz"):
        with pytest.raises(UserError, match=r"onnxruntime-web 1\.2\.3"):
            runtime_for_web(given)
    assert not kept_in().exists()
    (package / "dist" / WASM).unlink()
    with pytest.raises(UserError, match=f"it has no {WASM}"):
        runtime_for_web(package)
    with pytest.raises(UserError, match="cannot be read as onnxruntime-web"):
        runtime_for_web(package / "dist" / GLUE)


def test_a_page_is_refused_before_a_run_is_exported(no_npm, trained, exported, tmp_path):
    run, page = trained / "run", tmp_path / "page"
    page.mkdir()
    (page / "mine").write_text("mine")
    for words, said in (
        (["--out", tmp_path / "m", "--web", page], "page exists and is not empty"),
        (["--out", tmp_path / "m", "--web", tmp_path / "m"], "--web and --out are both"),
        (
            ["--out", tmp_path / "m", "--web", tmp_path / "p", "--preprocessing", "graph"],
            "--preprocessing outside alone",
        ),
        (["--out", tmp_path / "m", "--runtime", page], "--runtime is of --web"),
        (["--web", tmp_path / "p"], "Missing option '--out'"),
    ):
        done = invoke("export", run, *words)
        assert (done.exit_code, said in done.output) in ((1, True), (2, True)), done.output
    assert "is exported already" in invoke("export", exported, "--web", page, "--license", "mit").output
    assert "prepares photos in its graph" in invoke("export", exported, "--web", tmp_path / "p").output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "page"]


def test_a_page_takes_the_smallest_graph_that_answers_as_the_student_does(exported):
    info = ModelInfo.load(exported)
    assert precision_for_web(replace(info, unlike={})) == "int8"
    assert precision_for_web(replace(info, unlike={"int8": 0.9})) == "float16"
    assert precision_for_web(replace(info, unlike=dict.fromkeys(("int8", "float16", "float32"), 0.9))) is None


# In a browser
@pytest.fixture(scope="module")
def runtime():
    try:
        runtime_for_web()
    except UserError as error:
        pytest.skip(f"no onnxruntime-web: {error.problem}")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as chrome:
        yield chrome


@pytest.fixture(scope="module")
def named(plain, tmp_path_factory):
    """A model with a vocabulary, one of its words hostile."""
    words = ("zebra", "granny smith", "bell pepper, red", HOSTILE, *(f"word {i}" for i in range(200)))
    return with_words(plain, tmp_path_factory.mktemp("named") / HOSTILE[:8].replace("<", "_"), words)


@pytest.fixture(scope="module")
def page(runtime, named, tmp_path_factory):
    out = tmp_path_factory.mktemp("web") / "page"
    write_web(named, out)
    return out


def started(browser, address):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(address)
    WebDriverWait(browser, 60).until(lambda b: "loading" not in b.find_element("id", "state").text)
    assert browser.find_element("id", "state").text == "Give it a picture."


def give(browser, path):
    """Give the page a picture, and return its embedding; None where it could not be read."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.execute_script("state.embedding = state.times = null; tell('')")
    browser.find_element("id", "file").send_keys(str(path))
    done = "return state.times !== null || at('state').classList.contains('failed')"
    WebDriverWait(browser, 60).until(lambda b: b.execute_script(done))
    found = browser.execute_script("return state.embedding && Array.from(state.embedding)")
    return None if found is None else np.array(found)


def ask(browser, names):
    browser.execute_script("at('names').value = arguments[0]; answer()", names)


def shown(browser):
    """The names and percentages of the page's answers."""
    rows = browser.find_elements("css selector", "#scores li")
    return [tuple(span.text for span in row.find_elements("tag name", "span")) for row in rows]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, trained):
    """Files of several formats, sizes and kinds."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    photo = coarse.resize((640, 480), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[0x0112] = 6
    photo.save(folder / "photo.png")
    photo.save(folder / "photo.jpg", quality=90)
    photo.save(folder / "turned.jpg", quality=90, exif=turned)
    photo.save(folder / "photo.webp", lossless=True)
    photo.convert("L").save(folder / "grey.jpg")
    photo.convert("P").save(folder / "palette.png")
    photo.resize((3000, 2000)).save(folder / "large.jpg")
    photo.resize((20, 300)).save(folder / "thin.png")
    return [*sorted(folder.iterdir()), val_photos(trained)[0]]


@pytest.mark.long
def test_a_page_from_a_disk_embeds_as_python_does_and_asks_nothing_of_any_place(
    browser, page, named, pictures
):
    asked_for(browser)
    started(browser, (page / "index.html").as_uri())
    model = Model.open(named)
    for path in pictures:
        wanted = model.embed(model.prepare_file(path.read_bytes())[None])[0]
        np.testing.assert_allclose(give(browser, path), wanted, atol=1e-3, err_msg=path.name)
    here = f"{page.as_uri()}/"
    assert {
        address for address in asked_for(browser) if not address.startswith((here, "blob:", "data:"))
    } == set()
    assert browser.get_log("browser") == []


@pytest.mark.long
def test_a_page_answers_as_the_model_does(browser, page, named, pictures):
    model = Model.open(named)
    started(browser, (page / "index.html").as_uri())
    embedding = give(browser, pictures[0]).astype(np.float32)
    classes = model.class_set()
    (wanted,) = model.answer(embedding[None], classes)
    assert [name for name, _ in shown(browser)] == [one.label for one in wanted.labels]
    for (_, percent), one in zip(shown(browser), wanted.labels, strict=True):
        assert percent == ("< 1%" if one.score < 0.005 else f"{100 * one.score:.0f}%")
    words = [span.text for span in browser.find_elements("css selector", "#words span")]
    places = np.argsort(-(model.vocabulary.rows @ embedding))[:5]
    assert words == [model.vocabulary.words[i] for i in places]
    assert "ms on this device" in browser.find_element("id", "time").text
    # Names of a bank and of the vocabulary; near ones for one that is not there.
    ask(browser, f'{classes.labels[0]}, "bell pepper, red"\nGRANNY  smith')
    assert {name for name, _ in shown(browser)} == {classes.labels[0], "bell pepper, red", "granny smith"}
    ask(browser, "zebraa, granny smith")
    assert "“zebraa” is not known. Did you mean" in browser.find_element("id", "wrong").text
    assert not browser.find_element("id", "found").is_displayed()
    browser.find_element("css selector", "#wrong button").click()
    assert {name for name, _ in shown(browser)} == {"zebra", "granny smith"}
    ask(browser, "zebra, Zebra")
    assert "is there twice" in browser.find_element("id", "wrong").text


@pytest.mark.long
def test_none_of_these_is_said_where_the_model_says_it(browser, page, named, pictures):
    model = Model.open(named)
    assert model.info.reject["float32"].score == "neglabel"
    started(browser, (page / "index.html").as_uri())
    said = set()
    for path in pictures:
        embedding = give(browser, path).astype(np.float32)
        for names in ((), ("zebra", "word 3"), ("word 7",)):
            classes = model.class_set(names=names)
            browser.execute_script("at('reject').checked = true")
            ask(browser, ", ".join(names))
            none = browser.find_element("id", "best").text == "none of these"
            assert none == bool(model.none_of(embedding[None], classes)[0]), (path.name, names)
            said.add(none)
    assert said == {True, False}
    browser.execute_script("at('reject').checked = false; answer()")
    assert browser.find_element("id", "best").text != "none of these"


@pytest.mark.long
def test_what_is_no_picture_is_said_and_the_next_one_is_answered(browser, page, pictures, tmp_path):
    started(browser, (page / "index.html").as_uri())
    (tmp_path / "text.png").write_text("no picture")
    assert give(browser, tmp_path / "text.png") is None
    assert browser.find_element("id", "state").text == "text.png is no picture that this browser can read"
    assert give(browser, pictures[0]) is not None
    assert browser.find_element("id", "best").is_displayed()


@pytest.mark.long
def test_names_are_shown_as_text_whatever_they_hold(browser, page, pictures):
    started(browser, (page / "index.html").as_uri())
    give(browser, pictures[0])
    quoted = HOSTILE.replace('"', '""')
    ask(browser, f'zebra, "{quoted}"')
    assert HOSTILE in {name for name, _ in shown(browser)}
    ask(browser, f'"{quoted}?"')
    assert HOSTILE in browser.find_element("id", "wrong").text
    assert (browser.title, len(browser.find_elements("css selector", "img"))) == ("What is this?", 1)


@pytest.mark.long
def test_a_page_fits_a_phone_and_is_dark_where_the_system_is(browser, page, pictures):
    started(browser, (page / "index.html").as_uri())
    give(browser, pictures[0])
    for dark in (False, True):
        device(browser, 390, dark=dark)
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
    device(browser, 1280)


@pytest.mark.long
def test_a_page_of_a_run_in_8_bits_is_served_by_any_static_host(
    browser, runtime, trained, pictures, tmp_path
):
    model, page = tmp_path / "model", tmp_path / "page"
    done = invoke("export", trained / "run", "--out", model, "--precisions", "int8", "--web", page, "--json")
    assert json.loads(done.stdout)["web"]["precision"] == "int8"
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=page)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        asked_for(browser)
        started(browser, address)
        opened = Model.open(model, threads=1)
        for path in pictures:
            wanted = opened.embed(opened.prepare_file(path.read_bytes())[None])[0]
            np.testing.assert_allclose(give(browser, path), wanted, atol=1e-3, err_msg=path.name)
        asked = [one for one in asked_for(browser) if not one.startswith(("blob:", "data:"))]
        server.shutdown()
    assert sorted(asked) == sorted([address, *(f"{address}{path.name}" for path in page.glob("*.[jc]s*"))])
