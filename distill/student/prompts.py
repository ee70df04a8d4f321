"""Prompt learning: context vectors trained through the frozen text tower, in place of a fixed prompt.

CoOp (Zhou et al., arXiv 2109.01134) learns ``n_ctx`` vectors before ``NAME.``; CoCoOp (arXiv 2203.05557)
adds a shift that a small net reads off each image's embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cache import EmbeddingCache
from cache.runtime.atomic_files import digest
from cache.runtime.errors import CacheMismatch, UserError, WrongOption
from cache.runtime.own_code import own_code_in
from cache.sources.class_texts import LABEL_TEMPLATE
from cache.sources.names import is_plain_name
from cache.store.manifest_lines import ListedBank
from cache.store.spec import TIMM
from cache.store.text_banks import TextBank, add_bank, make_bank
from cache.teacher.text_tower import KEEP, TextTower
from distill.checkpoint import read_checkpoint
from distill.config import PromptConfig
from distill.record.run_files import LAST
from distill.settings import from_toml

INIT_STD = 0.02
META_REDUCTION = 16
# Texts that go through the tower at once; more are recomputed in the backward pass instead of kept.
TEXTS_AT_ONCE = 256


class PromptLearner(nn.Module):
    """The learnt context: ``n_ctx`` vectors of the text tower's width W, drawn from N(0, 0.02).

    With ``embed_dim`` (CoCoOp) a two-layer net of width D / 16 shifts all of them for each image.
    """

    def __init__(self, n_ctx: int, width: int, *, embed_dim: int | None = None) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.empty(n_ctx, width).normal_(std=INIT_STD))
        self.meta_net: nn.Module | None = None
        if embed_dim is not None:
            hidden = max(1, embed_dim // META_REDUCTION)
            self.meta_net = nn.Sequential(nn.Linear(embed_dim, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, images_BD: Tensor) -> Tensor:
        """Return the context [n_ctx, W], or for CoCoOp one an image, [B, n_ctx, W]."""
        if self.meta_net is None:
            return self.context
        return self.context + self.meta_net(F.normalize(images_BD.float(), dim=1)).unsqueeze(1)


class LearntTexts:
    """Class texts made of a learnt context and the class's own words; see :class:`PromptLearner`."""

    def __init__(self, tower: TextTower, learner: PromptLearner, words: dict[str, str]) -> None:
        """``words`` gives the words of each class folder; a full stop is put after them."""
        self.tower, self.learner, self.words = tower, learner, words
        self._tokens: dict[tuple[str, ...], Tensor] = {}

    @property
    def per_image(self) -> bool:
        """Whether every image has texts of its own."""
        return self.learner.meta_net is not None

    def __call__(self, class_names: Sequence[str], images_BD: Tensor) -> Tensor:
        """Return raw embeddings [C, D], or with CoCoOp [B, C, D] for these image embeddings."""
        tokens = self._tokens_of(tuple(class_names))
        contexts = self.learner(images_BD)
        if not self.per_image:
            return self._embed(tokens, contexts)
        many = tokens.repeat(len(contexts), 1)
        embedded = self._embed(many, contexts.repeat_interleave(len(tokens), dim=0))
        return embedded.view(len(contexts), len(tokens), -1)

    def _tokens_of(self, class_names: tuple[str, ...]) -> Tensor:
        if class_names not in self._tokens:
            texts = [f"{self.words[name]}." for name in class_names]
            self._tokens[class_names] = self.tower.tokens(texts, n_ctx=len(self.learner.context))
        return self._tokens[class_names]

    def _embed(self, tokens: Tensor, contexts: Tensor) -> Tensor:
        if len(tokens) <= TEXTS_AT_ONCE:
            return self.tower.embed(tokens, contexts)
        embedded = []
        for start in range(0, len(tokens), TEXTS_AT_ONCE):
            some = slice(start, start + TEXTS_AT_ONCE)
            own: Any = contexts[some] if contexts.dim() == 3 else contexts
            embedded.append(checkpoint(self.tower.embed, tokens[some], own, use_reentrant=False))
        return torch.cat(embedded)


