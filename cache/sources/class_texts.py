"""Class folders -> names -> texts; descriptions; captions. Everything a data folder says in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache.runtime.atomic_files import digest, read_text
from cache.runtime.errors import UserError, WrongOption, nearest_names
from cache.sources.splits import FOLDERS

# What a data folder calls its files of texts.
LABELS, DESCRIPTIONS, CAPTIONS = "label2text.txt", "chatgpt.txt", "captions.jsonl"
LABEL_TEMPLATE = "a photo of {}"
DESCRIPTION_TEMPLATE = "a photo of {} . {}"
# What the original research code gave an image whose caption failed.
MISSING_CAPTION = "a photo"


@dataclass(frozen=True, kw_only=True, slots=True)
class BankTexts:
    """The texts of one bank before they are embedded. ``classes[i]`` is the folder of ``texts[i]``, or ''.

    ``source`` says in words where they come from. ``lines[i]`` is what a file said of the class of
    ``texts[i]`` by its position alone; there are none where the file names its classes. ``may_tie``: classes
    may share a text, because none of these is weighed against another's.
    """

    name: str
    texts: tuple[str, ...]
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    source: str = ""
    lines: tuple[str, ...] = ()
    may_tie: bool = False

    def in_templates(self, templates: Sequence[str]) -> BankTexts:
        """Return the bank of every text in every template."""
        check_templates(templates)
        pairs = [(i, template.format(text)) for i, text in enumerate(self.texts) for template in templates]
        return replace(
            self,
            texts=tuple(text for _, text in pairs),
            classes=tuple(self.classes[i] for i, _ in pairs),
            templates=tuple(templates),
            lines=tuple(self.lines[i] for i, _ in pairs) if self.lines else (),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Descriptions:
    """One description a class folder, from the file ``path``; ``by_position``: its lines name no folder."""

    path: Path
    of_class: Mapping[str, str]
    by_position: bool

    @property
    def source(self) -> str:
        """Where they come from, and how their lines find their classes, in words."""
        return f"{self.path.name}, by {'position' if self.by_position else 'name'}"


def class_names_of(path: Path | None, folders: Sequence[str]) -> dict[str, str]:
    """Return ``{folder: name}`` in the order of label2text, or of ``folders`` where there is none.

    A line reads ``FOLDER INDEX NAME``; underscores in NAME are spaces.

    Raises
    ------
    UserError
        If a line has another form, a folder stands there twice, or one of ``folders`` is missing.
    """
    if path is None:
        return {folder: _as_words(folder) for folder in folders}
    names: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        folder, name = _split_label_line(line.strip(), set(folders), where=f"{path}, line {number}")
        if folder in names:
            raise UserError(
                f"{path}, line {number}: the class {folder!r} is there twice",
                fix="keep one of the two lines.",
            )
        names[folder] = name
    for folder in folders:
        if folder not in names:
            raise UserError(
                f"{path} has no line for the class folder {folder!r}",
                fix=f"{nearest_names(folder, names)}add a line: {folder} INDEX NAME.",
            )
    return names


def _as_words(text: str) -> str:
    return " ".join(text.replace("_", " ").split())


def _split_label_line(line: str, folders: set[str], *, where: str) -> tuple[str, str]:
    # Folder and name may both hold spaces and numbers: the folder that exists decides.
    splits = [
        (line[: match.start()].strip(), _as_words(line[match.end() :]))
        for match in re.finditer(r"(?<=\s)\d+(?=\s)", line)
    ]
    splits = [(folder, name) for folder, name in splits if folder and name]
    if not splits:
        raise UserError(f"{where}: {line[:80]!r} is not FOLDER INDEX NAME", fix="write the three, by spaces.")
    return next((split for split in splits if split[0] in folders), splits[0])


def read_descriptions(
    path: Path,
    names: Mapping[str, str],
    *,
    required: Sequence[str] | None = None,
    order: str = "label2text's order",
) -> Descriptions:
    """Return one description a class from lines of ``FOLDER<TAB>TEXT``; blank lines are skipped.

    Lines without a tab are by position: one a class, in the order of ``names``, which ``order`` says in
    words. Of the class folders ``names`` those in ``required`` must have a description, or all of them.

    Raises
    ------
    UserError
        If a folder is unknown, is there twice or has no text, a required class has no description, only
        some lines have a tab, or there are not as many lines by position as classes.
    """
    lines = [line for line in read_lines(path) if line.strip()]
    if not _are_named(lines, path):
        if len(lines) != len(names):
            raise UserError(
                f"{path} has {len(lines)} descriptions, but there are {len(names)} classes",
                fix=f"write FOLDER<TAB>TEXT on every line, or one description a line in {order}.",
            )
        by_order = dict(zip(names, (line.strip() for line in lines), strict=True))
        return Descriptions(path=path, of_class=by_order, by_position=True)
    texts: dict[str, str] = {}
    for line in lines:
        folder, text = _class_and_text(line, names, path)
        if folder in texts:
            raise UserError(f"{path}: the class {folder!r} is there twice", fix="keep one of the two lines.")
        texts[folder] = text
    missing = [folder for folder in (names if required is None else required) if folder not in texts]
    if missing:
        more = f" and {len(missing) - 3} more classes" if len(missing) > 3 else ""
        raise UserError(
            f"{path} has no description of {', '.join(map(repr, missing[:3]))}{more}",
            fix="add a line FOLDER<TAB>TEXT for each.",
        )
    return Descriptions(path=path, of_class={n: texts[n] for n in names if n in texts}, by_position=False)


def label_bank(names: Mapping[str, str], *, source: str = "") -> BankTexts:
    """Return the bank ``labels``: ``a photo of NAME``."""
    return template_bank("labels", names, (LABEL_TEMPLATE,), source=source)


def description_bank(names: Mapping[str, str], descriptions: Descriptions) -> BankTexts:
    """Return the bank ``descriptions``: ``a photo of NAME . DESCRIPTION``."""
    by_class = descriptions.of_class
    return BankTexts(
        name="descriptions",
        texts=tuple(DESCRIPTION_TEMPLATE.format(names[folder], text) for folder, text in by_class.items()),
        classes=tuple(by_class),
        templates=(DESCRIPTION_TEMPLATE,),
        source=descriptions.source,
        lines=tuple(by_class.values()) if descriptions.by_position else (),
    )


def template_bank(
    bank: str, names: Mapping[str, str], templates: Sequence[str], *, source: str = ""
) -> BankTexts:
    """Return a bank of every class name in every template; a reader averages a class's unit rows."""
    check_templates(templates)
    pairs = [(folder, template.format(name)) for folder, name in names.items() for template in templates]
    return BankTexts(
        name=bank,
        texts=tuple(text for _, text in pairs),
        classes=tuple(folder for folder, _ in pairs),
        templates=tuple(templates),
        source=source,
    )


