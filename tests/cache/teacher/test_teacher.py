from __future__ import annotations

import json
import shutil
import sys
import warnings

import pytest
import torch

from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import UserError
from cache.teacher.load import load_teacher

import open_clip  # isort: skip


def test_a_local_dir_teacher_equals_open_clip_called_directly(teacher_dir, photos):
    from cache.sources.decoding import load_rgb

    teacher = load_teacher(f"local-dir:{teacher_dir}")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{teacher_dir}")
    image = load_rgb(next((photos / "train" / "apple").iterdir()))
    with torch.no_grad():
        expected = model.eval().encode_image(preprocess(image)[None])
        expected_text = model.encode_text(
            open_clip.get_tokenizer(f"local-dir:{teacher_dir}")(["a photo of apple"])
        )
    torch.testing.assert_close(teacher.embed_images(teacher.transform(image)[None]), expected)
    torch.testing.assert_close(teacher.embed_texts(["a photo of apple"])[0], expected_text)


def test_texts_come_back_in_their_order_and_long_ones_are_counted(teacher_dir):
    teacher = load_teacher(f"local-dir:{teacher_dir}")
    texts = ["a long text " * 20, "short", "a middle one"]
    rows, truncated = teacher.embed_texts(texts, batch_size=2)
    assert truncated == 1
    for text, row in zip(texts, rows, strict=True):
        torch.testing.assert_close(teacher.embed_texts([text])[0][0], row, rtol=1e-4, atol=1e-5)


def test_preprocessing_and_precision_change_the_identity_but_the_folder_does_not(teacher_dir, tmp_path):
    moved = shutil.copytree(teacher_dir, tmp_path / "moved")
    one = load_teacher(f"local-dir:{teacher_dir}").spec
    assert load_teacher(f"local-dir:{moved}").spec.identity() == one.identity()
    assert load_teacher(f"local-dir:{teacher_dir}", preprocessing="squash").spec.identity() != one.identity()
    assert load_teacher(f"local-dir:{teacher_dir}", precision="bfloat16").spec.identity() != one.identity()


def test_squash_ignores_the_aspect_ratio(teacher_dir):
    from PIL import Image

    wide = Image.new("RGB", (200, 50), (0, 0, 0))
    wide.paste((255, 255, 255), (0, 0, 20, 50))
    own = load_teacher(f"local-dir:{teacher_dir}").transform(wide)
    squashed = load_teacher(f"local-dir:{teacher_dir}", preprocessing="squash").transform(wide)
    assert own.max() < 0 < squashed[:, :, 0].min()


@pytest.fixture(params=["small", pytest.param("large", marks=pytest.mark.long)])
def side(request, monkeypatch):
    """The side of the images of open_clip's own models, which are small ones here, or as they are."""
    if request.param == "large":
        return 224
    vit = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    resnet = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    configs = open_clip.factory._MODEL_CONFIGS
    for name, vision in (("ViT-B-32", vit), ("ViT-B-32-quickgelu", vit), ("RN50", resnet)):
        changed = {**configs[name], "embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
        monkeypatch.setitem(configs, name, changed)
    return 32


def saved(tmp_path, name, ending=".pt"):
    torch.manual_seed(0)
    path = tmp_path / f"weights{ending}"
    state = open_clip.create_model(name).state_dict()
    if ending == ".safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.usefixtures("side")
def test_a_local_checkpoint_of_a_named_model_is_loaded(tmp_path, ending):
    path = saved(tmp_path, "ViT-B-32", ending)
    teacher = load_teacher("ViT-B-32", pretrained=str(path))
    torch.manual_seed(0)
    expected = open_clip.create_model("ViT-B-32").visual.proj
    torch.testing.assert_close(teacher.images.network.visual.proj, expected)
    with pytest.raises(UserError, match="do not fit RN50"):
        load_teacher("RN50", pretrained=str(path))


def test_an_archive_of_openai_is_known_by_its_checksum_and_needs_the_quickgelu_model(
    side, tmp_path, monkeypatch
):
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32-quickgelu").eval()
    del model.attn_mask  # a buffer that is in no checkpoint, and would be in a traced one
    path = tmp_path / "ViT-B-32.pt"
    with warnings.catch_warnings(action="ignore"):  # that a trace holds for one size alone
        images = {"encode_image": torch.zeros(1, 3, side, side)}
        torch.jit.trace_module(model, images, check_trace=False).save(str(path))
    with pytest.raises(UserError, match="looks like a TorchScript archive"):
        load_teacher("ViT-B-32-quickgelu", pretrained=str(path))
    url = f"https://openaipublic.azureedge.net/clip/models/{sha256_of(path)}/ViT-B-32.pt"
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["ViT-B-32"], "openai", {"url": url})
    with pytest.raises(UserError, match="use --model ViT-B-32-quickgelu"):
        load_teacher("ViT-B-32", pretrained=str(path))
    teacher = load_teacher("ViT-B-32-quickgelu", pretrained=str(path))
    torch.testing.assert_close(teacher.images.network.visual.proj, model.visual.proj)


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("ViT-L-41", "openai", "'ViT-L-14'"),
        ("ViT-L-14", "openai", "use --model ViT-L-14-quickgelu"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "has no weights called"),
        ("ViT-B-32", "opanai", "'openai'"),
        ("ViT-B-32", None, "needs weights"),
        ("ViT-B-32", "nowhere/weights.pt", "does not exist"),
        ("local-dir:nowhere", None, "does not exist"),
        ("local-dir:.", "openai", "brings its own weights"),
    ],
)
def test_a_wrong_teacher_is_one_clear_error(model, pretrained, message):
    with pytest.raises(UserError) as error:
        load_teacher(model, pretrained=pretrained)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_broken_weights_file_is_one_clear_error(tmp_path, teacher_dir):
    broken = shutil.copytree(teacher_dir, tmp_path / "broken")
    (broken / "open_clip_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="do not fit"):
        load_teacher(f"local-dir:{broken}")
    (broken / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights file"):
        load_teacher(f"local-dir:{broken}")


@pytest.mark.parametrize("part", ["hf_tokenizer_name", "hf_model_name"])
def test_a_teacher_of_transformers_says_in_a_plain_install_what_to_install(
    tmp_path, teacher_dir, monkeypatch, part
):
    monkeypatch.setitem(sys.modules, "transformers", None)
    config = shutil.copytree(teacher_dir, tmp_path / "teacher") / "open_clip_config.json"
    values = json.loads(config.read_text())
    values["model_cfg"]["text_cfg"][part] = "some/text"
    config.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"(tokenizer|text tower) .*pip install transformers sentencepiece"):
        load_teacher(f"local-dir:{config.parent}")
