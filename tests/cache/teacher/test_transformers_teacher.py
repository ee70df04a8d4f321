"""CLIP and SigLIP of transformers as teachers: the library's own numbers, and one line for all that is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.transformers_models import SAVE, expected_texts, features, save_clip, transformers
from PIL import Image

from cache.runtime.errors import UserError
from cache.store.spec import CacheSpec
from cache.teacher.load import load_teacher

TEXTS = ["a photo of a Dog", "plums", "", "two cups; 3 plates " * 30, "a red apple on a table"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NEAR = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module", params=["clip", "siglip"])
def saved(request, tmp_path_factory) -> tuple[str, Path]:
    """A kind of model and its folder; to be read."""
    folder = tmp_path_factory.mktemp("saved") / request.param
    return request.param, SAVE[request.param](folder)


@pytest.fixture
def own(saved, tmp_path) -> tuple[str, Path]:
    """A copy, to be changed."""
    kind, folder = saved
    return kind, shutil.copytree(folder, tmp_path / "own")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(40, 57), (33, 32), (200, 61), (32, 32), (20, 90)]
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def load(folder: Path, **options):
    return load_teacher(f"local-dir:{folder}", **options)


def change(file: Path, **values) -> None:
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | values))


def refused(folder: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        load(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("precision", DTYPES)
def test_images_and_texts_are_embedded_as_the_library_does_it(saved, pictures, precision):
    kind, folder = saved
    teacher = load(folder, precision=precision)
    library = transformers()
    model = {"clip": "CLIPModel", "siglip": "SiglipModel"}[kind]
    network = getattr(library, model).from_pretrained(folder, dtype=DTYPES[precision]).eval()
    images = torch.stack([teacher.transform(picture) for picture in pictures])
    with torch.inference_mode():
        expected = features(network.get_image_features(pixel_values=images.to(DTYPES[precision]))).float()
    torch.testing.assert_close(teacher.embed_images(images), expected, **NEAR)
    rows, cut = teacher.embed_texts(TEXTS)
    near = NEAR if precision == "float32" else {"rtol": 0.05, "atol": 0.02}  # other sums: batches are cut
    torch.testing.assert_close(rows, expected_texts(folder, TEXTS, kind, DTYPES[precision]), **near)
    assert cut == 1
    assert [teacher.is_too_long(text) for text in TEXTS] == [False, False, False, True, False]
    tokens, _ = teacher.texts.tokens(TEXTS)
    with torch.inference_mode():
        same = features(network.get_text_features(input_ids=tokens)).float()
        torch.testing.assert_close(teacher.texts.embed(tokens).float(), same, rtol=0, atol=0)
    assert teacher.embed_dim == rows.shape[1] == expected.shape[1]


def test_an_older_clip_takes_its_highest_token_for_the_end(tmp_path):
    folder = save_clip(tmp_path / "clip", text={"eos_token_id": 2})
    rows, _ = load(folder).embed_texts(TEXTS)
    torch.testing.assert_close(rows, expected_texts(folder, TEXTS, "clip"), **NEAR)


def test_of_siglip_no_padding_is_cut_and_of_clip_all(saved):
    kind, folder = saved
    tokens, counts = load(folder).texts.tokens(["a dog", "a photo of a dog"])
    assert tokens.shape[1] == (77 if kind == "clip" else 64)
    assert (counts < tokens.shape[1]).all() == (kind == "clip")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"resample": 2},
        {"do_rescale": False},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]},
        {"size": {"shortest_edge": 45}, "crop_size": 32, "do_center_crop": True},
        {"size": 37, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True},
        {"size": {"height": 40, "width": 51}, "crop_size": 32, "do_center_crop": True},
    ],
    ids=str,
)
def test_pictures_are_prepared_as_by_the_librarys_processor(own, pictures, changes):
    _, folder = own
    change(folder / "preprocessor_config.json", **changes)
    teacher, library = load(folder), transformers()
    exact = library.AutoImageProcessor.from_pretrained(folder, backend="pil")
    usual = library.AutoImageProcessor.from_pretrained(folder)
    level = 1 / min(teacher.spec.std) / 255  # how far apart two neighbouring grey values are
    for picture in pictures:
        made = teacher.transform(picture)
        expected = torch.as_tensor(exact(picture, return_tensors="pt")["pixel_values"])[0]
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5 * level * 255)
        # Torchvision resamples otherwise than Pillow: of photos a grey value here and there, of noise some.
        other = torch.as_tensor(usual(picture, return_tensors="pt")["pixel_values"])[0]
        assert (made - other).abs().mean() <= 0.5 * level


def test_the_newer_file_of_all_processors_goes_before_the_older_one(own):
    _, folder = own
    alone = json.loads((folder / "preprocessor_config.json").read_text())
    for inside in ({"image_processor": alone | {"image_mean": [0.1] * 3}}, {"processor_class": "X"}):
        (folder / "processor_config.json").write_text(json.dumps(inside))
        assert (load(folder).spec.mean == (0.1,) * 3) == ("image_processor" in inside)


def test_all_that_changes_an_embedding_changes_the_fingerprint(own):
    _, folder = own
    first = load(folder).spec

    def fingerprint() -> str:
        return CacheSpec(teacher=load(folder).spec).fingerprint()

    known = {CacheSpec(teacher=first).fingerprint()}
    assert fingerprint() in known
    change(folder / "config.json", transformers_version="4.0", _name_or_path="elsewhere")
    assert fingerprint() in known
    pictures = folder / "preprocessor_config.json"
    text = json.loads((folder / "config.json").read_text())["text_config"]
    vision = json.loads((folder / "config.json").read_text())["vision_config"]
    for file, values in (
        (pictures, {"image_mean": [0.3] * 3}),
        (pictures, {"resample": 2}),
        (pictures, {"size": {"shortest_edge": 40}, "crop_size": 32, "do_center_crop": True}),
        (pictures, {"size": {"shortest_edge": 41}}),
        (folder / "config.json", {"text_config": {**text, "num_attention_heads": 4}}),
        (folder / "config.json", {"vision_config": {**vision, "hidden_act": "relu"}}),
        (folder / "tokenizer_config.json", {"model_max_length": 5}),
    ):
        change(file, **values)
        assert fingerprint() not in known, values
        known.add(fingerprint())


def test_weights_in_several_files_or_as_torch_saves_them_are_the_same_teacher(own, tmp_path):
    kind, folder = own
    expected, whole = load(folder).embed_texts(TEXTS)[0], folder / "model.safetensors"
    library = transformers()
    model = getattr(library, {"clip": "CLIPModel", "siglip": "SiglipModel"}[kind]).from_pretrained(folder)
    model.save_pretrained(tmp_path / "parts", max_shard_size="50KB")
    whole.unlink()
    torch.save(
        model.state_dict() | {"text_model.embeddings.position_ids": torch.arange(77)[None]},
        folder / "pytorch_model.bin",
    )
    torch.testing.assert_close(load(folder).embed_texts(TEXTS)[0], expected, rtol=0, atol=0)
    (folder / "pytorch_model.bin").unlink()
    for file in (tmp_path / "parts").glob("model*"):
        shutil.copyfile(file, folder / file.name)
    teacher = load(folder)
    torch.testing.assert_close(teacher.embed_texts(TEXTS)[0], expected, rtol=0, atol=0)
    assert load(folder, weights_sha256=teacher.spec.weights_sha256)
    assert "its checksum differs" in refused(folder, weights_sha256="0" * 64).replace("their", "its")
    first = sorted(folder.glob("model-*"))[0]
    first.unlink()
    assert first.name in refused(folder)
    change(folder / "model.safetensors.index.json", weight_map={"a": "../elsewhere"})
    assert "lists no files that lie beside it" in refused(folder)


def test_a_float16_checkpoint_is_read_as_numbers(own):
    kind, folder = own
    library = transformers()
    made = getattr(library, {"clip": "CLIPModel", "siglip": "SiglipModel"}[kind])
    made.from_pretrained(folder, dtype=torch.float16).save_pretrained(folder)
    torch.testing.assert_close(
        load(folder).embed_texts(TEXTS)[0], expected_texts(folder, TEXTS, kind), **NEAR
    )


def test_regions_are_of_clip_and_not_of_a_learnt_pooling(saved, pictures):
    kind, folder = saved
    teacher = load(folder)
    images = torch.stack([teacher.transform(picture) for picture in pictures])
    if kind == "siglip":
        with pytest.raises(UserError, match="patch tokens"):
            teacher.check_regions()
        return
    rows, regions = teacher.embed_regions(images)
    torch.testing.assert_close(rows, teacher.embed_images(images), **NEAR)
    network = teacher.images.network
    with torch.no_grad():
        hidden = network.vision_model(pixel_values=images).last_hidden_state
        patches = network.visual_projection(network.vision_model.post_layernorm(hidden[:, 1:]))
    torch.testing.assert_close(regions[:, 0], patches[:, 0], **NEAR)  # 2 x 2 patches: a corner is one


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "has no open_clip_config.json and no config.json"),
        ("model.safetensors", "has no weights file (model.safetensors or pytorch_model.bin)"),
        ("preprocessor_config.json", "has no preprocessor_config.json"),
        ("tokenizer.json", "has no tokenizer (tokenizer.json, "),
    ],
)
def test_a_file_that_is_missing_is_named(own, name, message):
    _, folder = own
    (folder / name).unlink()
    assert message in refused(folder)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"model_type": "bert"}, "bert"),
        ("config.json", {"model_type": "siglip2"}, "NaFlex"),
        ("config.json", {"auto_map": {"AutoModel": "own.Own"}}, "asks for auto_map"),
        ("config.json", {"_attn_implementation": "some/kernel"}, "some/kernel"),
        ("config.json", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("config.json", {"text_config": "x"}, "is no config of a"),
        ("config.json", {"text_config": {"vocab_size": 2**20, "hidden_size": 2**12}}, "do not fit"),
        ("config.json", {"vision_config": {"image_size": 2**20}}, "image_size of 1048576"),
        ("config.json", {"vision_config": {"image_size": 48, "patch_size": 16}}, "48 x 48"),
        ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "own.Own"}}, "asks for auto_map"),
        ("preprocessor_config.json", {"image_processor_type": "ViTImageProcessor"}, "of a ViT processor"),
        ("preprocessor_config.json", {"do_resize": False}, "do_resize"),
        ("preprocessor_config.json", {"size": {"longest_edge": 32}}, "size"),
        ("preprocessor_config.json", {"size": {"height": -1, "width": 32}}, "size"),
        ("preprocessor_config.json", {"image_std": [0, 1, 1]}, "image_std"),
        ("preprocessor_config.json", {"resample": 0}, "resample"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["own.Own", None]}}, "asks for auto_map"),
        ("tokenizer_config.json", {"tokenizer_class": "CLIPModel"}, "no tokenizer"),
    ],
    ids=str,
)
def test_settings_that_no_teacher_may_have_are_one_line(own, here, file, values, message):
    _, folder = own
    (folder / "own.py").write_text("open('marker', 'w').write('ran')\nclass Own: pass\n")
    change(folder / file, **values)
    assert message in refused(folder)
    assert not (here / "marker").exists()


def test_weights_and_tokenizers_of_another_model_are_one_line(own, tmp_path):
    kind, folder = own
    other = {"clip": "siglip", "siglip": "clip"}[kind]
    elsewhere = SAVE[other](tmp_path / "other")
    for name in ("model.safetensors", "tokenizer.json"):
        before = (folder / name).read_bytes()
        shutil.copyfile(elsewhere / name, folder / name)
        message = refused(folder) if name.endswith("s") or kind == "siglip" else ""
        assert not message or "do not fit" in message or "the tokenizer in" in message
        (folder / name).write_bytes(before)
    (folder / "model.safetensors").write_bytes(b"not weights")
    assert "model.safetensors" in refused(folder)
