from __future__ import annotations

from functools import partial

import pytest
import torch

from cache.teacher.open_clip_texts import OpenClipTexts

import open_clip  # isort: skip

VISION = {"layers": 1, "width": 32, "patch_size": 16, "image_size": 32, "head_width": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
# Matrices of other sizes are summed in another order, and by another processor in yet another: of numbers of
# about 1 that is some tens of float32's 6e-8. What a cut in the wrong place changes is the second digit.
SUMS = {"rtol": 1e-5, "atol": 1e-5}
TEXTS = ["a cat", "a photo of a large dog on a lawn", "x", "a long text " * 30]


def clip(**text):
    return open_clip.CLIP(32, VISION, TEXT | text)


def custom(**text):
    return open_clip.CustomTextCLIP(32, VISION, TEXT | text)


@pytest.mark.parametrize(
    ("make", "cut"),
    [
        (clip, True),
        (custom, True),
        (lambda: custom(pool_type="eos", eos_id=49407), True),
        (lambda: custom(pool_type="last", no_causal_mask=True), False),
        (lambda: custom(embed_cls=True, context_length=76), False),
        (lambda: custom(pool_type="eos", eos_id=2), False),
    ],
)
def test_a_tower_gives_the_same_with_its_padding_cut_where_that_can_be(make, cut):
    torch.manual_seed(0)
    model = make().eval()
    tokenizer = partial(open_clip.get_tokenizer("ViT-B-32"), context_length=model.context_length)
    side = OpenClipTexts.of_model(model, tokenizer, config={}, digest="")
    tokens, counts = side.tokens(TEXTS)
    with torch.inference_mode():
        whole = model.encode_text(tokens)
        assert counts.tolist() == ([4, 11, 3, 77] if cut else [tokens.shape[1]] * 4)
        for i, length in enumerate(counts.tolist()):
            torch.testing.assert_close(side.embed(tokens[i : i + 1, :length])[0], whole[i], **SUMS)
        torch.testing.assert_close(model.encode_text(tokens), whole, **SUMS)