def check_templates(templates: Sequence[str]) -> None:
    """Raise a UserError unless every template has one place for a name."""
    for template in templates:
        if template.count("{}") != 1 or {*"{}"} & {*template.replace("{}", "")}:
            raise WrongOption(
                f"--template {template!r} has no single {{}} where the class name goes",
                fix=f"write it like {LABEL_TEMPLATE!r}.",
            )


def file_bank(path: Path, names: Mapping[str, str], *, others: bool = False) -> BankTexts:
    """Return a bank, called as its file, of the texts in it.

    Lines of ``FOLDER<TAB>TEXT`` belong to classes (several lines of one class are averaged). Plain
    lines belong to the classes in label2text's order when there are exactly as many; any other number
    of plain lines is a free bank, whose texts belong to no class. ``others``: a line may name a class that
    is none of ``names``.
    """
    lines = [line for line in read_lines(path) if line.strip()]
    if not lines:
        raise UserError(f"{path} holds no text", fix="write one text a line.")
    named = _are_named(lines, path)
    by_position = not named and len(lines) == len(names)
    if named:
        pairs = [_class_and_text(line, None if others else names, path) for line in lines]
    else:
        owners = tuple(names) if by_position else ("",) * len(lines)
        pairs = [(owner, line.strip()) for owner, line in zip(owners, lines, strict=True)]
    texts = tuple(text for _, text in pairs)
    return BankTexts(
        name=path.stem,
        texts=texts,
        classes=tuple(folder for folder, _ in pairs),
        templates=("{}",),
        source=f"{path.name}, {'by name' if named else 'by position' if by_position else 'of no class'}",
        lines=texts if by_position else (),
    )


