"""Photos and names -> a model, stage after stage: what ``distill adapt`` calls.

The teacher looks at every photo; a head by ridge gives a model that can be used; a head trained on the same
features, then the whole student, trained while the budget lasts, take its place where they are better on what
was set aside. Every stage goes on where it was stopped, because the cache and the runs do, and ``adapt.json``
says which run was begun from what.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache import EmbeddingCache
from cache.runtime.atomic_files import digest
from cache.runtime.locks import only_writer
from cache.runtime.progress import Progress, Silent
from distill.adapt.book import Book, Once
from distill.adapt.costs import FEW_CHECKED, Pace, epochs_left, fitted, head_seconds
from distill.adapt.first_look import FirstLook, first_look
from distill.adapt.names import Names
from distill.adapt.options import WORK, AdaptOptions, in_words
from distill.adapt.outcome import Outcome, outcome_of
from distill.adapt.photos import Photos
from distill.adapt.shipping import export, has_words, is_better, ship
from distill.adapt.state import asked, inputs_of
from distill.adapt.students import (
    CLOSED_FORM,
    HEAD,
    IN_WORDS,
    TRAINED,
    closed_form,
    of_cache,
    recipe_of,
    trained_head,
)
from distill.adapt.teacher import cached, with_texts
from distill.adapt.words import are_quick, words_for
from distill.config import RunConfig
from distill.deploy.replace import settle
from distill.deploy.vocabulary_rows import VocabularySource
from distill.record.run_files import CONFIG, SUMMARY
from distill.report.page import report
from distill.settings import to_toml, with_part
from distill.train.plan import plan
from distill.train.start import train
from distill.train.stopping import Stopped

# Seconds that a model with words takes more: what "none of these" goes by is tried with all of them.
CHOOSING_BY_WORDS = 10.0


def adapt(
    options: AdaptOptions, *, progress: Progress | None = None, seen: FirstLook | None = None
) -> Outcome:
    """Make a model of photos and names in ``options.out``, or go on with it; return what came of it.

    ``seen`` is what :func:`distill.adapt.first_look.first_look` saw, where somebody has looked already.

    Raises
    ------
    UserError
        If anything that was given is wrong: told before the teacher, which is slow, is loaded.
    Stopped
        After SIGTERM or Ctrl-C within training: the same command goes on.
    """
    seen, options = seen or first_look(options), options.anywhere()
    book = Book(options=options, progress=Once(progress or Silent()), began=seen.began)
    work = _Work(book=book, recipe=recipe_of(options), names=seen.names, photos=seen.photos)
    if seen.names is None:
        assert options.cache is not None
        work.cache = with_texts(EmbeddingCache.open(options.cache)).path
    made = not options.out.exists()
    try:
        with only_writer(options.work):
            settle(options.out, beside=WORK)
            return work.done()
    except Stopped as error:
        raise Stopped(error.signal_number, str(options.work), again="the same command") from None
    finally:
        with suppress(OSError):
            if made:
                options.out.rmdir()  # nothing was written after all


@dataclass(kw_only=True)
class _Work:
    """One adaptation: how a student is trained, of which photos and ``names``, or of which ``cache``."""

    book: Book
    recipe: RunConfig
    names: Names | None
    photos: Photos | None = None
    cache: Path = Path()
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def done(self) -> Outcome:
        """Do all that is not done; return what came of it."""
        book, work = self.book, self.book.options.work
        book.open()
        self._begin()
        config = of_cache(self.recipe, EmbeddingCache.open(self.cache))
        config = with_part(config, "student", image_size=self._size(config))
        with book.stage("closed form"):
            run = self._run(CLOSED_FORM, closed_form(config))
        if is_better(book, CLOSED_FORM, run):
            ship(book, CLOSED_FORM, run, None)
        words = self._add_head_and_words(config)
        if epochs := self._epochs(config):
            with book.stage("training"):
                run = self._run(TRAINED, with_part(config, "train", epochs=epochs))
            if is_better(book, TRAINED, run):
                ship(book, TRAINED, run, words)
        book.note("report and latency")
        page = work / "report.html"
        report(work, page)
        assert book.state.shipped is not None
        name, seconds = book.state.shipped.run, book.state.seconds
        outcome = outcome_of(book.options.out, self.runs, shipped=name, seconds=seconds, report=page)
        book.tell_overrun()
        return outcome

    def _begin(self) -> None:
        """Have the teacher look at the photos; forget what was planned for other inputs."""
        book, place = self.book, None
        if self.photos is not None and self.names is not None:
            with book.stage("teacher"):
                self.cache, place = cached(book, self.photos, self.names)
        now, state = asked(book.options), book.state
        inputs = inputs_of(now, self.cache, place)
        same = state.inputs == inputs and state.options.get("budget") == now["budget"]
        anew: dict[str, Any] = {} if same else {"plan": {}, "pace": None}
        book.keep(inputs=inputs, options=now, **anew)

    def _size(self, config: RunConfig) -> int:
        """Return the image size: with a budget the largest at which some epochs fit."""
        book, size = self.book, config.student.image_size
        if "size" not in book.state.plan:
            epochs: dict[str, float] = {"epochs": config.train.epochs}
            if book.options.budget is not None:
                pace = self._pace(config)
                (size, _), epochs = fitted(pace, book.left, epochs=config.train.epochs), {}
                book.keep(pace=pace.at(size))
            book.keep(plan={"size": size, **epochs})
        return int(book.state.plan["size"])

    def _add_head_and_words(self, config: RunConfig) -> VocabularySource | None:
        """Ship a trained head if it is better, and words to name anything by; return these.

        Both at once where words are quick: each takes the writing of a model.
        """
        book = self.book
        head = self._head(config)
        words = words_for(book, self.cache, left=book.left - self._shipping - CHOOSING_BY_WORDS)
        if head is not None:
            ship(book, HEAD, head, words if words is not None and are_quick(book) else None)
        if words is not None and not has_words(book):
            assert book.state.shipped is not None
            with book.stage("words"):
                export(book, book.state.shipped.run, words)
        return words

    def _head(self, config: RunConfig) -> dict[str, Any] | None:
        """Train a head on the features that the closed form was made of; return it if it is better.

        None, too, where there is no time for it.
        """
        images = sum(self.runs[CLOSED_FORM]["closed_form"]["images"].values())
        takes = 0.0 if self._has_ended(HEAD) else head_seconds(images)
        if takes + self._shipping > self.book.left:
            self.book.note("no time is left to train a head: the closed form stays")
            return None
        with self.book.stage("head"):
            run = self._run(HEAD, trained_head(config, images))
        return run if is_better(self.book, HEAD, run) else None

    @property
    def _shipping(self) -> float:
        """The seconds that another model takes, and the report after it."""
        pace = self.book.state.pace
        return pace.exporting(FEW_CHECKED) + pace.report if pace is not None else 0.0

    def _epochs(self, config: RunConfig) -> int:
        """Return how many epochs are to be trained; tell how long they take before they begin."""
        book, planned = self.book, self.book.state.plan
        if "epochs" not in planned:
            epochs = epochs_left(self._pace(config), book.left, epochs=config.train.epochs)
            book.keep(plan={**planned, "epochs": epochs})
        epochs, size = int(book.state.plan["epochs"]), int(planned["size"])
        assert book.state.shipped is not None
        if not epochs:
            budget = in_words(book.options.budget or 0)
            stays = IN_WORDS[book.state.shipped.run]
            book.note(f"no epoch fits into the budget of {budget}: {stays} stays")
        elif not self._has_ended(TRAINED):
            pace = self._pace(config)
            seconds = in_words(epochs * pace.epoch + pace.judging)
            book.note(f"training the trunk: {epochs} epochs at {size} px, {seconds} or so")
        return epochs

    def _pace(self, config: RunConfig) -> Pace:
        """Return what training takes, by a few steps that are tried once."""
        if self.book.state.pace is None:
            self.book.note("trying a few steps")
            one = with_part(config, "train", epochs=1)
            planned = plan(one, cache_dir=self.cache, data_dir=self._moved, code=self.book.options.code)
            self.book.keep(pace=Pace.of(planned, config.student.image_size))
        assert self.book.state.pace is not None
        return self.book.state.pace

    @property
    def _moved(self) -> tuple[str, ...]:
        """Where the photos of a cache that was given are now; none: where they were."""
        return self.book.options.sources if self.photos is None else ()

    def _has_ended(self, name: str) -> bool:
        return (self.book.options.work / name / SUMMARY).is_file()

    def _run(self, name: str, config: RunConfig) -> dict[str, Any]:
        """Train a run, go on with it, or return what it came to; one of other inputs is begun anew."""
        book, out = self.book, self.book.options.work / name
        made_from = digest([book.state.inputs, to_toml(config)])
        if book.state.runs.get(name) != made_from or not (out / CONFIG).is_file():
            shutil.rmtree(out, ignore_errors=True)
            book.keep(runs={**book.state.runs, name: made_from})
        if self._has_ended(name):
            summary: dict[str, Any] = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
        else:
            summary = train(
                config,
                cache_dir=self.cache,
                data_dir=self._moved,
                out=out,
                resume_run=(out / CONFIG).is_file(),
                progress=book.progress,
                code=book.options.code,
            )
        self.runs[name] = summary
        return summary
