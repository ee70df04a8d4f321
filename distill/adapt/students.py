"""The students that are trained, one after the other: what each is called, and its settings."""

from __future__ import annotations

from dataclasses import replace

from cache import EmbeddingCache
from cache.runtime.devices import choose_device
from distill.adapt.costs import HEAD_BATCH, head_epochs
from distill.adapt.options import AdaptOptions
from distill.config import RunConfig
from distill.data.pool import has_pool
from distill.settings import load_recipe, with_part
from distill.student.first_weights import FirstWeights
from distill.train.default_recipe import HEAD_FIRST, WITH_POOL
from distill.train.session import origin_of

CLOSED_FORM, HEAD, TRAINED = "closed-form", "head", "run"
IN_WORDS = {CLOSED_FORM: "the closed form", HEAD: "the trained head", TRAINED: "the trained student"}
# Of labelled images, and of a pool alone, that nothing is learnt from, to choose on.
ID_VAL, POOL_VAL = 0.2, 0.1
# A kill costs no more steps.
SAVED_EVERY = 100
# Of a head on features, as the sweep trained-heads has them.
HEAD_RATE, HEAD_DECAY, HEAD_NOISE = 1e-3, 0.01, 0.5


def recipe_of(options: AdaptOptions) -> RunConfig:
    """Return how a student is trained; UserError where its first weights cannot be had."""
    config = load_recipe(HEAD_FIRST)
    given = {"arch": options.arch or config.student.arch, "start": options.start or config.student.start}
    config = with_part(config, "student", **given)
    config = with_part(
        config, "train", seed=options.seed, device=options.device, checkpoint_steps=SAVED_EVERY
    )
    # One model is shipped: no means are judged beside it, which takes as long again.
    config = with_part(with_part(config, "eval", every=0), "optim", average_with_start=0.0)
    choose_device(options.device)  # before weights are looked for
    FirstWeights().find(config.student, origin_of(config, code=options.code))
    return config


def of_cache(recipe: RunConfig, cache: EmbeddingCache) -> RunConfig:
    """Return how a student of this cache is trained: with a pool where there is one, by what there is."""
    config = replace(recipe, loss=load_recipe(WITH_POOL if has_pool(cache) else HEAD_FIRST).loss)
    if "train" in cache.split_names and bool((cache.split("train").labels >= 0).any()):
        return with_part(config, "data", id_val=ID_VAL)
    config = with_part(config, "student", ridge=0.0)
    return with_part(with_part(config, "loss", cls=0.0), "data", pool_val=POOL_VAL)


def closed_form(config: RunConfig) -> RunConfig:
    """Return it as a head by ridge alone."""
    return with_part(config, "train", head_only=CLOSED_FORM)


def trained_head(config: RunConfig, images: int) -> RunConfig:
    """Return it as a head trained on the features of so many ``images``."""
    epochs = head_epochs(images)
    config = with_part(config, "student", feature_noise=HEAD_NOISE)
    config = with_part(config, "optim", lr=HEAD_RATE, weight_decay=HEAD_DECAY)
    return with_part(config, "train", head_only="trained", epochs=epochs, batch_size=HEAD_BATCH)
