"""A teacher's text tower in the cache, for prompt learning and more texts: its weights and config.

They lie in ``text_tower/``, of an added teacher in ``NAME.text_tower/``. The image tower is not in it, and is
never built when it is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from cache.runtime.atomic_files import replacing, sha256_of, write_json
from cache.runtime.errors import UserError, reason_of
from cache.sources.splits import MAIN_TEACHER
from cache.store.manifest_lines import ListedFile
from cache.store.read_errors import READ_ERRORS

FOLDER, WEIGHTS, CONFIG = "text_tower", "text.safetensors", "config.json"
PLACEHOLDER = "X"
KEEP = "run the same cache-features command again with --keep-text-tower."


def save_text_tower(
    cache: Path, config: dict[str, Any], weights: dict[str, Tensor], *, teacher: str = MAIN_TEACHER
) -> tuple[ListedFile, ...]:
    """Write a teacher's text tower into a cache folder; return the manifest's lines for its files."""
    folder = FOLDER if teacher == MAIN_TEACHER else f"{teacher}.{FOLDER}"
    with replacing(cache / folder / WEIGHTS) as temporary:
        temporary.write_bytes(save(weights))  # save_file's can be read by their owner alone
    write_json(cache / folder / CONFIG, config)
    return tuple(ListedFile.of(cache, f"{folder}/{name}") for name in (WEIGHTS, CONFIG))


@dataclass(frozen=True, kw_only=True)
class TextTower:
    """A frozen text tower: T texts -> embeddings [T, D], with learnt vectors in the place of some tokens.

    ``config`` is what it was built by, open_clip's ``text_cfg`` among it.
    """

    config: dict[str, Any]
    network: nn.Module
    tokenizer: Any
    width: int
    context_length: int

    @classmethod
    def load(
        cls, cache: Path, *, files: Sequence[ListedFile], device: torch.device | str = "cpu"
    ) -> TextTower:
        """Read the text tower of a cache that ``files`` list, after a look at their checksums.

        Raises
        ------
        UserError
            If it keeps none, or its files are damaged.
        """
        if not files:
            raise UserError(f"the cache {cache} does not keep its teacher's text tower", fix=KEEP)
        # Here, because open_clip takes seconds to import and plain training does without it.
        from cache.teacher.text_network import build_text_network

        folder = (cache / files[0].file).parent
        try:
            for file in files:
                if sha256_of(cache / file.file) != file.sha256:
                    raise ValueError(f"{file.file} differs from its checksum")
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            network, tokenizer = build_text_network(config, load_file(folder / WEIGHTS))
        except (*READ_ERRORS, SafetensorError) as error:
            problem = f"the text tower in {folder} is damaged ({reason_of(error)})"
            raise UserError(problem, fix=KEEP) from error
        return cls(
            config=config,
            network=network.to(device),
            tokenizer=tokenizer,
            width=network.token_embedding.weight.shape[1],  # type: ignore[union-attr, index, arg-type]
            context_length=int(tokenizer.context_length),
        )

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str], *, batch_size: int = 256) -> tuple[Tensor, int]:
        """Return raw embeddings [T, D] float32 on the CPU, in the order given, and how many were cut.

        They are those of the teacher in float32, but for rounding.
        """
        # In order of length, so that little of a batch is padding.
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i]))
        batches = []
        for start in range(0, len(order), batch_size):
            some = [texts[i] for i in order[start : start + batch_size]]
            batches.append(self.embed(self.tokens(some)).float().cpu())
        rows = torch.cat(batches)
        cut = sum(len(self.tokenizer.encode(text)) + 2 > self.context_length for text in texts)
        return rows[torch.tensor(order).argsort()], cut

    def tokens(self, texts: Sequence[str], *, n_ctx: int = 0) -> Tensor:
        """Return the tokens [T, L] of texts with room for ``n_ctx`` learnt vectors at places 1 to n_ctx.

        L is the context length, or less where the texts are short and the tower looks only back.

        Raises
        ------
        UserError
            If the learnt vectors leave no room for words.
        """
        if n_ctx > self.context_length - 4:
            raise UserError(
                f"prompts.n_ctx is {n_ctx}, but the teacher reads {self.context_length} tokens",
                fix=f"give at most {self.context_length - 4}.",
            )
        room = f"{PLACEHOLDER} " * n_ctx
        tokens = self.tokenizer([room + text for text in texts])
        device = next(self.network.parameters()).device
        return tokens[:, : self._needed(tokens)].to(device)

    def _needed(self, tokens: Tensor) -> int:
        # In a causal tower what stands behind the last token changes nothing, and 77 places for 12 tokens
        # would be six times the work.
        network: Any = self.network
        causal = network.attn_mask is not None and network.cls_emb is None and not network.use_pad_mask
        if not causal or network.pool_type not in ("argmax", "eos"):
            return int(tokens.shape[1])
        return int((tokens != network.pad_id).nonzero()[:, 1].max()) + 1

    def embed(self, tokens: Tensor, contexts: Tensor | None = None) -> Tensor:
        """Return raw embeddings [T, D] of tokens [T, L].

        ``contexts`` [n, W] or [T, n, W] stand in for the token embeddings at places 1 to n. Everything
        else is the tower's own forward.
        """
        network: Any = self.network

        def put(module: nn.Module, given: Any, embedded: Tensor) -> Tensor:
            del module, given
            if contexts is None:
                return embedded
            learnt = contexts.expand(len(embedded), -1, -1)
            return torch.cat([embedded[:, :1], learnt, embedded[:, 1 + learnt.shape[1] :]], dim=1)

        whole, length = network.attn_mask, tokens.shape[1]
        hook = network.token_embedding.register_forward_hook(put)
        try:
            if whole is not None:
                network.attn_mask = whole[:length, :length]
            return network(tokens)
        finally:
            network.attn_mask = whole
            hook.remove()
