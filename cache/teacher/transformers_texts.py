"""The text side of transformers' CLIP and SigLIP: of a whole model, and of the tower that a cache keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from cache.runtime.errors import UserError
from cache.runtime.hub_models import check_installed, import_transformers
from cache.teacher.folder_tokenizer import FolderTokenizer, load_folder_tokenizer
from cache.teacher.text_side import Kept
from cache.teacher.transformers_config import Architecture, architecture_of, check_size


class Tower(nn.Module):
    """Tokens [T, L] -> raw embeddings [T, D]; its parts are named as they are in a whole model."""

    def __init__(self, text_model: nn.Module, text_projection: nn.Module | None) -> None:
        super().__init__()
        self.text_model = text_model
        if text_projection is not None:  # of SigLIP it is a part of the tower
            self.text_projection = text_projection

    def forward(self, tokens_TL: Tensor) -> Tensor:
        """Embed them without a mask: SigLIP learnt with its padding, and CLIP does not look ahead."""
        pooled: Tensor = self.text_model(input_ids=tokens_TL).pooler_output
        return self.text_projection(pooled) if hasattr(self, "text_projection") else pooled


@dataclass(frozen=True, kw_only=True)
class TransformersTexts:
    """A text tower of transformers and its tokenizer."""

    network: Tower
    tokenizer: FolderTokenizer
    architecture: Architecture

    @classmethod
    def of_model(cls, model: Any, tokenizer: FolderTokenizer, architecture: Architecture) -> Self:
        """Return the text side of a whole model."""
        network = Tower(model.text_model, getattr(model, "text_projection", None))
        return cls(network=network, tokenizer=tokenizer, architecture=architecture)

    @classmethod
    def of_kept(cls, config: dict[str, Any], weights: dict[str, Tensor], *, folder: Path) -> Self:
        """Return a kept tower, frozen in float32, with the tokenizer in ``folder``; no image tower is built.

        Raises
        ------
        RuntimeError
            If config and weights do not fit each other.
        UserError
            If the config asks for another tower than :meth:`kept` gives, or for too much, or what the
            tokenizer says is no longer what the tower learnt with.
        """
        check_installed(f"the text tower in {folder}")
        transformers = import_transformers()
        made = architecture_of(config, where=f"{folder}/config.json")
        held = sum(value.nbytes for value in weights.values())
        check_size((made.text,), held, weights=f"in {folder}", where="its config")
        if made.model_type == "clip":
            text: Any = transformers.CLIPTextModel(made.config().text_config)
            width = made.text["hidden_size"]
            projection = nn.Linear(width, made.projection_dim or width, bias=False)
            network = Tower(getattr(text, "text_model", text), projection)
        else:
            text = transformers.SiglipTextModel(made.config().text_config)
            network = Tower(getattr(text, "text_model", text), None)
        network.load_state_dict({key: value.float() for key, value in weights.items()})
        tokenizer = tokenizer_of(folder, made)
        if config.get("tokenizer") != tokenizer.sha256:
            raise UserError(
                f"the tokenizer in {folder} reads texts otherwise than when the text tower was kept",
                fix="install the transformers that 'distill cache info --json' names.",
            )
        network.eval().requires_grad_(False)
        return cls(network=network, tokenizer=tokenizer, architecture=made)

    @property
    def context_length(self) -> int:
        """How many tokens of a text it takes at most."""
        return self.tokenizer.context_length

    @property
    def token_embedding(self) -> nn.Module:
        """The layer that gives tokens their vectors."""
        return self.network.text_model.embeddings.token_embedding  # type: ignore[union-attr, return-value]

    @property
    def width(self) -> int:
        """The size of such a vector."""
        return int(self.architecture.text["hidden_size"])

    @property
    def lead(self) -> int:
        """How many tokens of every text stand before its own: CLIP's first one, and none of SigLIP."""
        return self.tokenizer.lead

    def tokens(self, texts: Sequence[str], *, room: int = 0) -> tuple[Tensor, Tensor]:
        """Return the tokens [T, L] of texts, and how many of each count: to CLIP's end, of SigLIP all.

        ``room`` more stand for nothing after the first :attr:`lead`.
        """
        tokens = self.tokenizer.with_room(texts, room)
        whole = torch.full((len(tokens),), tokens.shape[1])
        if self.architecture.model_type != "clip":
            return tokens, whole
        end_id = self.architecture.text["eos_token_id"]
        if end_id == 2:  # as older configs have it, and mean the highest of all
            return tokens, tokens.argmax(dim=1) + 1
        end = tokens == end_id
        return tokens, torch.where(end.any(dim=1), end.int().argmax(dim=1) + 1, whole)

    def embed(self, tokens_TL: Tensor) -> Tensor:
        """Return raw embeddings [T, D] of tokens cut to any length that counts."""
        embedded: Tensor = self.network(tokens_TL.to(next(self.network.parameters()).device))
        return embedded

    def is_too_long(self, text: str) -> bool:
        """Say whether a text is cut to fit the context."""
        return len(self.tokenizer.whole(text)) > self.context_length

    def check_kept(self) -> None:
        """Do nothing: a cache can keep every such tower."""

    def kept(self) -> Kept:
        """Return what :meth:`of_kept` makes a text tower of."""
        weights = {key: value.detach().cpu().contiguous() for key, value in self.network.state_dict().items()}
        config = self.architecture.as_config() | {"tokenizer": self.tokenizer.sha256}
        return Kept(config=config, weights=weights, files=self.tokenizer.files)


def tokenizer_of(folder: Path, architecture: Architecture) -> FolderTokenizer:
    """Return the tokenizer in a folder, cut as a text tower takes it; UserError if there is none."""
    text = architecture.text
    return load_folder_tokenizer(
        folder, context_length=text["max_position_embeddings"], vocab_size=text["vocab_size"]
    )
