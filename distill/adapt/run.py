"""Photos and names -> a model, stage after stage: what ``distill adapt`` calls.

The teacher looks at every photo; a head by ridge gives a model that can be used; the trunk is trained while
the budget lasts, and takes its place if it is better on what was set aside. Every stage goes on where it was
stopped, because the cache and the runs do, and ``adapt.json`` says which run was begun from what.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.runtime.atomic_files import digest
from cache.runtime.errors import UserError
from cache.runtime.locks import only_writer
from cache.runtime.progress import Progress, Silent
from distill.adapt.costs import Pace, bytes_needed, check_room, epochs_left, fitted, teachers_pace
from distill.adapt.names import Names, read_names
from distill.adapt.options import WORK, AdaptOptions, in_words
from distill.adapt.outcome import Outcome, outcome_of
from distill.adapt.photo_list import write_photo_list
from distill.adapt.photos import look
from distill.adapt.score import score_of
from distill.adapt.state import Shipped, State, asked, changes, inputs_of
from distill.adapt.words import words_for
from distill.config import RunConfig
from distill.data.pool import has_pool
from distill.deploy.export import ExportOptions, export_run
from distill.deploy.info import NAME as MODEL_JSON
from distill.deploy.info import ModelInfo
from distill.deploy.replace import put_in_place, settle
from distill.deploy.vocabulary_rows import VocabularySource
from distill.record.run_files import CONFIG, SUMMARY
from distill.report.page import report
from distill.settings import load_recipe, to_toml, with_part
from distill.student.first_weights import FirstWeights
from distill.train.default_recipe import HEAD_FIRST, WITH_POOL
from distill.train.plan import plan
from distill.train.session import origin_of
from distill.train.start import train
from distill.train.stopping import Stopped

CLOSED_FORM, TRAINED = "closed-form", "run"
# Of labelled images, and of a pool alone, that nothing is learnt from, to choose on.
ID_VAL, POOL_VAL = 0.2, 0.1
# A kill costs no more steps.
SAVED_EVERY = 100
# The text bank that classifies: the names in the teacher's template.
BANK = "labels"
# Images of each split that the first model is compared with its student on: it is to be there soon.
FIRST_CHECK = 500


def adapt(options: AdaptOptions, *, progress: Progress | None = None) -> Outcome:
    """Make a model of photos and names in ``options.out``, or go on with it; return what came of it.

    Raises
    ------
    UserError
        If anything that was given is wrong: told before the teacher, which is slow, is loaded.
    Stopped
        After SIGTERM or Ctrl-C within training: the same command goes on.
    """
    began, options = time.perf_counter(), options.anywhere()
    _check_out(options)
    names = read_names(options.names) if options.names is not None else None
    recipe, progress = _recipe(options), progress or Silent()
    work = _Work(options=options, names=names, recipe=recipe, progress=progress, began=began)
    with only_writer(options.work):
        settle(options.out, beside=WORK)
        try:
            return work.done()
        except Stopped as error:
            raise Stopped(error.signal_number, str(options.work), again="the same command") from None


def _check_out(options: AdaptOptions) -> None:
    out = options.out
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file", fix="choose a folder for --out.")
    if out.is_dir() and any(out.iterdir()) and not options.work.is_dir():
        raise UserError(
            f"{out} is not empty, and no adaptation was begun in it", fix="choose another --out, or empty it."
        )


def _recipe(options: AdaptOptions) -> RunConfig:
    """Return how a student is trained; UserError where its first weights cannot be had."""
    config = load_recipe(HEAD_FIRST)
    given = {"arch": options.arch or config.student.arch, "start": options.start or config.student.start}
    config = with_part(config, "student", **given)
    config = with_part(
        config, "train", seed=options.seed, device=options.device, checkpoint_steps=SAVED_EVERY
    )
    # One model is shipped: no means are judged beside it, which takes as long again.
    config = with_part(with_part(config, "eval", every=0), "optim", average_with_start=0.0)
    FirstWeights().find(config.student, origin_of(config, code=options.code))
    return config


@dataclass(kw_only=True)
class _Work:
    """One adaptation: what is asked for, how a student is trained, who is told, and when it began.

    ``names`` are None where a cache has them.
    """

    options: AdaptOptions
    names: Names | None
    recipe: RunConfig
    progress: Progress
    began: float
    state: State = field(default_factory=State)
    inputs: str = ""
    cache: Path = Path()
    words: VocabularySource | None = None

    def done(self) -> Outcome:
        """Do all that is not done; return what came of it."""
        self._begin()
        with self._stage("teacher"):
            photos = self._cached()
        now = asked(self.options)
        self.inputs = inputs_of(now, self.cache, photos)
        same = self.state.inputs == self.inputs and self.state.options.get("budget") == now["budget"]
        self._keep(replace(self.state, inputs=self.inputs, options=now, plan=self.state.plan if same else {}))
        config = self._config()
        pace = self._decided(config)
        config = with_part(config, "student", image_size=int(self.state.plan["size"]))
        with self._stage("closed form"):
            runs = {CLOSED_FORM: self._run(CLOSED_FORM, with_part(config, "train", head_only="closed-form"))}
        self._ship(CLOSED_FORM, runs[CLOSED_FORM])
        self._add_words()
        if epochs := self._epochs(config, pace):
            with self._stage("training"):
                runs[TRAINED] = self._run(TRAINED, with_part(config, "train", epochs=epochs))
            self._ship(TRAINED, runs[TRAINED])
        self.progress.note("report and latency")
        page = self.options.work / "report.html"
        report(self.options.work, page)
        assert self.state.shipped is not None
        name, seconds = self.state.shipped.run, self.state.seconds
        return outcome_of(self.options.out, runs, shipped=name, seconds=seconds, report=page)

    def _begin(self) -> None:
        self.state = State.load(self.options.work)
        now = asked(self.options)
        if self.state.options:
            self.progress.note(f"going on with what was begun in {self.options.work}")
            for line in changes(self.state.options, now):
                self.progress.note(f"changed: {line}; what depends on that is made anew")
        else:
            self._keep(replace(self.state, options=now))

    def _keep(self, state: State) -> None:
        self.state = state
        state.save(self.options.work)

    def _cached(self) -> Path | None:
        """Have the teacher look at every photo; return the list of them, None of a cache that was given."""
        options, work = self.options, self.options.work
        names = self.names
        if names is None:
            assert options.cache is not None
            self.cache = _with_texts(EmbeddingCache.open(options.cache)).path
            return None
        photos = look(options.sources, names)
        counts = ", ".join(f"{split} {count:,}" for split, count in photos.counts.items())
        self.progress.note(f"{len(photos.photos):,} photos ({counts}), {len(names.words):,} names")
        for line in photos.notes:
            self.progress.note(line)
        self.cache = work / "cache"
        teacher = FeatureOptions(model=options.model, pretrained=options.pretrained, device=options.device)
        if not self.state.seconds.get("teacher"):
            self._tell_costs(teacher, len(photos.photos))
        place = write_photo_list(work, photos.photos, names)
        self.progress.start(0, "the teacher")
        done = cache_features([place], self.cache, teacher, progress=self.progress)
        if done.new_rows:
            self.progress.note(
                f"the teacher looked at {done.new_rows:,} photos, {done.images_per_s:,.1f} a second"
            )
        for line in done.doubts:
            self.progress.note(f"look at {line}")
        return place

    def _tell_costs(self, teacher: FeatureOptions, count: int) -> None:
        seconds, text, embed_dim = teachers_pace(teacher, self.cache)
        self._keep(replace(self.state, text_pace=text))
        needed = bytes_needed(count, embed_dim)
        check_room(self.options.out, needed)
        budget = f", {in_words(self.options.budget)} in all as asked" if self.options.budget else ""
        self.progress.note(
            f"the teacher takes {in_words(seconds * count)} or so for {count:,} photos, then training begins"
            f"{budget}; about {needed / 1e6:,.0f} MB on the disk"
        )

    def _config(self) -> RunConfig:
        """Return how a student of this cache is trained: with a pool where there is one, by what there is."""
        cache = EmbeddingCache.open(self.cache)
        recipe = load_recipe(WITH_POOL if has_pool(cache) else HEAD_FIRST)
        config = replace(self.recipe, loss=recipe.loss)
        labelled = "train" in cache.split_names and bool((cache.split("train").labels >= 0).any())
        if labelled:
            return with_part(config, "data", id_val=ID_VAL)
        config = with_part(config, "student", ridge=0.0)
        return with_part(with_part(config, "loss", cls=0.0), "data", pool_val=POOL_VAL)

    def _decided(self, config: RunConfig) -> Pace | None:
        """Decide on the image size, and with a budget on the epochs; return the pace, where it was probed."""
        size, epochs = config.student.image_size, config.train.epochs
        if self.state.plan:
            return None
        if self.options.budget is None:
            self._keep(replace(self.state, plan={"size": size, "epochs": epochs}))
            return None
        pace = self._probed(config)
        size, epochs = fitted(pace, self._left(), epochs=epochs)
        self._keep(replace(self.state, plan={"size": size, "most": epochs}))
        return pace.at(size)

    def _epochs(self, config: RunConfig, pace: Pace | None) -> int:
        """Return how many epochs are to be trained; tell how long they take before they begin."""
        planned = self.state.plan
        if "epochs" not in planned:
            most = int(planned["most"])
            pace = pace or (self._probed(config) if most else None)
            left = self._left() - 1.3 * self.state.seconds.get("export", 0.0)
            epochs = epochs_left(pace, left, epochs=config.train.epochs) if pace is not None else 0
            planned = {"size": planned["size"], "epochs": epochs}
            self._keep(replace(self.state, plan=planned))
        epochs, size = int(planned["epochs"]), int(planned["size"])
        if not epochs:
            budget = in_words(self.options.budget or 0)
            self.progress.note(f"no epoch fits into the budget of {budget}: the closed form stays")
        elif not (self.options.work / TRAINED / SUMMARY).is_file():
            begun = (self.options.work / TRAINED / CONFIG).is_file()
            pace = pace or (None if begun else self._probed(config))
            time_left = f", {in_words(epochs * pace.epoch + pace.judging)} or so" if pace is not None else ""
            self.progress.note(f"training the trunk: {epochs} epochs at {size} px{time_left}")
        return epochs

    def _probed(self, config: RunConfig) -> Pace:
        self.progress.note("trying a few steps")
        one = with_part(config, "train", epochs=1)
        planned = plan(one, cache_dir=self.cache, data_dir=self._moved, code=self.options.code)
        return Pace.of(planned, config.student.image_size)

    @property
    def _moved(self) -> tuple[str, ...]:
        """Where the photos of a cache that was given are now; none: where they were."""
        return self.options.sources if self.options.cache is not None else ()

    def _left(self) -> float:
        """Return the seconds of the budget that are left."""
        return (self.options.budget or 0.0) - (time.perf_counter() - self.began)

    def _run(self, name: str, config: RunConfig) -> dict[str, Any]:
        """Train a run, go on with it, or return what it came to; one of other inputs is begun anew."""
        out, made_from = self.options.work / name, digest([self.inputs, to_toml(config)])
        if self.state.runs.get(name) != made_from or not (out / CONFIG).is_file():
            shutil.rmtree(out, ignore_errors=True)
            self._keep(self.state.with_run(name, made_from))
        if (out / SUMMARY).is_file():
            summary: dict[str, Any] = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
            return summary
        return train(
            config,
            cache_dir=self.cache,
            data_dir=self._moved,
            out=out,
            resume_run=(out / CONFIG).is_file(),
            progress=self.progress,
            code=self.options.code,
        )

    def _ship(self, name: str, summary: Mapping[str, Any]) -> None:
        """Put a run's student in the model's place, unless the one that is there is as good."""
        (score, told), shipped = score_of(summary), self.state.shipped
        if (
            shipped is not None
            and shipped.inputs == self.inputs
            and (self.options.out / MODEL_JSON).is_file()
        ):
            if shipped.run == name and shipped.score == score:
                return
            if score <= shipped.score:
                if name == TRAINED:
                    self.progress.note(f"training made it no better ({told}): {shipped.run} stays")
                return
        with self._stage("export"):
            self._export(name, first=shipped is None)
        self._keep(replace(self.state, shipped=Shipped(run=name, inputs=self.inputs, score=score)))
        what = "the closed form" if name == CLOSED_FORM else "the trained student"
        seconds = time.perf_counter() - self.began
        self.progress.note(f"{self.options.out} can be used after {in_words(seconds)}: {what}, {told}")

    def _export(self, name: str, *, first: bool = False) -> None:
        new = self.options.work / "next" / self.options.out.resolve().name
        shutil.rmtree(new.parent, ignore_errors=True)
        export = ExportOptions(code=self.options.code, vocabulary=self.words)
        if first:
            export = replace(export, check_images=FIRST_CHECK)
        export_run(self.options.work / name, new, export, progress=self.progress)
        put_in_place(new, self.options.out, beside=WORK)
        shutil.rmtree(new.parent, ignore_errors=True)

    def _add_words(self) -> None:
        """Give the model that is there words to name anything by, where there is time for them."""
        pace, left = self.state.text_pace, self._left()
        self.words = words_for(self.options, self.cache, pace=pace, left=left, progress=self.progress)
        if self.words is not None and not ModelInfo.load(self.options.out).vocabulary:
            assert self.state.shipped is not None
            with self._stage("words"):
                self._export(self.state.shipped.run)

    def _stage(self, what: str) -> _Clock:
        return _Clock(self, what)


class _Clock:
    """Adds what a stage took to the state, also where it is stopped."""

    def __init__(self, work: _Work, what: str) -> None:
        self._work, self._what = work, what

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._work._keep(self._work.state.took(self._what, time.perf_counter() - self._began))


def _with_texts(cache: EmbeddingCache) -> EmbeddingCache:
    """Return a cache of photos that has texts of its names; UserError for another."""
    if cache.holds_episodes:
        raise UserError(f"{cache.path} is no cache of photos of one label each", fix="give one that is.")
    if BANK not in cache.bank_names:
        raise UserError(
            f"{cache.path} has no texts of names (no text bank {BANK!r}), by which a photo could be told",
            fix="make it of a teacher with a text tower, import it with --texts and --classes, or add "
            f"class means: distill cache add-texts {cache.path} --bank {BANK} --from-images.",
        )
    return cache
