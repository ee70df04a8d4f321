from __future__ import annotations

import os

from distill.api.traces import without_a_trace


def test_what_a_call_sets_in_the_environment_is_undone(monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    before = dict(os.environ)
    with without_a_trace():
        assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "2"
    assert dict(os.environ) == before
