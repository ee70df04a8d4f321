"""A run's checkpoint, opened again and judged: what ``distill evaluate RUN`` calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from cache import EmbeddingCache
from cache.runtime.devices import choose_device
from cache.runtime.errors import CacheMismatch, UserError
from cache.runtime.progress import Progress, Silent
from cache.sources.decoders import in_its_place
from cache.sources.kept_sources import KeptSources
from cache.sources.samples import DataFolder
from cache.store.kept_rows import KeptFolder
from cache.store.spec import WEBDATASET
from distill.checkpoint import read_checkpoint
from distill.config import RunConfig
from distill.data.folders import Data, given_of, open_folder, sources_of
from distill.data.tar_identities import identities_of
from distill.data.teacher_texts import not_judged_note
from distill.data_identity import identity_in, refuse_other_data
from distill.judge.evaluate import Result, refuse_negative_text
from distill.judge.model import Model, fingerprint, load_weights, open_model, outputs_of
from distill.judge.space_of_split import open_teacher_rows, space_of_split, teacher_has_rows
from distill.judge.trained_run import TrainedRun
from distill.record.run_files import checkpoint_file
from distill.settings import from_toml, with_part, with_settings
from distill.student.build import Origin
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
