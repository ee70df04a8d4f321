"""Captioners from elsewhere: no code of theirs is run, and nobody is asked for leave."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.foreign_code import Code

from cache.runtime.errors import UserError


def test_a_captioner_runs_no_code_of_its_folder_nor_any_kernel_of_the_hub(here, photos):
    pytest.importorskip("transformers")
    from helpers.tiny_captioners import save_blip

    from cache.prepare.caption import caption

    (folder := here / "captioner").mkdir()
    save_blip(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "own.py").write_text("open('marker', 'w').write('ran')\nclass Own: pass\n")
    own = {
        "auto_map": {"AutoConfig": "own.Own", "AutoModelForImageTextToText": "own.Own"},
        "model_type": "own",
    }
    kernel = {"text_config": {**config["text_config"], "_attn_implementation": "some/kernel"}}
    for odd, message in (
        (own, "cannot load the model"),
        (kernel, "_attn_implementation"),
        ({"quantization_config": {"quant_method": "x"}}, "quantization_config"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **odd}))
        with pytest.raises(UserError, match=message) as caught:
            caption(photos, model=str(folder))
        assert "trust_remote_code" not in str(caught.value)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Code()}, folder / "pytorch_model.bin")
    with pytest.raises(UserError) as caught:
        caption(photos, model=str(folder))
    assert "weights_only" not in str(caught.value)
    assert not (here / "marker").exists()


def test_a_part_of_a_captioner_that_brings_code_is_refused_and_nobody_is_asked(here, monkeypatch):
    pytest.importorskip("transformers")
    from helpers.tiny_captioners import save_vit_gpt2

    from cache.prepare.captioner import load_captioner

    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "y")
    (folder := here / "captioner").mkdir()
    save_vit_gpt2(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "own.py").write_text("open('marker', 'w').write('ran')\nclass Own: pass\n")
    config["decoder"] |= {"model_type": "vit", "auto_map": {"AutoModelForCausalLM": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="it holds more than numbers and names"):
        load_captioner(str(folder), torch.device("cpu"))
    assert not asked
    assert not (here / "marker").exists()
