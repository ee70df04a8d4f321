"""Teachers from elsewhere: whatever their files say, none of it is run, and nothing that they name is loaded."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from helpers.foreign_code import Code, pickled
from helpers.teachers import on_the_hub
from safetensors.torch import load_file

from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import UserError
from cache.teacher.load import load_teacher
from cache.teacher.open_clip_texts import OpenClipTexts

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


@pytest.fixture
def teacher(here, teacher_dir) -> Path:
    """A teacher's folder, to be changed."""
    return shutil.copytree(teacher_dir, here / "teacher")


def jit_like(path: Path) -> Path:
    """An ordinary pickle with one more member, by whose name it passes for TorchScript."""
    torch.save({"state_dict": Code(), "more": torch.zeros(10**6)}, "plain.pt")
    with zipfile.ZipFile("plain.pt") as one, zipfile.ZipFile(path, "w") as other:
        for name in one.namelist():
            other.writestr(name, one.read(name))
        other.writestr("archive/not_constants.pkl", b"")
    return path


def torchscript(path: Path) -> Path:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    return path


def changed(folder: Path, part: str, **values: object) -> str:
    """Change a part of a teacher's config; return the teacher's name."""
    config = json.loads((folder / CONFIG).read_text())
    config["model_cfg"][part] |= values
    (folder / CONFIG).write_text(json.dumps(config))
    return f"local-dir:{folder}"


def refused(here: Path, model: str, pretrained: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_teacher(model, pretrained=str(pretrained) if pretrained else None)
    assert not (here / "marker").exists()
    message = str(caught.value)
    assert "\n" not in message
    assert not [
        word for word in ("weights_only", "trust_remote_code=True", "allow_pickle") if word in message
    ]
    return message


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (jit_like, "looks like a TorchScript archive"),
        (torchscript, "looks like a TorchScript archive"),
        (pickled, "it holds posix.system, which is code"),
    ],
)
def test_a_checkpoint_that_holds_code_is_refused_as_file_and_in_a_folder(here, teacher, write, message):
    assert message in refused(here, "ViT-B-32-quickgelu", write(here / "weights.pt"))
    (teacher / WEIGHTS).unlink()
    write(here / "weights.pt").rename(teacher / "open_clip_pytorch_model.bin")
    assert message in refused(here, f"local-dir:{teacher}")


def test_a_checksum_that_is_known_is_compared_before_anything_is_loaded(here, teacher):
    # As the hub keeps files: under their checksum, with a link by their name.
    blob = here / "blobs" / ("0" * 64)
    blob.parent.mkdir()
    (teacher / WEIGHTS).rename(blob)
    (teacher / WEIGHTS).symlink_to(blob)
    assert "differ from their checksum" in refused(here, f"local-dir:{teacher}")
    released = pickled(here / "vit_b_32-quickgelu-laion400m_e31-d867053b.pt")
    assert "differ from their checksum" in refused(here, "ViT-B-32-quickgelu", released)
    (teacher / WEIGHTS).unlink()
    blob.rename(teacher / WEIGHTS)
    right = sha256_of(teacher / WEIGHTS)
    assert load_teacher(f"local-dir:{teacher}", weights_sha256=right).spec.weights_sha256 == right
    with pytest.raises(UserError, match="are not the ones that were asked for"):
        load_teacher(f"local-dir:{teacher}", weights_sha256="0" * 64)


def with_code(teacher: Path) -> None:
    """Put a tokenizer of transformers into a folder that brings its own code."""
    (teacher / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"})
    )
    (teacher / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.C"}})
    )
    (teacher / "own.py").write_text("open('marker', 'w').write('ran')\nclass Own: pass\n")


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (
            "text_cfg",
            {"hf_tokenizer_name": "x/y", "tokenizer_kwargs": {"trust_remote_code": True}},
            "not taken",
        ),
        ("text_cfg", {"tokenizer_kwargs": {"bpe_path": "vocabulary.gz"}}, "bpe_path"),
        ("text_cfg", {"tokenizer_kwargs": {"cache_dir": "/tmp/elsewhere"}}, "cache_dir"),
        ("text_cfg", {"tokenizer_kwargs": ["clean"]}, "expected a table"),
        ("text_cfg", {"hf_tokenizer_name": "../elsewhere"}, "hf_tokenizer_name"),
        ("text_cfg", {"hf_tokenizer_name": "x/y"}, "the tokenizer of"),
        ("text_cfg", {"hf_model_name": "/tmp/elsewhere"}, "hf_model_name"),
        ("vision_cfg", {"timm_model_name": "hf-hub:x/y"}, "no model of timm"),
        ("vision_cfg", {"timm_model_name": "local-dir:/tmp/elsewhere"}, "no model of timm"),
        ("vision_cfg", {"image_size": 10**6}, "image_size"),
        ("vision_cfg", {"layers": 10**9}, "layers"),
        ("vision_cfg", {"layers": 1000, "width": 4096}, "do not fit"),
        ("vision_cfg", {"layers": [1, 1, 1, 1], "width": 4096}, "do not fit"),
        ("text_cfg", {"vocab_size": 2 * 10**6}, "do not fit"),
    ],
)
def test_a_teachers_config_cannot_ask_for_code_a_path_or_all_memory(here, teacher, part, values, message):
    pytest.importorskip("transformers")
    with_code(teacher)
    with gzip.open("vocabulary.gz", "w") as file:
        file.write(b"a b\n")
    assert message in refused(here, changed(teacher, part, **values))