def open_texts(
    cache: EmbeddingCache, config: PromptConfig, *, text: str, seed: int, device: torch.device
) -> LearntTexts:
    """Return a new prompt learner over a cache's text tower; ``seed`` decides its first vectors.

    UserError if the cache keeps no text tower, or the bank ``text`` is not of the form ``a photo of ...``.
    """
    tower = open_tower(cache, device)
    torch.manual_seed(seed)
    embed_dim = cache.embed_dim if config.learner == "cocoop" else None
    learner = PromptLearner(config.n_ctx, tower.width, embed_dim=embed_dim).to(device)
    return LearntTexts(tower, learner, class_words(cache, text))


def open_tower(cache: EmbeddingCache, device: torch.device) -> TextTower:
    """Return the text tower of a cache's teacher, through which prompts are learnt; UserError without one."""
    model = cache.teacher_spec.model
    kept = own_code_in(model) is None and not model.startswith(TIMM) and not cache.is_imported
    whose = "an imported cache has none" if cache.is_imported else f"no cache keeps one of {model}"
    fix = KEEP if kept else f"{whose}: learn no prompts from it (leave --prompts out)."
    return TextTower.load(cache.path, files=cache.text_tower, device=device, fix=fix)


def class_words(cache: EmbeddingCache, bank: str) -> dict[str, str]:
    """Return ``{class folder: its words}`` of a bank of ``a photo of ...`` texts, without that beginning."""
    texts = cache.text_bank(bank)
    prefix = LABEL_TEMPLATE.format("")
    words = {}
    for text, index in zip(texts.texts, texts.class_index, strict=True):
        folder = texts.class_folders[index] if index >= 0 else None
        if folder is None or folder in words or not text.startswith(prefix):
            raise UserError(
                f"no prompt can be learnt for the bank {bank!r}: not one {prefix.strip()!r} text a class",
                fix="use --text labels or --text descriptions.",
            )
        words[folder] = text.removeprefix(prefix)
    return words


def learnt_bank(learnt: LearntTexts, bank: str) -> tuple[TextBank, dict[str, Any]]:
    """Return the class texts of a learnt context as a text bank, and what its line says about it."""
    folders, count = tuple(learnt.words), len(learnt.learner.context)
    with torch.no_grad():
        rows = learnt(folders, torch.empty(0))
    texts = [f"[{count} learnt] {learnt.words[folder]}." for folder in folders]
    return make_bank(bank, texts, folders, rows.cpu().numpy()), {"templates": (f"[{count} learnt] {{}}.",)}


def export_prompts(
    run: Path, cache_dir: Path, *, bank: str, replaces: bool = False
) -> tuple[ListedBank, str]:
    """Add what a run learnt as a text bank to a cache; return its line, and the teacher's name.

    Any student of that teacher can be trained on it.

    UserError if the run learnt no prompts, or such as depend on the image (CoCoOp), or the cache is of
    another teacher or has another bank of that name.
    """
    if not is_plain_name(bank):
        raise WrongOption(f"--bank {bank!r} cannot name a file", fix="use letters, digits, '.', '_' and '-'.")
    state = read_checkpoint(run / LAST)
    config = from_toml(state["config"], where=str(run))
    if config.prompts.learner == "none":
        raise UserError(f"{run} learnt no prompts", fix="train with --prompts coop.")
    cache = EmbeddingCache.open(cache_dir).teacher_cache(config.teachers[0])
    if cache.fingerprint != state["fingerprint"]:
        raise CacheMismatch(
            f"{run} was trained with the cache {state['fingerprint']}, {cache.path} is {cache.fingerprint}",
            fix="give a cache of the run's own teacher.",
        )
    learnt = open_texts(
        cache, config.prompts, text=config.text, seed=config.train.seed, device=torch.device("cpu")
    )
    learnt.learner.load_state_dict(state["prompts"])
    if learnt.per_image:
        raise UserError(
            "CoCoOp's texts are different for every image and make no bank", fix="learn with --prompts coop."
        )
    weights = sha256(b"".join(value.numpy().tobytes() for value in state["prompts"].values())).hexdigest()
    listed = add_bank(
        cache.path,
        bank,
        lambda: learnt_bank(learnt, bank),
        made_from=digest([weights, list(learnt.words.items())]),
        replaces=replaces,
        teacher=cache.teacher_name,
    )
    return listed, cache.teacher_name
