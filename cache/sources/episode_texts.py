"""The texts of the objects of episodes: positive and negative prompts, with descriptions where given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cache.runtime.errors import WrongOption
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
    templates: Sequence[str] = (POSITIVE_TEMPLATE,),
    negative_templates: Sequence[str] = (NEGATIVE_TEMPLATE,),
    descriptions: Path | None = None,
    negative_descriptions: Path | None = None,
) -> list[BankTexts]:
    """Return the text banks of the objects: ``labels`` and ``negative_labels``, and with descriptions more.

    ``descriptions`` are the positive prompt and a description; ``negative_descriptions`` the negative prompt
    and a negative description. Files left None are looked for in the folder. A negative prompt may name no
    object. Of several templates an object has a text of each, whose rows are averaged.

    Raises
    ------
    UserError
        If a file of descriptions has not one line an object, or a template no place for the name.
    """
    for wrong in (one for one in templates if one.count("{}") != 1):
        raise WrongOption(
            f"--template {wrong!r} has no single {{}} where the object's name goes",
            fix=f"write it like {POSITIVE_TEMPLATE!r}.",
        )
    for wrong in (one for one in negative_templates if one.count("{}") > 1):
        raise WrongOption(
            f"--negative-template {wrong!r} has several {{}}",
            fix=f"write it like {NEGATIVE_TEMPLATE!r}.",
        )
    names = {name: object_name(name) for name in folder.class_names}
    banks = [
        _bank("labels", names, templates, None),
        # Each object's negative prompt is weighed against its positive one alone, and may name no object.
        replace(_bank(f"{NEGATIVE}labels", names, negative_templates, None), may_tie=True),
    ]
    for given, file, bank, prompts in (
        (descriptions, DESCRIPTIONS, "descriptions", templates),
        (negative_descriptions, NEGATIVES, f"{NEGATIVE}descriptions", negative_templates),
    ):
        path = given or folder.path / file
        if given or path.is_file():
            described = _bank(bank, names, prompts, read_descriptions(path, names, order=ORDER))
            banks.append(replace(described, may_tie=file == NEGATIVES))
    return banks


def _bank(
    bank: str, names: Mapping[str, str], templates: Sequence[str], descriptions: Descriptions | None
) -> BankTexts:
    line_of = descriptions.of_class if descriptions else {}
    pairs = [(key, template) for key in names for template in templates]
    texts = [
        f"{template.replace('{}', names[key])} {line_of.get(key, '')}".strip() for key, template in pairs
    ]
    return BankTexts(
        name=bank,
        texts=tuple(texts),
        classes=tuple(key for key, _ in pairs),
        templates=tuple(DESCRIBED.format(one) if descriptions else one for one in templates),
        source=descriptions.source if descriptions else "the objects' names",
        lines=tuple(line_of[key] for key, _ in pairs) if descriptions and descriptions.by_position else (),
    )


def prompt_of(bank_template: str, name: str, *, described: bool) -> str:
    """Return the prompt before the description in a bank of that template, for an object's name."""
    template = bank_template.removesuffix(" {}") if described else bank_template
    return template.replace("{}", name)
