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
from cache.runtime.progress import Progress
from cache.sources.splits import MAIN_TEACHER
from cache.store.manifest_lines import ListedFile
from cache.store.read_errors import READ_ERRORS
from cache.teacher.text_side import BATCH, Kept, KeptTexts, embedded_texts, token_ids, without_padding

FOLDER, WEIGHTS, CONFIG = "text_tower", "text.safetensors", "config.json"
KEEP = "run the same cache-features command again with --keep-text-tower."


def save_text_tower(cache: Path, kept: Kept, *, teacher: str = MAIN_TEACHER) -> tuple[ListedFile, ...]:
    """Write a teacher's text tower into a cache folder; return the manifest's lines for its files."""
    folder = FOLDER if teacher == MAIN_TEACHER else f"{teacher}.{FOLDER}"
    with replacing(cache / folder / WEIGHTS) as temporary:
        temporary.write_bytes(save(kept.weights))  # save_file's can be read by their owner alone
    write_json(cache / folder / CONFIG, kept.config)
    for file in kept.files:
        with replacing(cache / folder / file.name) as temporary:
            temporary.write_bytes(file.read_bytes())
    names = (WEIGHTS, CONFIG, *(file.name for file in kept.files))
    return tuple(ListedFile.of(cache, f"{folder}/{name}") for name in names)


def is_of_transformers(config: dict[str, Any]) -> bool:
    """Say whether a kept tower is one of transformers' by its config; else it is of open_clip."""
    return "model_type" in config


def read_tower_config(folder: Path) -> dict[str, Any]:
    """Return the config of a kept tower; raises as a file that is missing or damaged does."""
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return config


@dataclass(frozen=True, kw_only=True)
class TextTower:
    """A frozen text tower: T texts -> embeddings [T, D], with learnt vectors in the place of some tokens.

    ``config`` is what it was built by, of open_clip's its ``text_cfg`` among it.
    """

    config: dict[str, Any]
    side: KeptTexts

    @classmethod
    def load(
        cls,
        cache: Path,
        *,
        files: Sequence[ListedFile],
        device: torch.device | str = "cpu",
        fix: str = KEEP,
    ) -> TextTower:
        """Read the text tower of a cache that ``files`` list, after a look at their checksums.

        ``fix`` is what to do where it keeps none.

        Raises
        ------
        UserError
            If it keeps none, or its files are damaged.
        """
        if not files:
            raise UserError(f"the cache {cache} does not keep its teacher's text tower", fix=fix)
        folder = (cache / files[0].file).parent
        try:
            for file in files:
                if sha256_of(cache / file.file) != file.sha256:
                    raise ValueError(f"{file.file} differs from its checksum")
            config = read_tower_config(folder)
            side = _built(config, load_file(folder / WEIGHTS), folder)
        except (*READ_ERRORS, SafetensorError) as error:
            problem = f"the text tower in {folder} is damaged ({reason_of(error)})"
            raise UserError(problem, fix=KEEP) from error
        side.network.to(device)
        return cls(config=config, side=side)

    @property
    def network(self) -> nn.Module:
        """The tower itself."""
        return self.side.network

    @property
    def width(self) -> int:
        """The size of a token's vector, which a learnt one has too."""
        return self.side.width

    @property
    def context_length(self) -> int:
        """How many tokens it reads at most."""
        return self.side.context_length

    @torch.no_grad()
    def embed_texts(
        self, texts: Sequence[str], *, batch_size: int = BATCH, progress: Progress | None = None
    ) -> tuple[Tensor, int]:
        """Return raw embeddings [T, D] float32 on the CPU, in the order given, and how many were cut.

        They are those of the teacher in float32, but for rounding.
        """
        return embedded_texts(self.side, texts, batch_size=batch_size, progress=progress)

    def token_ids(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return what is read of each text: its tokens, cut to the context."""
        return token_ids(self.side, texts)

    def tokens(self, texts: Sequence[str], *, n_ctx: int = 0) -> Tensor:
        """Return the tokens [T, L] of texts with room for ``n_ctx`` learnt vectors after what begins each.

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
        device = next(self.network.parameters()).device
        return without_padding(*self.side.tokens(texts, room=n_ctx)).to(device)

    def embed(self, tokens: Tensor, contexts: Tensor | None = None) -> Tensor:
        """Return raw embeddings [T, D] of tokens [T, L].

        ``contexts`` [n, W] or [T, n, W] stand in for the token embeddings where :meth:`tokens` made
        room. Everything else is the tower's own forward.
        """
        lead = self.side.lead

        def put(module: nn.Module, given: Any, embedded: Tensor) -> Tensor:
            del module, given
            if contexts is None:
                return embedded
            learnt = contexts.expand(len(embedded), -1, -1)
            return torch.cat([embedded[:, :lead], learnt, embedded[:, lead + learnt.shape[1] :]], dim=1)

        hook = self.side.token_embedding.register_forward_hook(put)
        try:
            return self.side.embed(tokens)
        finally:
            hook.remove()


def _built(config: dict[str, Any], weights: dict[str, Tensor], folder: Path) -> KeptTexts:
    """Return the tower of a kept config, by the library that it is of, with the tokenizer in its folder."""
    # Here, because either takes seconds to import and plain training does without them.
    if is_of_transformers(config):
        from cache.teacher.transformers_texts import TransformersTexts

        return TransformersTexts.of_kept(config, weights, folder=folder)
    from cache.teacher.open_clip_texts import OpenClipTexts

    return OpenClipTexts.of_kept(config, weights, folder=folder)
