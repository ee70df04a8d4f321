"""``distill robotics``: stage 1 for episodes of a robot, with several objects each, and episodes to try.

Their cache is trained from and judged by the same commands as one of photos.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cache.runtime import machine_limits as bounds
from cache.store.manifest import check_is_cache_or_empty
from distill.commands.episodes import EPISODES, UNITS
from distill.commands.options import (
    COUNT,
    EXISTING_FOLDER,
    FILE,
    FOLDER,
    cache_out_option,
    option,
    seed_option,
    teacher_options,
    template_option,
    wants_weights,
)
from distill.commands.tables import loading, print_build, working


@click.command("make-demo")
@click.argument("out", type=FOLDER)
@seed_option("Decides everything.")
@option("--image-size", "Side of every picture, pixels.", click.IntRange(16, bounds.IMAGE_SIDE), 64)
@option("--train", "Training episodes.", COUNT, 480)
@option("--id-test", "ID test episodes.", COUNT, 120)
@option("--ood-test", "OOD test episodes.", COUNT, 160)
def make_demo(out: Path, **given: Any) -> None:
    """Draw small episode files into OUT.

    They are shapes on a table, seen by a base and a hand camera, with depth.

    Example: distill robotics make-demo artifacts/robotics/data
    """
    from distill.demo.episodes import NEGATIVE_TEMPLATE, TEMPLATE, draw_episodes

    counts = draw_episodes(out, **given)
    click.echo(f"{out}: {', '.join(f'{count:,} episodes of {name}' for name, count in counts.items())}")
    click.echo(
        f"the small CLIP that ships tells their objects by --template {TEMPLATE!r} --negative-template "
        f"{NEGATIVE_TEMPLATE!r}"
    )


@click.command("cache-features")
@click.argument("data", type=EXISTING_FOLDER)
@cache_out_option
@template_option("; the positive prompt  [default: You can find a {} in this image, except a robot arm.]")
@option(
    "--negative-template TEXT negative_templates",
    "The same of the negative prompt  [default: You cannot find a {} in this image, except a robot arm.]",
    multiple=True,
)
@option("--descriptions", "OBJECT<TAB>TEXT a line, e.g. 011_banana; chatgpt.txt in DATA is found.", FILE)
@option(
    "--negative-descriptions", "The same of negative prompts; chatgpt_negative.txt in DATA is found.", FILE
)
@option(
    "--episode-keys",
    "TOML that maps your files' keys: cameras, objects. The cache keeps it  [default: the cache's]",
    FILE,
)
@option("--regions", "Keep 7x7 region embeddings of every camera (ViT teachers).", bool)
@teacher_options
def cache_features(data: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Run the teacher over DATA's episodes once (stage 1).

    Every camera's embeddings are kept. Episodes have several objects in a scene, seen by cameras with depth
    or without; they lie in DATA/train.h5, DATA/val_on_train.h5 and DATA/val.h5.

    Example: distill robotics cache-features episodes --out artifacts/episodes --pretrained openai
    """
    wants_weights(given)
    check_is_cache_or_empty(out)
    with loading():
        from cache.build.from_episodes import EpisodeOptions, cache_episode_features
    options = EpisodeOptions(**{name: value for name, value in given.items() if value not in (None, ())})
    with working("embedding", UNITS[EPISODES]) as progress:
        summary = cache_episode_features(data, out, options, progress=progress)
    print_build(summary, out, as_json=as_json, unit=UNITS[EPISODES])
