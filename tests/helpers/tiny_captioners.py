"""Very small captioners with random weights, saved to disk as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cache.runtime.torchvision_compat  # noqa: F401  # isort: skip
import transformers

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FRUIT = "a", "photo", "of", "the", "red", "green", "apple", "plum", "round", "small", "fruit", "on", "with"
WORDS = (*SPECIAL, *FRUIT)
PAD, BEGIN, END = 0, 2, 3
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    # Large, so that different images get different captions.
    "initializer_range": 0.5,
}
PATCHES = {"image_size": 32, "patch_size": 16}
TOKENS = {"vocab_size": len(WORDS), "bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": PAD}
SQUARE = {"height": 32, "width": 32}


def save_blip(folder: Path, **changes: Any) -> None:
    config = transformers.BlipConfig(
        text_config={**TOWER, **TOKENS, "sep_token_id": END, "encoder_hidden_size": 32, **changes},
        vision_config={**TOWER, **PATCHES},
        projection_dim=16,
        initializer_range=0.5,
    )
    save_model(transformers.BlipForConditionalGeneration(config), folder)
    processor = transformers.BlipImageProcessor(size=SQUARE)
    transformers.BlipProcessor(processor, save_tokenizer(folder)).save_pretrained(folder)


def save_git(folder: Path) -> None:
    config = transformers.GitConfig(vision_config={**TOWER, **PATCHES}, **TOWER, **TOKENS)
    save_model(transformers.GitForCausalLM(config), folder)
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE)
    transformers.GitProcessor(processor, save_tokenizer(folder)).save_pretrained(folder)


def save_vit_gpt2(folder: Path) -> None:
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**TOWER, **PATCHES),
        transformers.GPT2Config(
            n_embd=32, n_layer=1, n_head=2, n_positions=32, initializer_range=0.5, **TOKENS
        ),
        decoder_start_token_id=BEGIN,
        pad_token_id=PAD,
        eos_token_id=END,
    )
    save_model(transformers.VisionEncoderDecoderModel(config), folder)
    transformers.ViTImageProcessor(size=SQUARE).save_pretrained(folder)
    save_tokenizer(folder)


def save_model(model: Any, folder: Path) -> None:
    # Random weights like special tokens as much as words; these captions have at least one word.
    model.generation_config.update(min_new_tokens=1, suppress_tokens=[PAD, 1, BEGIN, 4])
    model.save_pretrained(folder)


def save_tokenizer(folder: Path) -> Any:
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


SAVE = {"blip": save_blip, "git": save_git, "vit-gpt2": save_vit_gpt2}
