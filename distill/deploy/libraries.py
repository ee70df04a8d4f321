"""What other libraries load by a model's folder: refused before any work, or written and loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from distill.deploy.check import Prepare, Written
from distill.deploy.check_embeddings import EmbeddingCheck
from distill.deploy.check_loaded import nearness
from distill.deploy.check_photos import PhotoCheck
from distill.deploy.info import ModelInfo
from distill.deploy.models import embed_with
from distill.deploy.onnx_files import UnitEmbedding
from distill.deploy.snippets import TFLITE_FILE
from distill.deploy.timm_student import (
    LEAVE_OUT,
    LIBRARIES,
    OPEN_CLIP,
    TFLITE,
    TimmStudent,
    check_head,
    timm_student,
)
from distill.student.names import TIMM

# Class texts that the kept text tower is asked for.
TEXTS = 64


@dataclass(frozen=True, kw_only=True)
class Libraries:
    """The libraries that a student is written for; ``student`` is timm's network, where one takes that."""

    formats: tuple[str, ...]
    embedding: UnitEmbedding
    student: TimmStudent | None

    @classmethod
    def of(
        cls, embedding: UnitEmbedding, info: ModelInfo, formats: Sequence[str], cache: EmbeddingCache
    ) -> Libraries:
        """Take those of some formats; UserError where one of them cannot hold the student."""
        them = tuple(name for name in LIBRARIES if name in formats)
        if TFLITE in formats:
            _check_tflite(info)
        if not them:
            return cls(formats=tuple(formats), embedding=embedding, student=None)
        if OPEN_CLIP in them:
            _tell_all(info, them, cache)
        student = timm_student(embedding, info, them)
        if TIMM in them and "safetensors" in formats and info.outputs != info.embed_dim:
            raise UserError(
                "safetensors and timm are both model.safetensors, and of a student of several teachers they "
                "differ",
                fix="leave one of them out of --formats.",
            )
        if OPEN_CLIP in them:
            from distill.deploy.open_clip_folder import check_open_clip

            check_open_clip(student, info, cache)
        return cls(formats=tuple(formats), embedding=embedding, student=student)

    def written(
        self, folder: Path, info: ModelInfo, cache: EmbeddingCache, check: PhotoCheck | EmbeddingCheck
    ) -> Iterator[Written]:
        """Write them into a model's folder, one after the other, each loaded by its library."""
        if TIMM in self.formats:
            yield self._timm(folder, info)
        if OPEN_CLIP in self.formats:
            yield self._open_clip(folder, info, cache, check)
        if TFLITE in self.formats:
            from distill.deploy.tflite_file import write_tflite

            path = folder / TFLITE_FILE
            yield Written(
                name=TFLITE, path=path, embed=write_tflite(path, self.embedding, info.preprocessing)
            )

    def _timm(self, folder: Path, info: ModelInfo) -> Written:
        from distill.deploy.timm_folder import write_timm

        assert self.student is not None
        network, prepare = write_timm(folder, self.student, info)
        embed = embed_with(UnitEmbedding(network))
        return Written(name=TIMM, path=folder / "model.safetensors", embed=embed, prepare=prepare)

    def _open_clip(
        self, folder: Path, info: ModelInfo, cache: EmbeddingCache, check: PhotoCheck | EmbeddingCheck
    ) -> Written:
        # Here, because open_clip takes seconds to import.
        from distill.deploy.open_clip_folder import CLIP_WEIGHTS, StudentClip, check_texts, write_open_clip

        assert self.student is not None

        def loaded(clip: StudentClip) -> Written:
            prepare: Prepare = clip.prepare
            return Written(name=OPEN_CLIP, path=folder / CLIP_WEIGHTS, embed=clip.embed, prepare=prepare)

        clip = write_open_clip(
            folder, self.student, info, cache, nearest=lambda one: nearness(loaded(one), check.judged)
        )
        bank = cache.text_bank("labels" if "labels" in cache.bank_names else info.bank)
        cosine = check_texts(clip, bank.texts[:TEXTS], bank.embeddings[:TEXTS])
        return replace(loaded(clip), more={"texts_cosine": cosine})


def _tell_all(info: ModelInfo, them: Sequence[str], cache: EmbeddingCache) -> None:
    """Refuse a student that open_clip cannot hold with all the reasons at once; UserError."""
    from distill.deploy.open_clip_folder import check_space, check_tower

    found: list[UserError] = []
    for check in (partial(check_head, info, them), partial(check_space, info), partial(check_tower, cache)):
        try:
            check()
        except UserError as error:
            found.append(error)
    if len(found) < 2:  # said where it is met
        return
    fixes = [error.fix.partition(", or leave")[0] for error in found]
    raise UserError(
        "; ".join(error.problem for error in found),
        fix=f"{'; '.join(fixes)}; or {LEAVE_OUT.format(' and '.join(them))}.",
    )


def _check_tflite(info: ModelInfo) -> None:
    from distill.deploy.tflite_file import import_litert

    if info.objects is not None:
        raise UserError(
            "tflite holds students of photos, and this one is of episodes",
            fix="leave tflite out of --formats.",
        )
    import_litert()
