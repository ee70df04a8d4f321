"""Teachers whose texts are read by a tokenizer of transformers, of either library."""

from __future__ import annotations

from pathlib import Path

from helpers.teachers import save_clip
from helpers.transformers_models import SAVE, unigram_tokenizer

KINDS = ("clip", "siglip", "open_clip")
# As open_clip has them of SigLIP: a tower that looks both ways, and another's tokenizer in the folder.
SIGLIP_TEXT = {
    **{"context_length": 64, "vocab_size": 200, "hf_tokenizer_name": "some/siglip"},
    **{"tokenizer_kwargs": {"clean": "canonicalize"}, "no_causal_mask": True, "proj_bias": True},
    "pool_type": "last",
}


def save_with_tokenizer(kind: str, folder: Path) -> Path:
    """A CLIP or SigLIP of transformers, or open_clip's SigLIP."""
    if kind != "open_clip":
        return SAVE[kind](folder)
    unigram_tokenizer().save_pretrained(save_clip(folder, custom_text=True, text=SIGLIP_TEXT))
    return folder