def _are_named(lines: Sequence[str], path: Path) -> bool:
    """Say whether lines are FOLDER<TAB>TEXT; UserError where only some are."""
    plain = [line for line in lines if "\t" not in line]
    if plain and len(plain) < len(lines):
        raise UserError(
            f"{path}: {len(lines) - len(plain)} of {len(lines)} lines have a tab, not {plain[0].strip():.60}",
            fix="write FOLDER<TAB>TEXT on every line, or on none.",
        )
    return bool(lines) and not plain


def _class_and_text(line: str, names: Mapping[str, str] | None, path: Path) -> tuple[str, str]:
    folder, text = (part.strip() for part in line.split("\t", 1))
    if not folder:
        raise UserError(f"{path}: {line.strip()!r:.60} names no class", fix="write FOLDER<TAB>TEXT.")
    if names is not None and folder not in names:
        raise UserError(
            f"{path}: {folder!r:.120} is not a class",
            fix=f"{nearest_names(folder, names)}name a class folder.",
        )
    if not text:
        raise UserError(f"{path}: there is no text of {folder!r}", fix="write it behind the tab.")
    return folder, text


def read_captions(path: Path) -> dict[str, str]:
    """Return ``{key: caption}`` from JSON lines ``{"key": ..., "caption": ...}``.

    Keys are ``CLASS/FILE``, or ``SPLIT/CLASS/FILE`` with either name of the split.
    """
    captions: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
            key, caption = row["key"], row["caption"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(
                f"{where}: {line.strip()[:60]!r} is not a caption",
                fix='write {"key": "CLASS/FILE", "caption": "..."}, one a line.',
            ) from error
        if not isinstance(key, str) or not isinstance(caption, str):
            raise UserError(f"{where}: key and caption must be text", fix="put both in quotes.")
        if not (_is_storable(key) and _is_storable(caption)):
            raise UserError(
                f"{where}: {line.strip()[:60]!r} holds a zero byte or half a character", fix="mend that line."
            )
        if key in captions:
            raise UserError(f"{where}: the key {key!r} is there twice", fix="keep one caption an image.")
        captions[key] = caption.strip() or MISSING_CAPTION
    return captions


def _is_storable(text: str) -> bool:
    """Say whether a text is UTF-8 without zero bytes: JSON can write others too, as ``\\ud800``."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def caption_of(captions: Mapping[str, str], split: str, key: str) -> str | None:
    """Return the caption of one image under any spelling of its key, or None."""
    own_key = caption_key(captions, split, key)
    return None if own_key is None else captions[own_key]


def caption_key(captions: Mapping[str, str], split: str, key: str) -> str | None:
    """Return the spelling under which captions know an image, or None."""
    spellings = (f"{split}/{key}", f"{FOLDERS[split]}/{key}", key)
    return next((spelling for spelling in spellings if spelling in captions), None)


def name_of_captions(captions: Iterable[str | None]) -> str:
    """Return what names the captions of some images, in their order."""
    return digest([None if caption == MISSING_CAPTION else caption for caption in captions])


def is_key(text: str) -> bool:
    """Say whether a text is ``CLASS/FILE``, of any depth, and stays in its folder as a path."""
    parts = text.split("/")
    odd = any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > 255 for part in parts)
    return len(parts) > 1 and not odd and "\0" not in text


def read_lines(path: Path) -> list[str]:
    """Return a text file's lines; UserError when it is missing or not UTF-8."""
    # Not splitlines(), which breaks a line at characters that a caption may hold, such as U+2028.
    text = read_text(path)
    return text.removesuffix("\n").split("\n") if text else []
