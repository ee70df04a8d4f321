"""Teachers of timm: what they give is what timm's own network gives, and what does not fit is one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.teachers import on_the_hub
from PIL import Image
from safetensors.torch import save_file

from cache.runtime.errors import UserError
from cache.runtime.torchvision_compat import torchvision  # noqa: F401
from cache.teacher.load import load_teacher

import timm  # isort: skip

VIT = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 2}
RESNET = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}


def picture(width=60, height=40):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(folder, name, args, *, num_classes=5, **cfg):
    """A small random network of timm's in a folder, as timm's own tools write one."""
    torch.manual_seed(0)
    told = {"input_size": (3, 32, 32), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), **cfg}
    network = timm.create_model(name, num_classes=num_classes, pretrained_cfg_overlay=told, **args).eval()
    timm.models.save_for_hf(network, folder, model_args=args, safe_serialization=True)
    return network


@pytest.mark.parametrize(
    ("name", "args", "cfg"),
    [
        ("vit_tiny_patch16_224", VIT, {"crop_pct": 0.9, "interpolation": "bicubic"}),
        ("vit_tiny_patch16_224", VIT, {"crop_pct": 1.0, "crop_mode": "squash"}),
        ("resnet18", RESNET, {"crop_pct": 0.8, "crop_mode": "border", "interpolation": "bilinear"}),
    ],
)
def test_a_folder_of_timm_gives_what_timm_gives(tmp_path, name, args, cfg):
    network = saved(tmp_path / "net", name, args, **cfg)
    teacher = load_teacher(f"local-dir:{tmp_path / 'net'}")
    own = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True, num_classes=0).eval()
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(own))
    batch = torch.stack([prepare(picture()), prepare(picture(40, 70))])
    with torch.inference_mode():
        expected = own(batch)
        assert torch.allclose(
            network.forward_head(network.forward_features(batch), pre_logits=True), expected
        )
    ours = torch.stack([teacher.transform(picture()), teacher.transform(picture(40, 70))])
    torch.testing.assert_close(ours, batch, rtol=0, atol=0)
    torch.testing.assert_close(teacher.embed_images(ours), expected, rtol=1e-5, atol=1e-5)
    assert (teacher.reads_texts, teacher.spec.tokenizer) == (False, "")
    assert teacher.embed_dim == expected.shape[1]
    with pytest.raises(UserError, match="reads no texts"):
        teacher.embed_texts(["a photo"])


def test_a_name_of_timm_takes_a_file_or_says_which_weights_there_are(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=0).eval()
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    torch.save({"model": network.state_dict()}, tmp_path / "net.pth")
    one, other = (
        load_teacher("timm:test_vit", pretrained=str(tmp_path / name))
        for name in ("net.safetensors", "net.pth")
    )
    images = torch.randn(2, 3, *one.spec.image_size)
    with torch.inference_mode():
        expected = network(images)
    for teacher in (one, other):
        torch.testing.assert_close(teacher.embed_images(images), expected, rtol=1e-5, atol=1e-5)
    assert one.spec.architecture == other.spec.architecture
    _, regions = one.embed_regions(images)
    assert regions.shape == (2, 49, one.embed_dim)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for model, pretrained, message in (
        (
            "timm:test_vit",
            None,
            "needs weights. Fix: give --pretrained with a checkpoint file or one of r160",
        ),
        ("timm:test_vot", None, "timm has no model called 'test_vot'. Fix: did you mean 'timm:test_vit'"),
        ("timm:test_vit", "r16", "has no weights called 'r16'. Fix: did you mean 'r160"),
        ("timm:test_vit", "r160_in1k", "could not be fetched"),
        ("timm:resnet18", str(tmp_path / "net.pth"), "do not fit timm:resnet18"),
    ):
        with pytest.raises(UserError, match=message) as error:
            load_teacher(model, pretrained=pretrained)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "hf-hub:any/thing"}, "is no model of timm"),
        ({"architecture": "vit_huge_patch14_224", "model_args": {}}, "asks for .* numbers"),
        (
            {"model_args": {**VIT, "checkpoint_path": "x.pth"}},
            "checkpoint_path of 'x.pth', which is not taken",
        ),
        ({"model_args": {**VIT, "depth": 10**9}}, "has a depth of 1000000000"),
        ({"model_args": {**VIT, "depth": 2}}, "do not fit"),
        ({"model_args": {**VIT, "nonsense": 2}}, "do not fit"),
        ({"pretrained_cfg": {"input_size": [3, 9**9, 32]}}, "config has a input_size"),
        ({"pretrained_cfg": {"mean": "x"}}, "config has a mean"),
        ({"pretrained_cfg": {"crop_pct": 1e-9}}, "config has a crop_pct"),
        ({"pretrained_cfg": 3}, "is no config of a model of timm's"),
    ],
)
def test_a_config_that_asks_for_what_none_may_is_refused(tmp_path, change, message):
    saved(tmp_path / "net", "vit_tiny_patch16_224", VIT)
    config = tmp_path / "net" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(UserError, match=message) as error:
        load_teacher(f"local-dir:{tmp_path / 'net'}")
    assert "\n" not in str(error.value)


class Payload:
    def __reduce__(self):
        return exec, ("raise SystemExit('it was run')",)


def test_nothing_in_a_folder_is_run_and_a_repository_is_held_to_the_same(tmp_path, monkeypatch):
    network = saved(tmp_path / "net", "vit_tiny_patch16_224", VIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    good = load_teacher(on_the_hub(tmp_path / "hub", tmp_path / "net", "good")).spec
    assert good.identity() == load_teacher(f"local-dir:{tmp_path / 'net'}").spec.identity()
    flipped = tmp_path / "hub" / "models--some--good" / "blobs" / good.weights_sha256
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="differ from their checksum"):
        load_teacher("hf-hub:some/good")
    with pytest.raises(UserError, match="could not be fetched"):
        load_teacher("hf-hub:some/other")
    (tmp_path / "net" / "model.safetensors").unlink()
    torch.save({**network.state_dict(), "code": Payload()}, tmp_path / "net" / "pytorch_model.bin")
    with pytest.raises(UserError, match="do not fit"):
        load_teacher(f"local-dir:{tmp_path / 'net'}")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "net" / "pytorch_model.bin"))
    with pytest.raises(UserError, match="TorchScript archive, which is a program"):
        load_teacher(f"local-dir:{tmp_path / 'net'}")


def test_weights_that_lack_one_or_have_one_more_are_refused(tmp_path):
    network = saved(tmp_path / "net", "vit_tiny_patch16_224", VIT)
    state = network.state_dict()
    file = tmp_path / "net" / "model.safetensors"
    for other in (
        {name: value for name, value in state.items() if name != "norm.weight"},
        {**state, "more": torch.ones(2)},
    ):
        save_file(other, file)
        with pytest.raises(UserError, match="do not fit"):
            load_teacher(f"local-dir:{tmp_path / 'net'}")
    file.unlink()
    with pytest.raises(UserError, match=r"has no weights file \(model.safetensors"):
        load_teacher(f"local-dir:{tmp_path / 'net'}")
