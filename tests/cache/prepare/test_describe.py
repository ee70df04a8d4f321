"""Descriptions asked of a real server process, which answers, fails and dies as it is told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from cache.prepare.describe import DEFAULT_PROMPT, DescribeSummary, describe
from cache.runtime.errors import UserError
from cache.sources.class_texts import class_names_of, read_descriptions

pytest.importorskip("openai")

# label2text's order, which is not the folders'.
ORDER = ("plum", "apple", "lemon", "cherry", "banana")
SERVER = Path(__file__).parents[2] / "helpers" / "openai_server.py"


@dataclass(frozen=True, kw_only=True)
class Server:
    port: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def count(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/count", timeout=600) as reply:
            return json.load(reply)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """A function (arguments) that starts a server."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> Server:
        process = subprocess.Popen([sys.executable, str(SERVER), *arguments], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        return Server(port=int(process.stdout.readline()))

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def data(photos: Path) -> Path:
    (photos / "chatgpt.txt").unlink()
    (photos / "label2text.txt").write_text("".join(f"{n} {i} ripe_{n}\n" for i, n in enumerate(ORDER)))
    return photos


def ask(data: Path, server: Server, **settings: Any) -> DescribeSummary:
    return describe(data, **{"base_url": server.base_url, "model": "tiny", "prompt": "of {}", **settings})


def expected(data: Path) -> dict[str, str]:
    return {name: f"It is what of ripe {name} is." for name in ORDER}


def read(data: Path) -> dict[str, str]:
    names = class_names_of(data / "label2text.txt", sorted(ORDER))
    descriptions = read_descriptions(data / "chatgpt.txt", names)
    assert not descriptions.by_position
    return dict(descriptions.of_class)


def test_descriptions_come_in_label2text_order(data: Path, serve: Callable[..., Server]):
    server = serve("--slow", "0.3", "--slow-for", ORDER[0])
    summary = ask(data, server)
    assert list(read(data).items()) == list(expected(data).items())
    assert (summary.classes, summary.asked, summary.reused) == (5, 5, 0)
    assert summary.out == data / "chatgpt.txt"
    assert sorted(path.name for path in data.iterdir() if path.is_file()) == ["chatgpt.txt", "label2text.txt"]


def test_folders_name_the_classes_where_there_is_no_label2text(data: Path, serve: Callable[..., Server]):
    (data / "label2text.txt").unlink()
    ask(data, serve())
    assert (data / "chatgpt.txt").read_text().splitlines()[0] == "apple\tIt is what of apple is."


@pytest.mark.parametrize("answer", ["newlines", "thinking"])
def test_an_answer_becomes_one_line(data: Path, serve: Callable[..., Server], answer: str):
    ask(data, serve("--answer", answer))
    assert read(data) == expected(data)


def test_resume_does_not_ask_again(data: Path, serve: Callable[..., Server]):
    with pytest.raises(UserError, match=r"gave no answer.*is kept"):
        ask(data, serve("--die-after", "3"), workers=1, max_retries=0)
    partial = data / "chatgpt.txt.partial.jsonl"
    assert not (data / "chatgpt.txt").exists()
    assert [json.loads(line)["folder"] for line in partial.read_text().splitlines()] == list(ORDER[:3])
    # What a kill in the middle of a line would leave: two rows, and half of the third.
    partial.write_bytes(partial.read_bytes()[:-9])
    server = serve()
    summary = ask(data, server)
    assert (summary.asked, summary.reused) == (3, 2)
    assert server.count()["requests"] == 3
    assert read(data) == expected(data)
    assert not partial.exists()


@pytest.mark.parametrize("change", [{"prompt": "about {}"}, {"model": "other"}])
def test_another_prompt_or_model_asks_again(data: Path, serve: Callable[..., Server], change: dict[str, str]):
    with pytest.raises(UserError):
        ask(data, serve("--die-after", "3"), workers=1, max_retries=0)
    server = serve("--model", change.get("model", "tiny"))
    assert ask(data, server, **change).reused == 0
    assert server.count()["requests"] == 5


@pytest.mark.parametrize("status", ["429", "500", "503"])
def test_a_busy_server_is_asked_again(data: Path, serve: Callable[..., Server], status: str):
    server = serve("--fail-first", "3", "--fail-status", status)
    ask(data, server, workers=2)
    assert read(data) == expected(data)
    assert server.count()["requests"] == 8


def test_a_server_that_stays_busy(data: Path, serve: Callable[..., Server]):
    server = serve("--fail-first", "99")
    with pytest.raises(UserError, match=r"status 429, come back later.*fewer --workers"):
        ask(data, server, workers=1, max_retries=2)
    assert server.count()["requests"] == 3


def test_an_unknown_model(data: Path, serve: Callable[..., Server]):
    server = serve()
    with pytest.raises(UserError, match=r"status 404, The model `huge` does not exist.*--model") as caught:
        ask(data, server, model="huge", workers=1)
    assert server.base_url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert server.count()["requests"] == 1


def test_the_key_comes_from_the_environment(
    data: Path, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
):
    server = serve("--key", "secret")
    with pytest.raises(UserError, match=r"status 401, Incorrect API key.*OPENAI_API_KEY"):
        ask(data, server)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    ask(data, server)
    assert read(data) == expected(data)


def test_no_key_and_no_server(data: Path):
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        describe(data, model="tiny")


def test_a_server_may_come_from_the_environment(
    data: Path, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_BASE_URL", serve().base_url)
    assert describe(data, model="tiny").asked == 5


def test_an_address_that_is_none(data: Path, serve: Callable[..., Server]):
    with pytest.raises(UserError, match="is not an address"):
        describe(data, base_url="localhost:8000/v1", model="tiny")
    root = serve().base_url.removesuffix("/v1")
    with pytest.raises(UserError, match=r"something else than a chat completion.*/v1"):
        describe(data, base_url=root, model="tiny")


@pytest.mark.parametrize("answer", ["empty", "none"])
def test_a_class_with_empty_answers_is_asked_again_and_named(
    data: Path, serve: Callable[..., Server], answer: str
):
    server = serve("--answer", answer)
    with pytest.raises(
        UserError, match=r"5 of 5 classes have no description from tiny: 'plum' \(an empty answer"
    ):
        ask(data, server, workers=1)
    assert server.count()["requests"] == 15
    assert not (data / "chatgpt.txt").exists()


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ("empty", "an empty answer"),
        ("cut", "an answer that was cut short"),
        ("filtered", "an answer that the server filtered"),
        ("refused", "a refusal: 'I will not.'"),
        ("sorry", "a refusal: 'I\u2019m sorry, but"),
    ],
)
def test_an_answer_that_is_no_description_is_named_and_the_others_are_kept(
    data: Path, serve: Callable[..., Server], odd: str, reason: str
):
    with pytest.raises(UserError, match=r"1 of 5 classes .*the same command again") as caught:
        ask(data, serve("--odd", odd, "--odd-for", "cherry"))
    assert f"'cherry' ({reason}" in str(caught.value)
    assert not (data / "chatgpt.txt").exists()
    again = ask(data, serve())
    assert (again.asked, again.reused) == (1, 4)
    assert read(data) == expected(data)


