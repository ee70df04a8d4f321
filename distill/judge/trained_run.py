"""Judge a trained run's checkpoint on any split: what ``distill evaluate RUN`` calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from torch import Tensor, nn

from cache import EmbeddingCache
from cache.runtime.devices import choose_device
from cache.runtime.errors import CacheMismatch, UserError
from cache.runtime.progress import Progress, Silent
from cache.sources.decoders import in_its_place
from cache.sources.kept_sources import KeptSources
from cache.sources.samples import DataFolder, Sample
from cache.sources.splits import FOLDERS, TESTS
from cache.store.kept_rows import KeptFolder
from cache.store.spec import WEBDATASET
from cache.store.tar_folder import TarFolder
from distill.checkpoint import read_checkpoint
from distill.config import RunConfig
from distill.data.folders import Data, given_of, open_folder, sources_of
from distill.data.identity_reader import IdentityReader
from distill.data.pixel_sources import PixelMaker
from distill.data.pixels import Pixels
from distill.data.stream import EvalSplit, decoder_of, splits_to_judge, to_judge
from distill.data.support import QUERY, ROWS_OF, support_of
from distill.data.tar_identities import identities_of
from distill.data.tar_stream import id_val_of, set_aside
from distill.data.teacher_texts import images_of_texts, not_judged_note
from distill.data.training_rows import join_training_rows, pool_val_of
from distill.data_identity import DataIdentity, identity_in, refuse_other_data
from distill.headline import SET_ASIDE
from distill.judge.evaluate import Result, competing, labelled_split, refuse_negative_text
from distill.judge.judged_classes import with_texts
from distill.judge.model import Model, fingerprint, judged, load_weights, open_model, outputs_of
from distill.judge.space_of_split import open_teacher_rows, space_of_split, teacher_has_rows
from distill.record.run_files import checkpoint_file
from distill.settings import from_toml, with_part, with_settings
from distill.student.build import Origin
from distill.student.classifier import AllClasses
from distill.student.heads import Head
from distill.student.photo_model import PhotoModel


class Opening(TypedDict, total=False):
    """How a run is opened.

    ``data_dir`` and ``cache_dir`` are where its images and class texts are, left out: where they were;
    ``checkpoint`` is ``last``, ``best`` where ``data.id_val`` was on, ``ema`` or ``averaged`` where the
    run has such a mean of its weights; ``text`` is another text bank than the run's own, ``negative_text``
    another of episodes' negative texts; with ``check`` the cache's files are compared with their checksums;
    with ``rows_alone`` its images are not opened; ``note`` is told that another decoder than the run's reads
    its photos, or that a cache cannot keep where its images are now; ``code`` is the file of a student of
    one's own; ``eval_size`` and ``eval_crop`` are others than the run's, or than those that it chose;
    ``progress`` is told of the images that are judged.
    """

    data_dir: Data
    cache_dir: Path | None
    checkpoint: str
    text: str | None
    negative_text: str | None
    device: str
    check: bool
    note: Callable[[str], None]
    rows_alone: bool
    code: Path | None
    eval_size: int | None
    eval_crop: float | None
    progress: Progress


def evaluate_run(run: Path, *, splits: Sequence[str] = (), **opening: Unpack[Opening]) -> dict[str, Result]:
    """Judge a run's student on splits of these names, of no names on every test.

    Each has either name, or is one of :data:`distill.headline.SET_ASIDE`.
    UserError if the run, its data or its cache is missing, or the cache is of another teacher or holds other
    texts than the run learnt with.
    """
    trained = open_trained(run, **opening)
    results: dict[str, Result] = {}
    wanted = trained.judged(splits)
    open_teacher_rows([head for head in trained.heads if not head.has_texts], wanted)
    for split in wanted:
        results |= trained.results(split, outputs_of(trained.model, split, trained.progress))
    return results


def space_of_run(
    run: Path, *, splits: Sequence[str] = (), **opening: Unpack[Opening]
) -> dict[str, dict[str, float]]:
    """Return the space metrics (:mod:`distill.judge.space`) of a run's student by split.

    Splits without teacher rows are left out. UserError as :func:`evaluate_run`; if the run has no teacher, or
    no split has teacher rows.
    """
    trained = open_trained(run, **opening)
    if not trained.heads:
        raise UserError(f"{run} is a closed-set student", fix="judge a run that learnt from a teacher.")
    space: dict[str, dict[str, float]] = {}
    trained.identities.refuse_changed_images()
    wanted = trained.judged(splits)
    open_teacher_rows(trained.heads, wanted)
    for split in wanted:
        if teacher_has_rows(trained.heads, split):
            outputs = outputs_of(trained.model, split, trained.progress)
            space |= space_of_split(trained.heads, outputs, split, trained.config)
    if not space:
        raise UserError(
            f"the cache {trained.cache.path} has no teacher rows of those splits",
            fix="choose a --split that the cache has.",
        )
    return space


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A run's student with everything it takes to judge it.

    ``checkpoint`` is the file with its weights, ``identity`` the data that it was trained with,
    ``identities`` say what there is now, ``pool`` what :meth:`distill.data.pool.Pool.to_json` said of it,
    ``origin`` what the student was built from; ``ends`` what its summary must agree with to be of this very
    checkpoint: after how many epochs, and at which size and crop it was judged.
    """

    checkpoint: Path
    model: Model
    identity: DataIdentity
    identities: IdentityReader
    origin: Origin
    pool: Mapping[str, Any]
    ends: Mapping[str, Any]
    progress: Progress = field(default_factory=Silent)

    @property
    def config(self) -> RunConfig:
        """The run's config."""
        return self.model.config

    @property
    def cache(self) -> EmbeddingCache:
        """The cache with the class texts."""
        return self.model.cache

    @property
    def folder(self) -> DataFolder:
        """The data folder."""
        return self.model.folder

    @property
    def heads(self) -> tuple[Head, ...]:
        """The student's heads, one a teacher."""
        return self.model.heads

    @property
    def student(self) -> nn.Module:
        """The student."""
        return self.model.student

    @property
    def decoder(self) -> str:
        """What decodes its photos; '' of episodes."""
        return decoder_of(self.model.augment)

    @property
    def competing(self) -> AllClasses | None:
        """Every class of the data; None where every split has each, or one has no text."""
        # Where the folder has no train, its classes are those of the cache, which the run was trained on.
        among = AllClasses.competing({**self.cache.manifest.splits, **self.folder.classes})
        for head in (head for head in self.heads if head.has_texts):
            among = competing(among, head.cache.text_bank(self.config.text))
        return among

    def results(self, split: EvalSplit, outputs: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Result]:
        """Judge the student's (outputs [B, ...], labels [B]) on a split, and say how it is other data."""
        of_heads = judged(self.model, outputs, split, among=self.competing)
        if not of_heads:
            raise UserError(
                f"{split.name} cannot be judged: the teacher of {self.cache.path} has neither texts nor rows "
                "of it",
                fix="choose a --split that the cache has.",
            )
        other_data = self.other_data(split.name)
        return {name: replace(result, other_data=other_data) for name, result in of_heads.items()}

    def other_data(self, split: str) -> str:
        """Return in what a split is not the one that the run was trained with, '' where it is."""
        name = ROWS_OF.get(split, split)
        return "; ".join(self.identity.split_differences(name, self.identities.judged(name, self.config)))

    def wanted(self, splits: Sequence[str]) -> list[EvalSplit]:
        """Return the splits of these names, ``train`` and what is set aside too; of none every test split.

        Of no names and no test split that is what the run set aside, if any.
        UserError if there is no such split, or a few-shot run is asked for images that it was trained on.
        """
        if of_a_head := next((name for name in splits if "@" in name), ""):
            raise UserError(
                f"{of_a_head!r} is what one head, or their mean, is judged as",
                fix=f"use --split {of_a_head.partition('@')[0]}, which judges them all.",
            )
        support, data = support_of(self.cache, self.folder, self.config.fewshot), self.config.data
        made_of = images_of_texts(self.cache, self.config.text, [head.name for head in self.heads])
        kept: dict[str, Any] = {"made_of": made_of}
        if data.id_val and isinstance(self.folder, TarFolder):
            kept["id_val"] = id_val_of(self.cache, self.folder, set_aside(self.cache, data.id_val))
        elif (data.id_val or data.class_val) and "train" in self.folder.splits:
            joined = join_training_rows(self.identities, data)
            kept |= {"id_val": joined.id_val, "class_val": joined.class_val, "aside": joined.classes_aside}
        elif data.pool_val:
            kept["pool_val"] = pool_val_of(self.identities, self.config)
        by_name = {n: (images, names) for n, images, names in splits_to_judge(self.folder, support, **kept)}
        names = [name if name in (*SET_ASIDE, QUERY) else labelled_split(name) for name in splits]
        names = names or [name for name in by_name if name not in SET_ASIDE] or [*by_name]
        return with_texts(self.model, [self._split(name, by_name) for name in names])

    def judged(self, splits: Sequence[str]) -> list[EvalSplit]:
        """Return :meth:`wanted` splits; UserError where there is none at all."""
        wanted = self.wanted(splits)
        if not wanted:
            tests = " and no ".join(self.folder.split_is.format(FOLDERS[name]) for name in TESTS)
            raise UserError(
                f"{self.checkpoint.parent} cannot be judged: {self.folder.path} has no {tests}, and the run "
                "set no id_val aside",
                fix="add test images to the data, train with --set data.id_val=0.1, or judge --split train, "
                "which it was trained on.",
            )
        return wanted

    def _split(self, name: str, by_name: dict[str, Any]) -> EvalSplit:
        if name in by_name:
            images, class_names = by_name[name]
        elif name in SET_ASIDE:
            raise UserError(f"the run set no {name} aside", fix=f"train with --set data.{name}=0.1.")
        elif name == QUERY:
            raise UserError(f"{QUERY} is a few-shot run's", fix="judge a run of 'distill fewshot'.")
        elif name == "ood_test" and self.config.fewshot.shots:
            raise UserError(
                "the few-shot run was trained on some images of ood_test", fix=f"use --split {QUERY}."
            )
        else:
            split = self.folder.split(name)
            images, class_names = to_judge(split), split.classes
        return EvalSplit(name=name, pixels=self.pixels(images, name), class_names=class_names)

    def pixels(self, images: Sequence[Sample], split: str) -> Pixels:
        """Return a split's images as this student takes them, from the cache or decoded when asked for.

        The cache's own are left alone where the files are not those that they were made from.
        """
        changed = self.identities.changed(ROWS_OF.get(split, split))
        source = "files" if changed else self.config.data.pixels
        data = replace(self.config.data, memory_mb=0, pixels=source)
        make = PixelMaker(config=data, cache=self.cache, decode=self.model.augment.eval_decode)
        return make([(ROWS_OF.get(split, split), images)])


