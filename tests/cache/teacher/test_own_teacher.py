"""A teacher of one's own: what its code gives is what is kept, and what does not fit is one line."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from cache.runtime.errors import CacheMismatch, UserError
from cache.runtime.own_code import OwnCode
from cache.teacher.load import load_teacher

CODE = """
import numpy as np
import torch
from torch import nn

class Both(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 12, 8, 8)
        self.words = nn.Embedding(2**16, 12)

    def preprocess(self, picture):
        pixels = np.asarray(picture.resize((16, 24)), dtype="float32") / 255
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def embed_images(self, images):
        return self.conv(images).flatten(2).mean(2)

    def embed_texts(self, texts):
        return torch.stack([self.words(torch.tensor([0, *map(ord, text)])).mean(0) for text in texts])

class Plain:
    preprocess = Both.preprocess

    def embed_images(self, images):
        return images.flatten(2).mean(2)

class NoImages:
    preprocess = Both.preprocess

class TwoPixels(Plain):
    def preprocess(self, picture):
        return torch.zeros(3, picture.width, 8)

class Integers(Plain):
    def preprocess(self, picture):
        return torch.zeros(3, 8, 8, dtype=torch.uint8)

class OneRow(Plain):
    def embed_images(self, images):
        return images.flatten(2).mean(2)[:1]

class OneText(Plain):
    def embed_texts(self, texts):
        return torch.ones(1, 3)

class Fails(Plain):
    def embed_images(self, images):
        return nonsense

class Lost(Plain):
    weights_files = "nowhere.pt"

def broken():
    raise ValueError("no luck")
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def picture(width=40, height=30):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_its_images_and_texts_are_those_of_its_code(file):
    own = OwnCode.read(file).function("Both", makes="a teacher", takes="nothing")()
    teacher = load_teacher(f"{file}:Both")
    images = torch.stack([teacher.transform(picture()), teacher.transform(picture(9, 50))])
    with torch.inference_mode():
        torch.testing.assert_close(
            images, torch.stack([own.preprocess(picture()), own.preprocess(picture(9, 50))])
        )
        torch.testing.assert_close(
            teacher.embed_images(images), own.embed_images(images), rtol=1e-5, atol=1e-5
        )
        texts = ["a photo of a cat", "", "für Anfänger", "x\0y 漢字"] * 2
        rows, cut = teacher.embed_texts(texts, batch_size=3)
        torch.testing.assert_close(rows, own.embed_texts(texts), rtol=1e-5, atol=1e-5)
    assert (cut, teacher.embed_dim, teacher.spec.image_size) == (0, 12, (24, 16))
    assert len({*teacher.token_ids(texts)}) == 4
    half = load_teacher(f"{file}:Both", precision="bfloat16")
    assert half.embed_images(images).dtype == torch.float32
    torch.testing.assert_close(half.embed_images(images), teacher.embed_images(images), rtol=0.05, atol=0.05)


def test_its_preprocessing_can_go_to_a_process_that_knows_nothing_of_its_file(file, monkeypatch):
    transform = load_teacher(f"{file}:Plain").transform
    sent = pickle.dumps(transform)
    for name in [name for name in sys.modules if name.startswith("distill_own_code_")]:
        monkeypatch.delitem(sys.modules, name)
    file.unlink()
    assert pickle.loads(sent)(picture()).equal(transform(picture()))


def test_its_identity_is_the_file_what_is_named_in_it_and_its_weights(file, tmp_path):
    (tmp_path / "w.pt").write_bytes(b"weights")
    code = CODE.replace('"nowhere.pt"', repr(str(tmp_path / "w.pt")))
    file.write_text(code)
    one = load_teacher(f"{file}:Plain").spec
    moved = tmp_path / "moved.py"
    moved.write_text(code)
    assert load_teacher(f"{moved}:Plain").spec.identity() == one.identity()
    assert load_teacher(f"{moved}:Both").spec.identity() != one.identity()
    lost = load_teacher(f"{moved}:Lost").spec
    assert (len(lost.weights_sha256), len(one.weights_sha256), one.tokenizer) == (64, 64, "")
    (tmp_path / "w.pt").write_bytes(b"others")
    assert load_teacher(f"{moved}:Lost").spec.weights_sha256 != lost.weights_sha256
    with pytest.raises(CacheMismatch, match=r"the weights and the code of .* differs"):
        load_teacher(f"{moved}:Lost", weights_sha256="0" * 64)
    moved.write_text(f"{code}\n# another\n")
    assert load_teacher(f"{moved}:Plain").spec.identity() != one.identity()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Plian", "nothing called 'Plian' that makes a teacher. Fix: did you mean 'Plain'"),
        ("NoImages", r"NoImages\(\) gives a NoImages without embed_images"),
        (
            "Integers",
            r"Integers.preprocess gives \[3, 8, 8\] of torch.uint8, expected a float tensor \[3, any, any\]",
        ),
        (
            "OneRow",
            r"OneRow.embed_images gives \[1, 3\] of torch.float32, expected a float tensor \[2, any\]",
        ),
        ("OneText", r"OneText.embed_texts gives \[1, 3\] of torch.float32, expected a float tensor \[2, 3\]"),
        ("Fails", r"Fails.embed_images failed \(NameError: name 'nonsense' is not defined, line \d+\)"),
        ("Lost", "weights_files names nowhere.pt, which is no file"),
        ("broken", r"broken\(\) failed \(ValueError: no luck, line \d+\)"),
    ],
)
def test_what_is_no_teacher_is_one_line(file, name, message):
    with pytest.raises(UserError, match=message) as error:
        load_teacher(f"{file}:{name}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretrained": "openai"}, "--pretrained openai cannot go with"),
        ({"preprocessing": "squash"}, "--preprocess squash cannot go with"),
        ({"precision": "bfloat16"}, r"--precision bfloat16 is of torch modules, and Plain\(\) gives a Plain"),
    ],
)
def test_what_is_its_own_affair_is_refused(file, options, message):
    with pytest.raises(UserError, match=message):
        load_teacher(f"{file}:Plain", **options)


def test_a_picture_that_becomes_another_size_is_one_line(file):
    teacher = load_teacher(f"{file}:TwoPixels")
    with pytest.raises(UserError, match=r"TwoPixels.preprocess gives \[3, 40, 8\].*expected .*\[3, 256, 8\]"):
        teacher.transform(picture())


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"the code .*none.py cannot be read"):
        load_teacher(f"{tmp_path}/none.py:Plain")
