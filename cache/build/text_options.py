"""What ``distill cache add-texts`` can be told of texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cache.runtime.errors import WrongOption
from cache.sources.names import is_plain_name
from cache.sources.splits import MAIN_TEACHER


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """Everything that ``distill cache add-texts`` can be told.

    The texts are lines of ``text_file``, class names in ``templates``, or the lines in the templates. Names
    are those of ``label2text``, or those that the bank ``labels`` was made with. ``teacher`` is whose texts
    they are to be; its kept text tower embeds them, or ``model`` with its weights ``pretrained``.
    ``replaces``: a bank of the name ``bank`` and other texts gives way.
    """

    bank: str
    text_file: Path | None = None
    templates: tuple[str, ...] = ()
    label2text: Path | None = None
    model: str | None = None
    pretrained: str | None = None
    teacher: str = MAIN_TEACHER
    device: str = "auto"
    replaces: bool = False

    def __post_init__(self) -> None:
        if not is_plain_name(self.bank):
            raise WrongOption(
                f"--bank {self.bank!r:.60} cannot name a file", fix="use letters, digits, '.', '_' and '-'."
            )
        if self.text_file is None and not self.templates:
            raise WrongOption(
                "nothing says what the texts are", fix="give --text-file, --template, or both, or --run."
            )
