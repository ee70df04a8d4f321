"""A student's heads with texts of classes that its run never had."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cache.build.add_texts import given_teacher
from cache.build.distinct_texts import check_told_apart
from cache.build.text_banks import TextEncoder, embedded_bank
from cache.reader import EmbeddingCache
from cache.runtime.errors import UserError, WrongOption, some_of
from cache.sources.class_texts import LABEL_TEMPLATE, template_bank
from cache.teacher.templates import templates_of
from cache.teacher.text_tower import TextTower
from distill.judge.trained_run import TrainedRun
from distill.student.heads import Head
from distill.student.prompts import LearntTexts
from distill.student.texts import FixedTexts


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What says classes in words.

    Where none of this is given they have the texts of the run's bank if that has them all, else their names
    in its templates. Names are those of ``label2text``, else of the file of that name beside the images, else
    those that the cache was told, else the classes' own. They go through the text tower that the cache keeps,
    or through that of ``teacher_model``. ``bank_alone``: the bank, or nothing.
    """

    label2text: Path | None = None
    templates: tuple[str, ...] = ()
    teacher_model: str | None = None
    pretrained: str | None = None
    bank_alone: bool = False

    def __post_init__(self) -> None:
        if self.pretrained is not None and self.teacher_model is None:
            raise WrongOption("--pretrained is of --teacher-model", fix="give that too, or leave it out.")
        if self.bank_alone and (self.label2text or self.templates or self.teacher_model):
            raise WrongOption(
                "--text takes a bank's own texts",
                fix="leave it out, or --template, --label2text and --teacher-model.",
            )

    @property
    def from_bank(self) -> bool:
        """Whether nothing speaks against the texts of a bank."""
        return not (self.label2text or self.templates or self.teacher_model)


AS_THE_RUN = Wording()


def told_by(
    trained: TrainedRun, names: Mapping[str, str], wording: Wording, *, note: Callable[[str], object]
) -> list[tuple[Head, str]]:
    """Return a run's heads with texts of the classes ``{class: its name}``, and what these are in words.

    A head whose teacher embeds no text here is left out, and ``note`` told why.

    Raises
    ------
    UserError
        If that is every head; two classes have one text; or the teacher that is named is no head's.
    """
    heads: list[tuple[Head, str]] = []
    errors: list[tuple[Head, UserError]] = []
    for head in trained.heads:
        try:
            heads.append(_told(trained, head, names, wording))
        except UserError as error:
            errors.append((head, error))
    if not heads:
        raise errors[0][1]
    for head, why in errors:
        note(f"the head of the teacher {head.name!r} is not judged: {why.problem}")
    return heads


def _told(trained: TrainedRun, head: Head, names: Mapping[str, str], wording: Wording) -> tuple[Head, str]:
    cache, bank, texts = head.cache, trained.config.text, head.texts
    there = {*cache.text_bank(bank).class_folders}
    lacking = [name for name in names if name not in there]
    if wording.bank_alone and lacking:
        cache.text_bank(bank).class_texts([*names])  # says which
    if wording.from_bank and not lacking:
        learnt = "" if texts.learner is None else "learnt prompts and "
        return head, f"{learnt}the text bank {bank!r}"
    if isinstance(texts, LearntTexts) and wording.from_bank:
        return replace(head, texts=LearntTexts(texts.tower, texts.learner, dict(names))), (
            "learnt prompts and their names"
        )
    templates = templates_of(wording.templates) or name_templates(cache, bank)
    own = template_bank(bank, names, templates)
    check_told_apart(own, [[*names]])
    encoder = _encoder(trained, cache, wording, lacking)
    check_told_apart(own, [[*names]], tokens=encoder.token_ids)
    made, _ = embedded_bank(own, encoder)
    shown = repr(templates[0]) if len(templates) == 1 else f"{len(templates)} templates"
    return replace(head, texts=FixedTexts(made, trained.model.device)), f"their names in {shown}"


def _encoder(trained: TrainedRun, cache: EmbeddingCache, wording: Wording, lacking: list[str]) -> TextEncoder:
    """Return what embeds texts as a cache's teacher does; UserError where nothing does."""
    device = trained.model.device
    if wording.teacher_model is not None:
        return given_teacher(cache, wording.teacher_model, wording.pretrained, device)
    if not cache.text_tower:
        bank = f"the text bank {trained.config.text!r} has no text of {some_of(lacking)}, and "
        raise UserError(
            f"{bank if lacking else ''}the cache {cache.path} keeps no text tower to embed names with",
            fix="give the teacher with --teacher-model, or run cache-features again with --keep-text-tower.",
        )
    return TextTower.load(cache.path, files=cache.text_tower, device=device)


def name_templates(cache: EmbeddingCache, bank: str) -> tuple[str, ...]:
    """Return the templates that a bank was made with, where they take a name alone; else the usual one."""
    made_with = tuple(cache.listed_bank(bank).templates) if bank in cache.bank_names else ()
    takes_names = made_with and all(template.count("{}") == 1 and template != "{}" for template in made_with)
    return made_with if takes_names else (LABEL_TEMPLATE,)
