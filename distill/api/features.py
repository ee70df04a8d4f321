"""``distill.cache_features``: stage 1 from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, cast

from cache.build.first_look import DETAILS, check_support_views
from cache.build.from_folder import FeatureOptions
from cache.build.from_folder import cache_features as build_cache
from cache.reader import EmbeddingCache
from cache.runtime import machine_limits as limits
from cache.runtime.errors import UserError, nearest_names
from cache.sources.data import Data
from cache.sources.list_columns import Columns
from cache.sources.source_options import SourceOptions
from cache.sources.split_rules import SplitRule
from distill.api.given import Bounds, Place, Watching, check_bounds, listed, maybe_path, names_of, watched
from distill.api.traces import without_a_trace
from distill.api.words import told_in_python


class Reading(TypedDict, total=False):
    """How images are read, as the options of ``distill cache-features`` say.

    ``split`` is the rule for labelled images that have none, ``"id_test=0.2,ood_test=0.3 of classes"``;
    ``class_depth`` the folder below the split that is the class, 1 the first, -1 the last; ``names`` those of
    classes that are given as numbers, or the file of them, one a line; ``columns`` what a list's columns are
    called, ``{"label": "species"}``.
    """

    split: str
    class_depth: int
    names: Place | Sequence[str]
    columns: Mapping[str, str]


class Features(Reading, total=False):
    """Everything else that stage 1 can be told: the options of ``distill cache-features``, by their names.

    Left out they are as there. ``label2text``, ``descriptions``, ``captions`` and ``text_files`` are files,
    found beside the images where they are not given; ``templates`` such as ``"a sketch of {}"`` are averaged.
    """

    preprocessing: Literal["model", "squash"]
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    compile: bool
    format: Literal["hdf5", "webdataset"]
    dtype: Literal["float16", "float32"]
    batch_size: int | None
    workers: int | None
    strict: bool
    rebuild: bool
    neighbours: int | None
    support_views: int
    support_shots: int
    views: int | None
    views_scale: float
    view_policy: Literal["crop_flip", "randaugment"]
    store: Literal["raw", "pca128-int8"]
    pixels: int | None
    pixels_format: Literal["raw", "jpeg"]
    keep_text_tower: bool
    shared_classes: bool
    label2text: Place | None
    descriptions: Place | None
    captions: Place | None
    templates: str | Sequence[str]
    text_files: Place | Sequence[Place]
    teacher: str


BOUNDS: Bounds = {
    "batch_size": (1, limits.BATCH),
    "workers": (0, limits.most_processes()),
    "neighbours": (0, limits.NEIGHBOURS),
    "support_views": (0, limits.VIEWS),
    "support_shots": (0, None),
    "views": (1, limits.VIEWS),
    "views_scale": (0, 1),
    "pixels": (8, limits.IMAGE_SIDE),
}
_PATHS = ("label2text", "descriptions", "captions")


@told_in_python(Features)
@without_a_trace()
def cache_features(
    source: Data,
    out: Place,
    *,
    model: str = "ViT-L-14-quickgelu",
    pretrained: str | None = None,
    device: str = "auto",
    progress: Watching = False,
    **more: Unpack[Features],
) -> EmbeddingCache:
    """Run the teacher over images once, and keep its embeddings: stage 1.

    Called again it embeds what is new, and goes on where it was stopped.

    Parameters
    ----------
    source
        A folder, a list (.csv, .tsv, .jsonl), parquet, tars, or a folder saved by Hugging Face ``datasets``;
        ``"SPLIT=SOURCE"`` is all of one split; several in a list; or a ``torch.utils.data.Dataset`` of
        (PIL image or uint8 [H, W, 3] or [3, H, W], label), as ``{"train": dataset, "id_test": ...}``.
    out
        The cache's folder.
    model
        The teacher: an open_clip name, ``timm:NAME``, ``local-dir:FOLDER``, ``hf-hub:ORG/REPO``, or
        ``FILE.py:NAME``, which is run.
    pretrained
        Weights of a named model: a tag such as ``"openai"``, or a checkpoint file.
    device
        ``auto`` (CUDA, else Apple's GPU, else the CPU), ``cpu``, ``cuda``, ``cuda:N``, ``mps``.
    progress
        True writes lines to standard error; or an object with ``start``, ``advance`` and ``note``.
    more
        The command's other options: :class:`Features`.

    Returns
    -------
    EmbeddingCache
        The finished cache: ``cache.split("train").embeddings`` are its rows, float16 [N, D] unless told.

    Raises
    ------
    UserError
        If anything given is wrong; names, texts and shapes are looked at before the teacher is loaded.

    Examples
    --------
    >>> cache = distill.cache_features("photos", "artifacts/photos", pretrained="openai")  # doctest: +SKIP
    """
    options = _options(more)
    told = FeatureOptions(model=model, pretrained=pretrained, device=device, **options)
    with watched(progress, "embedding") as watching:
        build_cache(source, Path(out), told, progress=watching)
    return EmbeddingCache.open(Path(out))


def _options(more: Features) -> dict[str, Any]:
    """Return options of Python as :class:`FeatureOptions` takes them."""
    check_bounds(more, BOUNDS)
    check_support_views(more.get("support_views", 0))
    for own, owner in DETAILS.items():
        if own in more and not more.get(owner):
            raise UserError(f"{own} is of {owner}", fix="give that too, or leave it out.")
    options: dict[str, Any] = {n: v for n, v in more.items() if n not in Reading.__annotations__}
    options |= {name: maybe_path(cast(Any, value)) for name, value in more.items() if name in _PATHS}
    if "templates" in more:
        options["templates"] = listed(more["templates"])
    if "text_files" in more:
        options["text_files"] = tuple(map(Path, listed(more["text_files"])))
    return {**options, "sources": reading_of(more)}


def reading_of(given: Reading) -> SourceOptions:
    """Return how sources are read; UserError where the rule is none."""
    rule, depth, names = given.get("split"), given.get("class_depth", 1), names_of(given.get("names", ()))
    if depth < 1 and depth != -1:
        raise UserError(f"class_depth is {depth}", fix="give 1 or more, or -1 for the last folder.")
    if "" in names:
        raise UserError(f"names: line {names.index('') + 1} has no name", fix="write one name a line.")
    return SourceOptions(
        rule=SplitRule.parse(rule) if rule else None,
        class_depth=depth,
        columns=_columns(given.get("columns", {})),
        names=names,
    )


def _columns(given: Mapping[str, str]) -> Columns:
    names = Columns.__dataclass_fields__
    if wrong := next((name for name in given if name not in names), None):
        near = nearest_names(wrong, names)
        raise UserError(f"columns names {wrong!r}", fix=f"{near}choose from {', '.join(names)}.")
    return Columns(**given)
