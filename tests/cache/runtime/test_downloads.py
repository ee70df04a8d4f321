"""Weights that are fetched: how much, how fast, how long it takes yet; whole or not at all."""

from __future__ import annotations

import io
import shutil
import sys
from hashlib import sha256

import pytest
from conftest import ROOT
from helpers.hub_files import hub_of
from helpers.servers import serving

from cache.runtime import downloads
from cache.runtime.downloads import hub_file, url_file
from cache.teacher.weights import resolve

TEACHER = ROOT / "distill" / "demo" / "teacher"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch) -> Terminal:
    """Return what from now on shows what a terminal does, of files of any size."""
    monkeypatch.setattr(downloads, "LARGE", 0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The address of a hub with the repository me/tiny, which is the client's."""
    from huggingface_hub.utils import close_session

    shutil.copytree(TEACHER, tmp_path / "hub" / "me" / "tiny")
    with serving(hub_of(tmp_path / "hub")) as address:
        for name, value in {
            "ENDPOINT": address,
            "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "kept"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        close_session()  # the client of an earlier test may ask a proxy that is none
        yield address
        close_session()


def test_a_teacher_of_the_hub_is_fetched_with_its_size_and_rate_and_once(hub, monkeypatch):
    shown = terminal(monkeypatch)
    weights = resolve("hf-hub:me/tiny", None).weights
    assert weights.read_bytes() == (TEACHER / "open_clip_model.safetensors").read_bytes()
    told = shown.getvalue()
    assert "downloading open_clip_model.safetensors" in told
    assert f"of {weights.stat().st_size / 1e6:.1f} MB" in told
    assert "MB/s" in told
    shown.seek(0)
    shown.truncate()
    assert resolve("hf-hub:me/tiny", None).weights == weights
    assert "downloading" not in shown.getvalue()


def test_small_files_are_fetched_without_a_word(hub, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert hub_file("me/tiny", "open_clip_config.json").is_file()
    assert sys.stderr.getvalue() == ""


def test_weights_of_an_address_are_there_whole_or_not_at_all(hub, tmp_path, monkeypatch):
    shown = terminal(monkeypatch)
    whole = (TEACHER / "open_clip_model.safetensors").read_bytes()
    url, file = f"{hub}/me/tiny/open_clip_model.safetensors", tmp_path / "fetched" / "model.safetensors"
    with pytest.raises(OSError, match=r"ended after [\d,]+ of|IncompleteRead"):
        url_file(url.replace("open_clip_model", "cut.open_clip_model"), file)
    with pytest.raises(OSError, match="expected abcdef"):
        url_file(url, file, begins="abcdef")
    assert list(file.parent.iterdir()) == []
    assert url_file(url, file, begins=sha256(whole).hexdigest()[:8]).read_bytes() == whole
    assert f"{len(whole) / 1e6:.1f} MB of" in shown.getvalue()
    assert url_file("http://127.0.0.1:9/model.safetensors", file) == file  # which is there


def test_a_proxy_that_is_no_longer_set_is_no_longer_asked(hub, tmp_path, monkeypatch):
    url, file = f"{hub}/me/tiny/open_clip_config.json", tmp_path / "config.json"
    with monkeypatch.context() as earlier:
        earlier.setenv("http_proxy", "http://127.0.0.1:9")  # where nobody listens
        with pytest.raises(OSError, match="refused"):
            url_file(url, file)
    assert url_file(url, file).is_file()
