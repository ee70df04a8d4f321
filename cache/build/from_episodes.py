"""Stage 1 from episode files: what ``distill robotics cache-features`` calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.build.distinct_texts import SAME_ROW, check_positions
from cache.build.options import Build, BuildOptions
from cache.build.pipeline import build_cache
from cache.build.summary import BuildSummary
from cache.runtime.distributed import ranks_of_torchrun
from cache.runtime.errors import UserError, shortened
from cache.runtime.progress import Progress, Silent
from cache.sources.class_texts import BankTexts
from cache.sources.episode_keys import RESEARCH_KEYS, EpisodeKeys
from cache.sources.episode_texts import NEGATIVE, NEGATIVE_TEMPLATE, POSITIVE_TEMPLATE, episode_banks
from cache.sources.episodes import EpisodeFolder
from cache.sources.kept_sources import KeptSources
from cache.sources.source_options import AS_THEY_ARE
from cache.store.manifest import EPISODES, NAME, Manifest
from cache.store.neighbours import unit_rows
from cache.store.spec import WEBDATASET
from cache.teacher.teacher import Teacher
from cache.teacher.templates import templates_of


@dataclass(frozen=True, kw_only=True)
class EpisodeOptions(BuildOptions):
    """Everything that ``distill robotics cache-features`` can be told.

    Descriptions left None are looked for in DATA: one line an object, ID objects sorted, then OOD ones.
    ``episode_keys`` left None are those of the cache, where there is one, or the research code's.
    """

    templates: tuple[str, ...] = (POSITIVE_TEMPLATE,)
    negative_templates: tuple[str, ...] = (NEGATIVE_TEMPLATE,)
    descriptions: Path | None = None
    negative_descriptions: Path | None = None
    episode_keys: Path | None = None
    regions: bool = False


def cache_episode_features(
    data: Path, out: Path, options: EpisodeOptions, *, progress: Progress | None = None
) -> BuildSummary:
    """Embed every camera of every episode and the objects' texts into ``out``; run again, it continues.

    ``image_embedding`` is the main camera's (the hand's), ``base_embedding`` the base camera's, and so on;
    with ``regions`` there are ``image_region_embedding`` and ``base_region_embedding`` [49, D] too.

    Raises
    ------
    UserError
        If anything the user gave is wrong.
    """
    progress = progress or Silent()
    if options.format == WEBDATASET:
        raise UserError(
            "a WebDataset has the file of one picture beside each row, and an episode has none of its own",
            fix="leave out --format.",
        )
    keys = _keys_of(out, options.episode_keys)
    folder = EpisodeFolder.scan(data, keys)
    banks = episode_banks(
        folder,
        templates=templates_of(options.templates),
        negative_templates=options.negative_templates,
        descriptions=options.descriptions,
        negative_descriptions=options.negative_descriptions,
    )
    check_positions(out, banks)
    progress.start(None, "loading the teacher", "")
    teacher = options.load_for(out)
    if options.regions:
        teacher.check_regions()
    if options.keep_text_tower:
        teacher.text_side().check_kept()
    check_pairs(banks, teacher)
    build = Build(
        folder=folder,
        out=out,
        teacher=teacher,
        spec=options.spec(teacher, regions=options.regions, keys=keys),
        banks=banks,
        options=options.on(teacher, batch_size=16, on_gpu=128),
        progress=progress,
        command=EPISODES,
        sources=KeptSources.of([data], AS_THEY_ARE),
    )
    with ranks_of_torchrun() as ranks:
        return build_cache(replace(build, ranks=ranks))


def _keys_of(out: Path, given: Path | None) -> EpisodeKeys | None:
    """Return what a mapping file says, or else the cache that is there; None for the research code's keys."""
    if given is not None:
        keys = EpisodeKeys.load(given)
        return keys if keys != RESEARCH_KEYS else None
    return Manifest.load(out).spec.episode_keys if (out / NAME).is_file() else None


def check_pairs(banks: Sequence[BankTexts], teacher: Teacher) -> None:
    """Make sure that the teacher tells each object's positive text from its negative ones.

    With one text for both every score is 1/2, and every object is seen everywhere.

    Raises
    ------
    UserError
        If it reads the same tokens in two, or gives two the same embedding.
    """
    rows, tokens = zip(*(_of_objects(bank, teacher) for bank in banks), strict=True)
    for one, other in combinations(range(len(banks)), 2):
        if (NEGATIVE in banks[one].name) == (NEGATIVE in banks[other].name):
            continue
        apart = np.linalg.norm(rows[one] - rows[other], axis=1)
        same = [tokens[one][i] == tokens[other][i] for i in range(len(apart))]
        for i in np.flatnonzero(same | (apart < SAME_ROW)).tolist():
            pair = sorted((banks[one], banks[other]), key=lambda bank: NEGATIVE in bank.name)
            name = [*dict.fromkeys(banks[one].classes)][i]
            texts = [bank.texts[bank.classes.index(name)] for bank in pair]
            what = "tokens, cut to its context" if same[i] else "embedding"
            raise UserError(
                f"the teacher gives the positive and the negative text of {name!r} the same "
                f"{what}, so that no score could tell them apart: "
                f"{' and '.join(shortened(text, 80) for text in texts)}",
                fix="give prompts in words that it tells apart, such as --template 'a photo of {}' "
                "--negative-template 'a grey background'.",
            )


def _of_objects(bank: BankTexts, teacher: Teacher) -> tuple[NDArray[np.float32], list[list[tuple[int, ...]]]]:
    """Return what a teacher makes of a bank's objects: unit rows [C, D], of several their mean; tokens."""
    each = len(bank.texts) // len({*bank.classes})  # an object's texts follow one another
    rows = unit_rows(teacher.embed_texts(bank.texts)[0].float().numpy())
    tokens = teacher.token_ids(bank.texts)
    means = unit_rows(rows.reshape(-1, each, rows.shape[1]).mean(axis=1))
    return means, [sorted(tokens[i : i + each]) for i in range(0, len(tokens), each)]