def test_what_is_said_of_several_classes_describes_none_of_them(data: Path, serve: Callable[..., Server]):
    with pytest.raises(UserError, match=r"2 of 5 classes .*the same as") as caught:
        ask(data, serve("--odd", "same", "--odd-for", "pl"))
    assert all(f"'{name}' (the same" in str(caught.value) for name in ("plum", "apple"))
    again = ask(data, serve())
    assert (again.asked, again.reused) == (2, 3)
    assert read(data) == expected(data)


def test_a_model_that_refuses_everything_is_not_asked_for_ever(data: Path, serve: Callable[..., Server]):
    names = [*ORDER, *(f"class_{i}" for i in range(20))]
    (data / "label2text.txt").write_text("".join(f"{n} {i} {n}\n" for i, n in enumerate(names)))
    server = serve("--answer", "sorry")
    with pytest.raises(UserError, match="25 of 25 classes have no description"):
        ask(data, server, workers=1)
    assert server.count()["requests"] <= 33  # ten classes three times, and one that was under way


@pytest.mark.parametrize("name", ["a\tb", "a\nb", " a", "a\u2028b"])
def test_a_folder_that_cannot_stand_in_the_file_is_said_before_anything_is_asked(data: Path, name: str):
    (data / "train" / "apple").rename(data / "train" / name)
    (data / "label2text.txt").unlink()
    with pytest.raises(UserError, match=r"cannot stand in a line"):
        describe(data, model="tiny", base_url="http://127.0.0.1:9/v1")


def test_existing_descriptions_are_not_overwritten(data: Path, serve: Callable[..., Server]):
    (data / "chatgpt.txt").write_text("by hand\n")
    server = serve()
    with pytest.raises(UserError, match=r"exists already.*--out"):
        ask(data, server)
    assert (data / "chatgpt.txt").read_text() == "by hand\n"
    assert ask(data, server, out=data / "new" / "words.txt").out.is_file()


@pytest.mark.parametrize("prompt", ["a fruit", "{} and {}"])
def test_a_prompt_names_the_class_once(data: Path, prompt: str):
    with pytest.raises(UserError, match=r"no single \{\}"):
        describe(data, model="tiny", prompt=prompt)


def test_no_workers(data: Path):
    with pytest.raises(UserError, match="--workers is 0"):
        describe(data, model="tiny", workers=0)


def test_ctrl_c_ends_at_once_and_keeps_what_is_done(data: Path, serve: Callable[..., Server]):
    server = serve("--slow-for", "cherry", "--slow", "900")
    code = (
        "import sys; from pathlib import Path; from cache.prepare.describe import describe; "
        "describe(Path(sys.argv[1]), base_url=sys.argv[2], model='tiny', prompt='of {}', workers=1)"
    )
    command = [sys.executable, "-c", code, str(data), server.base_url]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=ROOT)
    while server.count()["requests"] < 4:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=600)[1]
    assert ask(data, serve()).reused == 3
    assert read(data) == expected(data)


def test_the_default_prompt_takes_any_name():
    assert "a {curly} name" in DEFAULT_PROMPT.replace("{}", "a {curly} name")


def test_without_the_package(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r'pip install "\.\[describe\]"'):
        describe(data, model="tiny")
