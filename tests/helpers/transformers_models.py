"""Very small CLIPs and SigLIPs of transformers with random weights, saved as its own tools save them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

# Before open_clip and transformers, which import torchvision themselves.
from cache.runtime.torchvision_compat import torchvision  # noqa: F401

# isort: split
from open_clip.tokenizer import SimpleTokenizer

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
MERGES = 1000
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**TOWER, "image_size": 32, "patch_size": 16}
LINES = (
    "a photo of a dog",
    "a red apple on a table",
    "plums and lemons, ripe",
    "two cups; 3 plates",
    "the cat's bag",
)


def transformers() -> Any:
    return pytest.importorskip("transformers")


def clip_tokenizer() -> Any:
    """CLIP's own way of reading, with the first of its merges."""
    own = SimpleTokenizer()
    merges = list(own.bpe_ranks)[:MERGES]
    words = [*list(own.encoder)[: 512 + MERGES], "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return transformers().CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def unigram_tokenizer() -> Any:
    """A small unigram vocabulary that ends texts, and does not begin them, as SigLIP's."""
    library = transformers()
    import tokenizers as t

    made = t.Tokenizer(t.models.Unigram())
    made.normalizer = t.normalizers.Lowercase()
    made.pre_tokenizer = t.pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = t.trainers.UnigramTrainer(
        vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(LINES, trainer)
    made.post_processor = t.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return library.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", pad_token="</s>", unk_token="<unk>", model_max_length=64
    )


def save_clip(folder: Path, *, seed: int = 0, text: dict | None = None, **more: Any) -> Path:
    library, tokenizer = transformers(), clip_tokenizer()
    config = library.CLIPConfig(
        text_config={
            **TOWER,
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            **(text or {}),
        },
        vision_config=VISION,
        projection_dim=24,
        **more,
    )
    processor = library.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return _save(folder, library.CLIPModel, config, [tokenizer, processor], seed)


def save_siglip(folder: Path, *, seed: int = 0, tokenizer: Any = None) -> Path:
    library, tokenizer = transformers(), tokenizer or unigram_tokenizer()
    none = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    text = {
        **TOWER,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 64,
        "projection_size": 32,
        **none,
    }
    config = library.SiglipConfig(text_config=text, vision_config=VISION)
    processor = library.SiglipImageProcessor(size={"height": 32, "width": 32})
    return _save(folder, library.SiglipModel, config, [tokenizer, processor], seed)


def _save(folder: Path, made: Any, config: Any, parts: list[Any], seed: int) -> Path:
    torch.manual_seed(seed)
    network = made(config)
    with torch.no_grad():  # so that no two rows are as good as one
        for part in network.parameters():
            part.add_(torch.randn_like(part) * 0.05)
    network.save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)
    return folder


SAVE = {"clip": save_clip, "siglip": save_siglip}


def features(found: Any) -> torch.Tensor:
    """What the library's get_..._features gives, whether a tensor or what holds it."""
    return found if isinstance(found, torch.Tensor) else found.pooler_output


def expected_texts(
    folder: Path, texts: list[str], kind: str, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """The library's own embeddings of texts, each alone, read as its documentation says."""
    library = transformers()
    model = getattr(library, {"clip": "CLIPModel", "siglip": "SiglipModel"}[kind])
    network = model.from_pretrained(folder, dtype=dtype).eval()
    tokenizer = library.AutoTokenizer.from_pretrained(folder)
    long = network.config.text_config.max_position_embeddings
    padding: Any = True if kind == "clip" else "max_length"
    rows = []
    with torch.inference_mode():
        for text in texts:
            read = tokenizer([text], padding=padding, truncation=True, max_length=long, return_tensors="pt")
            given = dict(read) if kind == "clip" else {"input_ids": read["input_ids"]}
            rows.append(features(network.get_text_features(**given)).float())
    return torch.cat(rows)
