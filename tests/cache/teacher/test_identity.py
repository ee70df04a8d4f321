"""What names a teacher: its weights, its config, its tokenizer, and all that is done to a picture."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from dataclasses import fields

import numpy as np
import open_clip
import pytest
import torch
from helpers.teachers import save_clip
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from cache.build.crop_views import _view
from cache.runtime.errors import UserError
from cache.store.spec import CacheSpec
from cache.teacher import tokenizers
from cache.teacher.load import load_teacher
from cache.teacher.text_tower import TextTower, save_text_tower
from cache.teacher.weights import resolve

CONFIG = "open_clip_config.json"


@pytest.fixture
def teacher(tmp_path, teacher_dir):
    """A function that changes the small teacher's config and returns its folder."""

    def changed(change, name="changed"):
        folder = shutil.copytree(teacher_dir, tmp_path / name)
        config = json.loads((folder / CONFIG).read_text())
        change(config)
        (folder / CONFIG).write_text(json.dumps(config))
        return folder

    return changed


def fingerprint(folder) -> str:
    return CacheSpec(teacher=load_teacher(f"local-dir:{folder}").spec).fingerprint()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", [0.4] * 3),
        ("std", [0.4] * 3),
        ("interpolation", "bilinear"),
        ("resize_mode", "longest"),
        ("fill_color", 255),
    ],
)
def test_each_step_of_the_preprocessing_is_in_the_fingerprint(teacher_dir, teacher, name, value):
    changed = teacher(lambda config: config["preprocess_cfg"].update({name: value}))
    one, other = (load_teacher(f"local-dir:{folder}").spec for folder in (teacher_dir, changed))
    assert CacheSpec(teacher=one).fingerprint() != CacheSpec(teacher=other).fingerprint()
    assert [line for line in CacheSpec(teacher=one).differences(CacheSpec(teacher=other)) if name in line]


def test_open_clip_has_no_step_of_preprocessing_that_the_identity_lacks():
    same_names = {"size", "mean", "std", "interpolation", "resize_mode", "fill_color"}
    assert {field.name for field in fields(PreprocessCfg)} == {*same_names, "mode"}
    with pytest.raises(AssertionError):
        PreprocessCfg(mode="L")  # the one that there is no choice of


def test_the_config_that_open_clip_has_of_a_name_is_in_the_identity(tmp_path, monkeypatch):
    weights = tmp_path / "weights.pt"
    torch.save({}, weights)
    configs = open_clip.factory._MODEL_CONFIGS
    before = resolve("RN50", str(weights)).architecture
    assert resolve("RN50", str(weights)).architecture == before != resolve("RN101", str(weights)).architecture
    changed = deepcopy(configs["RN50"])
    changed["text_cfg"]["heads"] = 4
    monkeypatch.setitem(configs, "RN50", changed)
    assert resolve("RN50", str(weights)).architecture != before


def test_another_vocabulary_is_another_tokenizer(teacher_dir, monkeypatch):
    before = load_teacher(f"local-dir:{teacher_dir}").spec

    class Changed(tokenizers.SimpleTokenizer):
        def __init__(self, **options):
            super().__init__(**options)
            self.bpe_ranks = dict(list(self.bpe_ranks.items())[:-1])

    monkeypatch.setattr(tokenizers, "SimpleTokenizer", Changed)
    # As in another process: one tokenizer serves a whole process.
    monkeypatch.setattr(tokenizers, "_own_tokenizer", tokenizers._own_tokenizer.__wrapped__)
    after = load_teacher(f"local-dir:{teacher_dir}").spec
    assert before.tokenizer != after.tokenizer
    assert before.architecture == after.architecture


def test_a_kept_text_tower_is_not_read_with_another_tokenizer(teacher_dir, tmp_path, monkeypatch):
    teacher = load_teacher(f"local-dir:{teacher_dir}")
    files = save_text_tower(tmp_path, *teacher.text_side().kept())
    tower = TextTower.load(tmp_path, files=files)
    torch.testing.assert_close(
        tower.embed(tower.tokens(["a plum"])), teacher.embed_texts(["a plum"])[0], rtol=1e-4, atol=1e-5
    )
    own = tokenizers.own_tokenizer
    monkeypatch.setattr(
        "cache.teacher.open_clip_texts.own_tokenizer", lambda *given: (own(*given)[0], "another")
    )
    with pytest.raises(UserError, match="the tokenizer of the open_clip that is installed is another"):
        TextTower.load(tmp_path, files=files)