@pytest.mark.parametrize(
    "given",
    ["bicubic", [1], {"mean": [0.5]}, {"std": [1, 1, 0]}, {"interpolation": "x"}, {"resize_mode": {}}],
)
def test_a_preprocessing_that_no_image_can_go_through_is_one_line(here, teacher, given):
    config = json.loads((teacher / CONFIG).read_text())
    (teacher / CONFIG).write_text(json.dumps({**config, "preprocess_cfg": given}))
    assert "preprocess_cfg" in refused(here, f"local-dir:{teacher}")


@pytest.mark.parametrize("called", ["AutoModel", "AutoModelForCausalLMFast", "AutoProcessor"])
def test_what_a_folder_calls_its_tokenizer_is_one_and_nobody_is_asked_for_leave(
    here, teacher, monkeypatch, called
):
    transformers = pytest.importorskip("transformers")
    from cache.runtime.hub_models import import_transformers

    # What transformers asks on the terminal where a part of a model brings code.
    monkeypatch.setattr("builtins.input", lambda question: "y")
    with_code(teacher)
    own = dict.fromkeys(("AutoModel", "AutoModelForCausalLM", "AutoProcessor"), "own.Own")
    (teacher / "config.json").write_text(json.dumps({"model_type": "vit", "auto_map": own}))
    (teacher / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": called}))
    message = refused(here, changed(teacher, "text_cfg", hf_tokenizer_name="x/y"))
    assert f"calls its tokenizer {called!r}" in message
    import_transformers()
    with pytest.raises(ValueError, match="requires you to execute"):
        transformers.AutoModelForCausalLM.from_pretrained(str(teacher))
    assert not (here / "marker").exists()


def test_a_teacher_of_the_hub_is_held_to_the_same(here, teacher, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(here / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    good = load_teacher(on_the_hub(here / "hub", teacher, "good")).spec
    assert good.identity() == load_teacher(f"local-dir:{teacher}").spec.identity()
    flipped = here / "hub" / "models--some--good" / "blobs" / good.weights_sha256
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"x")
    assert "differ from their checksum" in refused(here, "hf-hub:some/good")
    with_code(teacher)
    changed(teacher, "text_cfg", hf_tokenizer_name="some/code", tokenizer_kwargs={"trust_remote_code": True})
    assert "option trust_remote_code" in refused(here, on_the_hub(here / "hub", teacher, "code"))
    changed(teacher, "text_cfg", tokenizer_kwargs={}, hf_model_name="some/tower", hf_proj_type="linear")
    assert "the text tower some/tower" in refused(here, on_the_hub(here / "hub", teacher, "tower"))


def test_options_of_a_tokenizer_that_only_clean_texts_are_taken(here, teacher):
    name = changed(teacher, "text_cfg", tokenizer_kwargs={"clean": "canonicalize"})
    assert (
        load_teacher(name)
        .texts.tokenizer(["A photo!"])
        .equal(load_teacher(name).texts.tokenizer(["a photo"]))
    )


def test_the_text_tower_of_a_cache_asks_for_nothing_either(here, trained):
    folder = trained / "cache" / "text_tower"
    config, weights = json.loads((folder / "config.json").read_text()), load_file(folder / "text.safetensors")
    for changes in (
        {"hf_model_name": "x/y"},
        {"hf_tokenizer_name": "x/y"},
        {"tokenizer_kwargs": {"bpe_path": "vocabulary.gz"}},
        {"layers": 1000, "width": 4096},
    ):
        with pytest.raises((UserError, ValueError), match=r"is not|not taken|do not fit"):
            OpenClipTexts.of_kept({**config, "text_cfg": {**config["text_cfg"], **changes}}, weights)
