"""The texts of the objects of episodes: positive and negative prompts, with descriptions where given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cache.runtime.errors import UserError
from cache.sources.class_texts import DESCRIPTIONS, BankTexts, Descriptions, read_descriptions
from cache.sources.episodes import EpisodeFolder, object_name

NEGATIVES = "chatgpt_negative.txt"
# Where the names of the banks of negative texts begin.
NEGATIVE = "negative_"
POSITIVE_TEMPLATE = "You can find a {} in this image, except a robot arm."
NEGATIVE_TEMPLATE = "You cannot find a {} in this image, except a robot arm."
ORDER = "the order of the objects: ID ones sorted, then OOD ones sorted"
# Where the description goes in the template of a bank with descriptions.
DESCRIBED = "{} {{}}"


def episode_banks(
    folder: EpisodeFolder,
    *,
    template: str = POSITIVE_TEMPLATE,
    negative_template: str = NEGATIVE_TEMPLATE,
    descriptions: Path | None = None,
    negative_descriptions: Path | None = None,
) -> list[BankTexts]:
    """Return the text banks of the objects: ``labels`` and ``negative_labels``, and with descriptions more.

    ``descriptions`` are the positive prompt and a description; ``negative_descriptions`` the negative prompt
    and a negative description. Files left None are looked for in the folder. A negative prompt may name no
    object.

    Raises
    ------
    UserError
        If a file of descriptions has not one line an object, or a template no place for the name.
    """
    if template.count("{}") != 1:
        raise UserError(
            f"--template {template!r} has no single {{}} where the object's name goes",
            fix=f"write it like {POSITIVE_TEMPLATE!r}.",
        )
    if negative_template.count("{}") > 1:
        raise UserError(
            f"--negative-template {negative_template!r} has several {{}}",
            fix=f"write it like {NEGATIVE_TEMPLATE!r}.",
        )
    names = {name: object_name(name) for name in folder.class_names}
    banks = [
        _bank("labels", names, template, None),
        # Each object's negative prompt is weighed against its positive one alone, and may name no object.
        replace(_bank(f"{NEGATIVE}labels", names, negative_template, None), may_tie=True),
    ]
    for given, file, bank, prompt in (
        (descriptions, DESCRIPTIONS, "descriptions", template),
        (negative_descriptions, NEGATIVES, f"{NEGATIVE}descriptions", negative_template),
    ):
        path = given or folder.path / file
        if given or path.is_file():
            described = _bank(bank, names, prompt, read_descriptions(path, names, order=ORDER))
            banks.append(replace(described, may_tie=file == NEGATIVES))
    return banks


def _bank(bank: str, names: Mapping[str, str], template: str, descriptions: Descriptions | None) -> BankTexts:
    line_of = descriptions.of_class if descriptions else {}
    texts = [f"{template.replace('{}', name)} {line_of.get(key, '')}".strip() for key, name in names.items()]
    return BankTexts(
        name=bank,
        texts=tuple(texts),
        classes=tuple(names),
        templates=(DESCRIBED.format(template) if descriptions else template,),
        source=descriptions.source if descriptions else "the objects' names",
        lines=tuple(line_of.values()) if descriptions and descriptions.by_position else (),
    )


def prompt_of(bank_template: str, name: str, *, described: bool) -> str:
    """Return the prompt before the description in a bank of that template, for an object's name."""
    template = bank_template.removesuffix(" {}") if described else bank_template
    return template.replace("{}", name)
