"""First weights: where a student starts, found in any file by what fits it."""

from __future__ import annotations

import argparse

import pytest
import timm
import torch
from safetensors.torch import save_file

from cache.runtime.errors import UserError
from distill.config import StudentConfig
from distill.data.normalisation import IMAGENET, Normalisation
from distill.student.build import Origin, build_student, check_eval_size, input_of, made_of
from distill.student.first_weights import FirstWeights

ARCH = "timm:test_resnet"
HALF = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def student(start="scratch", arch=ARCH, **more):
    return build_student(arch, embed_dim=8, image_size=32, start=str(start), **more)


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(1)
    return timm.create_model("test_resnet", num_classes=5).state_dict()


def has(one, state):
    own = one.state_dict()
    return all(torch.equal(own[key], state[key]) for key in own if own[key].shape == state[key].shape)


@pytest.mark.parametrize(
    "prefix",
    ["", "model.", "backbone.", "module.", "_orig_mod.", "student.", "encoder.", "module.net.trunk."],
)
def test_any_common_prefix_is_taken_off_by_what_fits_the_student(tmp_path, weights, prefix):
    path = tmp_path / "w.safetensors"
    others = {"queue": torch.zeros(3), "projector.weight": torch.zeros(2, 2)} if prefix else {}
    save_file({f"{prefix}{key}": value.clone() for key, value in weights.items()} | others, path)
    one = student(path)
    assert has(one, weights)
    assert made_of(one).start == f"{path}{', 2 tensors of other parts left out' if prefix else ''}"
    assert len(made_of(one).sha256) == 64


@pytest.mark.parametrize("averaged", ["model_ema", "ema", "state_dict_ema"])
def test_averaged_weights_are_taken_before_raw_ones(tmp_path, weights, averaged):
    raw = {key: torch.zeros_like(value) for key, value in weights.items()}
    state = {"model": raw, averaged: {f"module.{key}": value for key, value in weights.items()}}
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}}
    torch.save(
        {**state, "epoch": 3, "optimizer": optimizer, "args": argparse.Namespace(lr=1)}, tmp_path / "w.pt"
    )
    assert has(student(tmp_path / "w.pt"), weights)


def test_of_several_networks_in_a_file_the_students_own_is_taken(tmp_path, weights):
    other = timm.create_model("test_vit", num_classes=5).state_dict()
    torch.save({"teacher": other, "pupil": weights}, tmp_path / "w.pt")
    assert has(student(tmp_path / "w.pt"), weights)


def test_a_vision_transformer_of_timms_takes_weights_of_another_size(tmp_path):
    source = timm.create_model("test_vit", img_size=64, num_classes=5)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    one = build_student("timm:test_vit", embed_dim=8, image_size=96, start=str(tmp_path / "w.pt"))
    assert one.pos_embed.shape[1] == 37
    assert torch.equal(one.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize(("arch", "start"), [(ARCH, "none.pt"), ("timm:test_vit", "w.pt"), (ARCH, "text.pt")])
def test_weights_that_cannot_be_had_are_one_line_that_names_what_can_be_done(tmp_path, weights, arch, start):
    torch.save(weights, tmp_path / "w.pt")
    torch.save({"words": "none"}, tmp_path / "text.pt")
    with pytest.raises(UserError, match=r"--start FILE, or --start scratch") as error:
        build_student(arch, embed_dim=8, image_size=96, start=str(tmp_path / start))
    assert "\n" not in str(error.value)


def test_pretrained_weights_that_nobody_publishes_or_that_are_out_of_reach_are_one_line(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for arch in ("timm:resnet10t", "timm:test_byobnet"):
        with pytest.raises(UserError, match=r"cannot be had.*--start FILE, or --start scratch") as error:
            student("pretrained", arch)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"hf-hub:timm/none cannot be read from the Hugging Face hub"):
        student(arch="hf-hub:timm/none")


def test_a_model_of_the_hub_is_opened_again_without_it(tmp_path, monkeypatch, weights):
    # As huggingface_hub keeps what it has fetched once.
    snapshot = tmp_path / "models--org--mine" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    refs = tmp_path / "models--org--mine" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0")
    (snapshot / "config.json").write_text(
        '{"architecture": "test_resnet", "num_classes": 5, "model_args": {"drop_path_rate": 0.25},'
        ' "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "num_classes": 5, "input_size": [3, 32, 32],'
        ' "classifier": "fc", "first_conv": "conv1.0"}}'
    )
    save_file({key: value.clone() for key, value in weights.items()}, snapshot / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    one = student("pretrained", "hf-hub:org/mine")
    assert has(one, weights)
    made = made_of(one)
    assert made.normalisation == Normalisation(mean=(0.1, 0.2, 0.3), std=(1, 1, 1))
    assert made_of(student("scratch", "hf-hub:org/mine")).normalisation == made.normalisation
    # Found to be there they are loaded, once for all students of that network.
    found, config = FirstWeights(), StudentConfig(arch="hf-hub:org/mine", start="pretrained", image_size=96)
    words, origin = found.find(config, Origin())
    (snapshot / "model.safetensors").unlink()
    assert words == "the pretrained weights of hf-hub:org/mine, org/mine on the hub"
    assert found.find(config, Origin())[1].published is origin.published
    assert has(student("pretrained", "hf-hub:org/mine", origin=origin), weights)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "gone"))
    again = student("scratch", "hf-hub:org/mine", origin=Origin.of("hf-hub:org/mine", None, made.to_json()))
    assert made_of(again).normalisation == made.normalisation
    assert again.state_dict().keys() == one.state_dict().keys()
    with pytest.raises(UserError, match="does not say what its hf-hub:org/mine is"):
        Origin.of("hf-hub:org/mine", None, {**made.to_json(), "hub": {}}, where="run")


def test_a_student_has_the_mean_and_deviation_of_its_weights():
    expected = {ARCH: HALF, "timm:resnet10t": IMAGENET, "resnet18": IMAGENET, "tf_efficientnet_lite0": HALF}
    assert {arch: made_of(student(arch=arch)).normalisation for arch in expected} == expected
    assert {input_of(StudentConfig(arch=arch)) for arch in expected} == {repr(HALF), repr(IMAGENET)}
    assert input_of(StudentConfig(arch="resnet18", start="w.pt")) != input_of(StudentConfig(arch="resnet18"))


def test_arguments_of_the_network_are_read_as_toml():
    one = student(kwargs=["drop_path_rate=0.5", "global_pool=max"])
    assert (one.global_pool.pool_type, one.layer4[0].drop_path.drop_prob) == ("max", 0.5)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("drop_paths=0.1", f"names drop_paths, which {ARCH} does not take"),
        ("checkpoint_path=w.pt", "names checkpoint_path, which is not the network's own affair"),
        ("act_layer=none", "cannot be built for 32 px images .*or student.kwargs"),
    ],
)
def test_an_argument_that_the_network_does_not_take_is_one_line(argument, message):
    with pytest.raises(UserError, match=message):
        student(kwargs=[argument])


def test_a_network_of_one_size_is_not_judged_at_another():
    fixed = StudentConfig(arch="timm:vit_tiny_patch16_224", image_size=32, eval_size=48)
    with pytest.raises(UserError, match=r"of 32 px cannot be judged at student\.eval_size=48"):
        check_eval_size(student(arch=fixed.arch), fixed)
    check_eval_size(student(), StudentConfig(arch=ARCH, image_size=32, eval_size=48))
