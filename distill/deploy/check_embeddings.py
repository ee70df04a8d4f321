"""What a file does beside its student where there are no texts to classify by: its embeddings alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distill.deploy.check import Judged, Written, distances, embedded, with_compared
from distill.deploy.info import ModelInfo


@dataclass(frozen=True, kw_only=True)
class EmbeddingCheck:
    """What the files of a student without texts are compared with: its embeddings of some images."""

    judged: Mapping[str, Judged]

    def measured(self, info: ModelInfo, file: Written) -> ModelInfo:
        """Return ``info`` with how near a file's embeddings are to the student's."""
        tests = {split: part for split, part in self.judged.items() if split != "id_val"} or self.judged
        splits = {}
        for split, part in tests.items():
            rows = embedded(part.split, info.preprocessing, file.embed, where=file.where)
            splits[split] = {"images": len(rows), "of": part.of, **distances(part, rows)}
        return with_compared(info, file, splits, 0)