def bert(folder, words):
    """Save a tokenizer of transformers, as open_clip's folders bring one."""
    transformers = pytest.importorskip("transformers")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}).save_pretrained(
        folder
    )


def test_the_files_of_a_tokenizer_of_transformers_are_in_the_fingerprint(teacher):
    folder = teacher(lambda config: config["model_cfg"]["text_cfg"].update(hf_tokenizer_name="x/y"))
    bert(folder, ["plum", "lemon"])
    before = load_teacher(f"local-dir:{folder}").spec
    moved = shutil.copytree(folder, folder.with_name("moved"))
    assert load_teacher(f"local-dir:{moved}").spec.identity() == before.identity()
    (moved / "README.md").write_text("not of the tokenizer")
    assert load_teacher(f"local-dir:{moved}").spec.identity() == before.identity()
    bert(moved, ["lemon", "plum"])
    after = load_teacher(f"local-dir:{moved}").spec
    assert after.tokenizer != before.tokenizer
    assert after.architecture == before.architecture


def save_wide(folder, sides=(32, 48)):
    vision = {"image_size": list(sides), "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    return save_clip(folder, vision_cfg=vision)


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_a_teacher_of_pictures_that_are_not_square_equals_open_clip_called_directly(tmp_path, resize_mode):
    folder = save_wide(tmp_path / "wide")
    config = json.loads((folder / CONFIG).read_text())
    config["preprocess_cfg"] |= {"resize_mode": resize_mode, "fill_color": 9}
    (folder / CONFIG).write_text(json.dumps(config))
    teacher = load_teacher(f"local-dir:{folder}")
    assert teacher.spec.image_size == (32, 48)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    noise = np.random.default_rng(0).integers(0, 256, size=(50, 40, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    pixels = teacher.transform(image)
    assert pixels.shape == (3, 32, 48)
    torch.testing.assert_close(pixels, preprocess(image), rtol=0, atol=0)
    expected = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)(image)
    torch.testing.assert_close(pixels, expected, rtol=0, atol=0)
    with torch.no_grad():
        embedded = model.eval().encode_image(pixels[None])
    torch.testing.assert_close(teacher.embed_images(pixels[None]), embedded)


def test_both_sides_of_a_picture_are_in_the_fingerprint(tmp_path):
    # Of as many patches: the weights fit either.
    wide, high = save_wide(tmp_path / "wide"), save_wide(tmp_path / "high", (48, 32))
    shutil.copyfile(wide / "open_clip_model.safetensors", high / "open_clip_model.safetensors")
    assert fingerprint(wide) != fingerprint(high)


def test_regions_of_a_wide_picture_lie_where_its_patches_do(tmp_path):
    vision = {"image_size": [56, 112], "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    folder = save_clip(tmp_path / "wide", vision_cfg=vision)
    teacher = load_teacher(f"local-dir:{folder}")
    images = torch.randn(2, 3, 56, 112, generator=torch.Generator().manual_seed(0))
    embeddings, regions = teacher.embed_regions(images)
    torch.testing.assert_close(embeddings, teacher.embed_images(images))
    with torch.no_grad():
        visual = teacher.images.network.visual
        tokens = []
        hook = visual.transformer.register_forward_hook(lambda module, given, output: tokens.append(output))
        visual(images)
        hook.remove()
        patches = visual.ln_post(tokens[0][:, 1:]) @ visual.proj
    expected = patches.reshape(2, 7, 7, 2, -1).mean(dim=3).reshape(2, 49, -1)  # 7 rows of 7 pairs
    torch.testing.assert_close(regions, expected)


def test_squash_is_for_square_teachers(tmp_path):
    folder = save_wide(tmp_path / "wide")
    with pytest.raises(UserError, match=r"takes images of 32 x 48 px, and --preprocess squash makes square"):
        load_teacher(f"local-dir:{folder}", preprocessing="squash")


def test_a_crop_for_a_wide_teacher_is_as_wide(tmp_path):
    image = Image.new("RGB", (60, 60))
    assert _view(image, (0, 0, 0.5, 1), False, (32, 48), Image.Resampling.BICUBIC).size == (48, 32)


@pytest.mark.parametrize("sides", [[32], [32, 32, 32], [32, -1], "32", None, [32, 0], 0, True])
def test_a_size_that_is_none_is_one_clear_error(teacher, sides):
    folder = teacher(lambda config: config["model_cfg"]["vision_cfg"].update(image_size=sides))
    with pytest.raises(UserError, match="image_size"):
        load_teacher(f"local-dir:{folder}")
