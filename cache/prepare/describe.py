"""One description a class, asked of any server that speaks OpenAI's chat protocol."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from threading import Event, Lock
from typing import Any

from cache.prepare.answers import no_description, one_line, shared_answers
from cache.prepare.finished_lines import Partial, refuse_existing
from cache.runtime.atomic_files import remove_temporaries, replacing
from cache.runtime.errors import UserError, missing_package, shortened
from cache.runtime.locks import only_writer_of_file
from cache.runtime.progress import Progress, Silent
from cache.sources.class_texts import DESCRIPTIONS, LABELS, class_names_of, read_descriptions
from cache.sources.data import open_data
from cache.sources.samples import DataFolder

DEFAULT_PROMPT = (
    "Describe what {} looks like in one English sentence. Describe only its appearance and shape, "
    "and answer with that sentence alone."
)
# So often is asked again what gave no description, and after so many classes without any it is given up.
ANSWERS = 3
HOPELESS = 10
NO_KEY = "none"
# What a server says of an answer that is none.
ENDINGS = {"length": "an answer that was cut short", "content_filter": "an answer that the server filtered"}
# A sentence takes seconds; a server that is silent for this long (seconds) has hung.
TIMEOUT = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DescribeSummary:
    """What was written: ``asked`` classes in this run, ``reused`` ones kept from an earlier, stopped run."""

    out: Path
    classes: int
    asked: int
    reused: int
    seconds: float


def describe(
    data: str | Path,
    *,
    out: Path | None = None,
    base_url: str | None = None,
    model: str,
    prompt: str = DEFAULT_PROMPT,
    label2text: Path | None = None,
    max_retries: int = 6,
    workers: int = 4,
    progress: Progress | None = None,
) -> DescribeSummary:
    """Write ``FOLDER<TAB>DESCRIPTION`` of every class, as ``read_descriptions`` reads them.

    Each answer is kept at once in ``OUT.partial.jsonl``; a later run with the same model and prompt
    goes on from there. Refusals, answers that were cut short, and what is said of several classes are no
    descriptions.

    The classes are those of the source ``data``, named by ``label2text.txt`` in its folder where that has
    one; ``out`` is ``chatgpt.txt`` in it when left out. The server is ``base_url``, such as
    ``http://localhost:8000/v1``, else ``OPENAI_BASE_URL`` or OpenAI; the key is taken from
    ``OPENAI_API_KEY``. ``prompt`` has one ``{}`` for the class's name. A request is repeated
    ``max_retries`` times, after growing pauses or what the server's Retry-After says, when the server is
    busy (429), failing (5xx) or not reached; ``workers`` are under way at once.

    Raises
    ------
    UserError
        If an argument is wrong, ``out`` exists, the server refuses, fails or gives no answer, or a class is
        left without a description. What was answered before is kept.
    """
    start, progress = time.perf_counter(), progress or Silent()
    _check(prompt, workers)
    folder = open_data([data])
    out = out or folder.path / DESCRIPTIONS
    refuse_existing(out)
    names = _class_names(folder, label2text)
    prompts = {folder: prompt.replace("{}", name) for folder, name in names.items()}
    with only_writer_of_file(out):
        remove_temporaries(out.parent, of=f"{glob.escape(out.name)}.*")
        partial = Partial.beside(out)
        done = _kept(partial, prompts, model)
        reused = len(done)
        if reused:
            progress.note(f"{reused:,} of {len(names):,} descriptions are there from an earlier run")
        left = {folder: text for folder, text in prompts.items() if folder not in done}
        if left:
            with _asker(base_url, model, max_retries, partial) as asker:
                answered, none = _ask_all(asker, left, workers, progress)
            done.update(answered)
            none |= shared_answers(done)
            if none:
                raise _without(none, names, model)
        _write(out, {folder: done[folder] for folder in names})
        partial.remove()
    return DescribeSummary(
        out=out, classes=len(names), asked=len(left), reused=reused, seconds=time.perf_counter() - start
    )


def _without(reasons: Mapping[str, str], names: Mapping[str, str], model: str) -> UserError:
    some = "; ".join(f"{folder!r} ({reasons[folder]})" for folder in list(reasons)[:5])
    more = f"; and {len(reasons) - 5} more" if len(reasons) > 5 else ""
    return UserError(
        f"{len(reasons)} of {len(names)} classes have no description from {model}: {some}{more}",
        fix="run the same command again, which asks for these alone; or give another --prompt or --model.",
    )


def _check(prompt: str, workers: int) -> None:
    if workers < 1:
        raise UserError(f"--workers is {workers}", fix="give 1 or more.")
    if prompt.count("{}") != 1:
        raise UserError(
            f"--prompt {prompt[:80]!r} has no single {{}} where the class name goes",
            fix="write it like 'Describe the shape of {} in one sentence.'",
        )


def _class_names(data: DataFolder, label2text: Path | None) -> dict[str, str]:
    if label2text is None and (data.path / LABELS).is_file():
        label2text = data.path / LABELS
    names = class_names_of(label2text, data.class_names)
    if not names:
        raise UserError(f"{data.path} has no classes", fix="give images that have, or their --label2text.")
    for folder in names:
        in_file = folder.encode("utf-8", "replace").decode()
        if "\t" in folder or in_file.splitlines() != [folder] or folder.strip() != folder:
            raise UserError(
                f"the class folder {folder!r} cannot stand in a line of FOLDER<TAB>TEXT",
                fix="rename it: UTF-8, without tabs, line breaks, or spaces around it.",
            )
    return names


def _kept(partial: Partial, prompts: Mapping[str, str], model: str) -> dict[str, str]:
    """Return the descriptions that an earlier run got for these very questions from this model."""
    kept = {
        row["folder"]: row["description"]
        for row in partial.resume()
        if isinstance(row.get("folder"), str)
        and row.get("model") == model
        and row.get("prompt") == prompts.get(row["folder"])
        and isinstance(row.get("description"), str)
        and not no_description(row["description"])
    }
    several = shared_answers(kept)
    return {folder: text for folder, text in kept.items() if folder not in several}


@dataclass(frozen=True, kw_only=True)
class _Asker:
    """Asks one server one question at a time; threads share it."""

    client: Any
    model: str
    partial: Partial
    lock: Lock = field(default_factory=Lock)
    stop: Event = field(default_factory=Event)

    def work(self, question: tuple[str, str]) -> tuple[str, str, str | Exception]:
        """Return a class, its description, and why where it has none; runs in threads."""
        folder, prompt = question
        if self.stop.is_set():
            return folder, "", "not asked any more"
        try:
            return folder, *self.ask(folder, prompt)
        except Exception as error:
            self.stop.set()
            return folder, "", error

    def ask(self, folder: str, prompt: str) -> tuple[str, str]:
        """Return the description of one class, and keep it; after several that are none, "" and why."""
        why = ""
        for _ in range(ANSWERS):
            answer, cut = self._answer(prompt)
            description = self._without_key(one_line(answer))
            why = cut or no_description(description)
            if not why:
                row = {"folder": folder, "prompt": prompt, "model": self.model, "description": description}
                with self.lock:
                    self.partial.append([row])
                return description, ""
        return "", self._without_key(why)

    def _without_key(self, text: str) -> str:
        """Return what a server said without the key that it may have said back."""
        key = self.client.api_key
        return text.replace(key, "***") if key and key != NO_KEY else text

    def _answer(self, prompt: str) -> tuple[str, str]:
        """Return an answer, and why the server itself says that it is none."""
        import openai

        try:
            # No temperature and no limit of tokens: some models refuse either.
            answer = self.client.chat.completions.create(
                model=self.model, messages=[{"role": "user", "content": prompt}]
            )
        except (openai.OpenAIError, ValueError) as error:
            # Without what the client kept of the request, which holds the key.
            raise self._refused(error) from None
        if not hasattr(answer, "choices"):
            raise UserError(
                f"{self.client.base_url} answered with something else than a chat completion",
                fix="check --base-url: it usually ends in /v1.",
            )
        if not answer.choices or answer.choices[0].message is None:
            return "", ""
        choice = answer.choices[0]
        if refusal := getattr(choice.message, "refusal", None):
            return "", f"a refusal: {shortened(one_line(str(refusal)))}"
        return choice.message.content or "", ENDINGS.get(choice.finish_reason, "")

    def _refused(self, error: Exception) -> UserError:
        status = getattr(error, "status_code", None)
        fixes = {
            401: "set OPENAI_API_KEY to a key of this server.",
            403: "set OPENAI_API_KEY to a key that may use this model.",
            404: "check --model, and --base-url, which usually ends in /v1.",
            429: "wait, or use fewer --workers, and run again; what is done is kept.",
        }
        if status is None:
            fix = "check --base-url and that the server runs, then run again; what is done is kept."
        elif status >= 500:
            fix = "look at the server, then run again; what is done is kept."
        else:
            fix = fixes.get(status, "check --model and --prompt.")
        message = self._without_key(_message_of(error))
        answer = f"status {status}, {message}" if status else message
        return UserError(
            f"{self.client.base_url} gave no answer from the model {self.model} ({answer})", fix=fix
        )


def _message_of(error: Exception) -> str:
    """Return what the server said, or why it was not reached, on one line."""
    body = getattr(error, "body", None)
    text = body.get("message") if isinstance(body, dict) else body
    if not text and error.__cause__ is not None:
        text = f"{error} {error.__cause__}"
    return " ".join(str(text or error).split())[:300].rstrip(".")


@contextmanager
def _asker(base_url: str | None, model: str, max_retries: int, partial: Partial) -> Iterator[_Asker]:
    try:
        import openai
    except ImportError as error:
        raise missing_package(error, extra="describe") from error

    base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
    if base_url and not base_url.startswith(("http://", "https://")):
        raise UserError(
            f"--base-url {base_url} is not an address", fix="write it like http://localhost:8000/v1."
        )
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key and not base_url:
        raise UserError(
            "OPENAI_API_KEY is not set",
            fix="set it to your key, or give the --base-url of a server that needs none.",
        )
    # Servers on one's own machine ignore the key, but the client insists on one.
    client = openai.OpenAI(api_key=key or NO_KEY, base_url=base_url, max_retries=max_retries, timeout=TIMEOUT)
    with client:
        yield _Asker(client=client, model=model, partial=partial)


def _ask_all(
    asker: _Asker, left: Mapping[str, str], workers: int, progress: Progress
) -> tuple[dict[str, str], dict[str, str]]:
    """Ask every question; return the descriptions, and of the other classes why they have none.

    After the first failure, or many classes and no description, no more are begun; those under way are kept.
    """
    asker.partial.append([])  # Nothing is paid for before we know that we can write.
    progress.start(len(left))
    done: dict[str, str] = {}
    none: dict[str, str] = {}
    failure: Exception | None = None
    # Its threads are daemons, because Ctrl-C should not have to wait for a slow server.
    with ThreadPool(workers) as pool:
        for folder, description, why in pool.imap_unordered(asker.work, left.items()):
            if isinstance(why, Exception):
                failure = failure or why
            elif why:
                none[folder] = why
            else:
                done[folder] = description
            if asker.stop.is_set():
                continue
            if why:
                progress.note(f"no description of {folder!r}: {why}")
            if len(none) >= HOPELESS and not done:
                asker.stop.set()
            progress.advance(1)
    if failure is not None:
        raise failure
    return done, none


def _write(out: Path, descriptions: Mapping[str, str]) -> None:
    with replacing(out) as temporary:
        lines = "".join(f"{folder}\t{text}\n" for folder, text in descriptions.items())
        temporary.write_text(lines, encoding="utf-8")
        if dict(read_descriptions(temporary, descriptions).of_class) != dict(descriptions):
            raise UserError(
                f"{out} would not read back as it was written",
                fix="report this; the answers are kept in the .partial.jsonl beside it.",
            )
