"""A model that is sent to the hub, which here is a server on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from helpers.hub_server import READER, TOKEN
from huggingface_hub import close_session

from cache.runtime.errors import UserError, WrongOption
from distill.deploy.push import check_push, push


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The address of a hub that is the client's, and the folder where it keeps what it is sent."""
    code = [sys.executable, str(ROOT / "tests" / "helpers" / "hub_server.py"), str(tmp_path / "hub")]
    server = subprocess.Popen(code, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        address = f"http://127.0.0.1:{int(server.stdout.readline())}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        close_session()  # the client of an earlier test may ask a proxy that is none
        yield address, tmp_path / "hub"
    finally:
        close_session()
        server.kill()
        server.communicate()


def sent_whole(model: Path, kept: Path) -> bool:
    files = [path.relative_to(model) for path in model.rglob("*") if path.is_file()]
    return bool(files) and all((kept / file).read_bytes() == (model / file).read_bytes() for file in files)


def test_a_pushed_model_is_on_the_hub_file_for_file_and_private(plain, hub):
    address, kept = hub
    check_push("me/my-birds")
    assert push(plain, "me/my-birds") == f"{address}/me/my-birds"
    made = json.loads((kept / ".made").read_text())
    assert (made["organization"], made["name"]) == ("me", "my-birds")
    assert made.get("private") or made.get("visibility") == "private"
    assert sent_whole(plain, kept)


def test_what_the_hub_refuses_is_one_line_that_says_what_to_do(plain, hub, monkeypatch):
    with pytest.raises(WrongOption, match="--push is 'no slash'"):
        check_push("no slash")
    for token, problem in ((None, "there is no token"), ("hf_nobody", "the hub refuses the token")):
        monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
        with pytest.raises(UserError, match=problem):
            check_push("me/a")
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(
        UserError, match=f"does not let this token write me/a; {plain} is whole: 'hf upload me/a"
    ):
        push(plain, "me/a")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="the hub cannot be reached"):
        check_push("me/a")


@pytest.mark.long
def test_export_asks_the_hub_before_it_works_and_sends_what_it_wrote(trained, hub, tmp_path):
    address, kept = hub
    # A process of its own: the hub's client reads its address when it is first imported.
    own = {
        "HF_ENDPOINT": address,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "home"),
    }
    words = ["export", trained / "run", "--formats", "safetensors,timm", "--push", "me/my-birds"]
    for token, code, said in (("hf_nobody", 1, "the hub refuses the token"), (TOKEN, 0, "pushed to")):
        assert not (tmp_path / "model").exists()
        done = subprocess.run(
            [sys.executable, "-P", "-m", "cli", *map(str, words), "--out", str(tmp_path / "model")],
            capture_output=True,
            text=True,
            env={**os.environ, **own, "PYTHONPATH": str(ROOT), "HF_TOKEN": token},
        )
        assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr
    assert sent_whole(tmp_path / "model", kept)