def open_trained(run: Path, **opening: Unpack[Opening]) -> TrainedRun:
    """Open a run's student, of photos or of episodes as its cache has them.

    UserError if the run, its data or its cache is missing, or the cache is of another teacher.
    """
    device = choose_device(opening.get("device", "auto"))
    checkpoint = checkpoint_file(run, opening.get("checkpoint", "last"))
    state = read_checkpoint(checkpoint, device=device)
    config = from_toml(state["config"], where=str(run))
    banks = {"text": opening.get("text"), "robotics.negative_text": opening.get("negative_text")}
    config = with_settings(config, [f'{name}="{bank}"' for name, bank in banks.items() if bank])
    chosen = chosen_eval_in(state)
    given = {name: value for name in chosen if (value := opening.get(name)) is not None}
    config = with_part(config, "student", **{n: v for n, v in (chosen | given).items() if v is not None})
    origin = Origin.of(config.student.arch, opening.get("code"), state, where=str(run))
    cache = EmbeddingCache.open(
        opening.get("cache_dir") or Path(state["cache_dir"]), check=opening.get("check", False)
    )
    refuse_negative_text(cache, opening.get("negative_text"))
    folder, note = _folder(opening, state, cache, config), opening.get("note", _untold)
    for line in folder.notes if opening.get("data_dir") else ():  # a run keeps its own sources
        note(line)
    if config.train.closed_set and list(folder.class_names) != state["all_classes"]:
        raise CacheMismatch(
            f"the classes of {folder.path} are not those that {run} was trained to tell apart",
            fix="give the run's own data folder with --data.",
        )
    class_names = tuple(state["class_names"])
    model = open_model(config, cache, folder, device, class_names=class_names, starting=False, origin=origin)
    model = _with_decoder(model, state["decoder"], note=note)
    if fingerprint(model) != state["fingerprint"]:
        raise CacheMismatch(
            f"{run} was trained with the cache {state['fingerprint']}, {cache.path} is {fingerprint(model)}",
            fix="give the run's own cache with --cache.",
        )
    identity, identities = identity_in(state, run), identities_of(cache, folder)
    # A bank that the run did not learn with was chosen for its texts: there is nothing to compare it with.
    differences = [] if config.train.closed_set else identities.tools(config).tool_differences(identity)
    refuse_other_data(
        differences,
        where=run,
        fix="give the cache it was trained with, train it again, or choose another bank with --text.",
    )
    load_weights(model, state)
    model.student.eval()
    if line := not_judged_note(cache, config.text, [head.name for head in model.heads]):
        note(line)
    return TrainedRun(
        checkpoint=checkpoint,
        model=model,
        identity=identity,
        identities=identities,
        pool=state["pool"],
        origin=origin,
        ends={"epochs": len(state["position"]["history"]), **chosen},
        progress=opening.get("progress") or Silent(),
    )


def chosen_eval_in(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the size and crop that a run chose, as its checkpoint keeps them; of none each is None."""
    chosen = state["position"].get("chosen_eval", {})
    return {name: chosen.get(name) for name in ("eval_size", "eval_crop")}


def _with_decoder(model: Model, decoder: str, *, note: Callable[[str], None]) -> Model:
    """Return a model whose photos are decoded as in its run, whatever the machine would choose."""
    if not isinstance(model, PhotoModel):
        return model
    if another := in_its_place(decoder):
        note(another)
    return replace(model, augment=replace(model.augment, decoder=decoder))


def _folder(
    opening: Opening, state: Mapping[str, Any], cache: EmbeddingCache, config: RunConfig
) -> DataFolder:
    if opening.get("rows_alone") and not cache.holds_episodes:
        return KeptFolder.of(cache.path, cache.manifest, cache.journal)
    return open_folder(
        cache,
        given_of(opening.get("data_dir")) or _data_of(state, cache),
        shared_classes=config.data.shared_classes,
        complete=False,
        fix="train with data.shared_classes=true.",
    )


def _untold(line: str) -> None:
    del line


def _data_of(state: Mapping[str, Any], cache: EmbeddingCache) -> tuple[str, ...]:
    """Return the sources of a run that are not the cache's; none where these are there or these were its."""
    own, then = sources_of(cache), KeptSources(given=tuple(state["sources"]))
    if cache.spec.format == WEBDATASET:  # an id_val is cut in another way out of tars than out of files
        return then.given
    return () if then.gone or (own.given and not own.gone) else then.given
