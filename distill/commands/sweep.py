"""``distill sweep``: many runs of one question."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.runtime.errors import WrongOption, printable, some_of
from cache.runtime.torchrun import world_size
from distill.commands.options import (
    EXISTING_FOLDER,
    FOLDER,
    JOBS,
    boards_of,
    boards_options,
    code_option,
    data_option,
    json_option,
    option,
    ray_cluster,
    ray_options,
    set_option,
)
from distill.commands.tables import loading, mean, percent, print_json, table
from distill.headline import SET_ASIDE

if TYPE_CHECKING:
    from cache.runtime.ray_pool import RayCluster
    from distill.sweep.plan import Sweep
    from distill.sweep.run import Engine, Place, RunResult


@click.command()
@click.argument("sweep", metavar="SWEEP")
@option("--cache", "A finished cache, that all runs learn from.", EXISTING_FOLDER, required=True)
@data_option("data")
@option("--out", "Where the runs go; run again, it continues.", FOLDER, required=True)
@option("--plan", "Print the runs, and do nothing.", bool)
@option("--jobs", "Runs at once here.", JOBS, 1)
@option("--together", "Train all that see the same batches from one stream; data.seed shares it.", bool)
@option("--choose", "Name the best point on what every run set aside; no test chooses.", [*SET_ASIDE])
@set_option("Any setting of all runs. Repeatable.")
@code_option
@ray_options
@boards_options
@json_option("Print how every run ended as JSON; with --plan, the plan.")
@click.pass_context
def sweep(
    ctx: click.Context, sweep: str, settings: tuple[str, ...], plan: bool, as_json: bool, **given: Any
) -> None:
    """Train the runs of SWEEP from one cache.

    SWEEP is a TOML file or one that comes with the package. Finished runs are skipped, interrupted ones go
    on, and a failed one stops no other. --plan --json prints a list of {name, settings, seed, state}; with
    --together each has its stream of batches too, from 0.

    \b
    Examples:
      distill sweep losses --cache artifacts/photos --out runs/losses --plan
      distill sweep my-sweep.toml --cache artifacts/photos --out runs/mine --jobs 2
      distill sweep losses --cache artifacts/photos --out runs/losses --engine ray --gpus 0.5
      distill sweep vlalign --cache artifacts/photos --out runs/k --together --set data.seed=0
    """
    from cache import EmbeddingCache
    from distill.sweep.plan import load_sweep

    if world_size() > 1:
        raise click.UsageError("a sweep starts its own processes: leave out torchrun.")
    choose = given.pop("choose")
    cluster, jobs, together = ray_cluster(ctx, given), given.pop("jobs"), given.pop("together")
    if (together and jobs > 1) or (cluster and (together or jobs > 1)):
        raise click.UsageError("choose one: --jobs N, --together, or --engine ray.")
    planned, boards = load_sweep(sweep, settings=settings), boards_of(given)
    _check_choice(planned, choose)
    EmbeddingCache.open(given["cache"])  # before torch is imported: there may be none
    with loading():
        from distill.sweep.run import FAILED, Place, chosen_point, run_sweep
    place = Place(boards=boards, **given)
    lines = _plan(planned, place, together=together)
    if plan and as_json:
        print_json(lines)
        return
    _print_plan(planned, place, lines, to_stderr=not plan)
    if plan:
        return
    watch, runs = _watched(planned, place, jobs=jobs, together=together, cluster=cluster)
    with closing(watch):
        results = run_sweep(planned, place, runs, watch, command=sys.argv)
    chosen = chosen_point(results, choose) if choose else None
    if as_json:
        print_json([_plain(result, chosen) for result in results])
    else:
        _print_means(results, place.out)
        if chosen:
            score = f"{chosen[1]:.3f}" if _by_cosine(results, str(choose)) else percent(chosen[1])
            click.echo(f"chosen by {choose}: {printable(chosen[0])} ({score})")
    failed = [result for result in results if result.status == FAILED]
    for result in failed:
        click.echo(printable(f"failed: {result.run.name}: {result.error}"), err=True)
    sys.exit(1 if failed else 0)


def _check_choice(sweep: Sweep, choose: str | None) -> None:
    """Refuse to choose on what a run does not set aside, before any begins; WrongOption."""
    without = [run.name for run in sweep.runs if choose and not getattr(run.config.data, choose)]
    if without:
        raise WrongOption(
            f"--choose {choose}: {some_of(without)} set no {choose} aside",
            fix=f"add --set data.{choose}=0.2.",
        )


def _plan(sweep: Sweep, place: Place, *, together: bool) -> list[dict[str, Any]]:
    """Return a line for every run; with ``together`` which stream of batches it is taught from."""
    from distill.sweep.run import states

    state = states(sweep, place)
    lines: list[dict[str, Any]] = [
        {"name": run.name, "settings": run.settings, "seed": run.seed, "state": state[run.name]}
        for run in sweep.runs
    ]
    if together:
        from cache import EmbeddingCache
        from distill.data.pool import has_pool
        from distill.data.replayed_views import has_views
        from distill.sweep.together import groups_of

        cache = EmbeddingCache.open(place.cache)
        groups = groups_of(sweep.runs, pool=has_pool(cache), views=has_views(cache))
        stream = {run.name: i for i, group in enumerate(groups) for run in group}
        for line in lines:
            line["stream"] = stream[line["name"]]
    return lines


def _print_plan(sweep: Sweep, place: Place, lines: Sequence[dict[str, Any]], *, to_stderr: bool) -> None:
    click.echo(f"{sweep.question}\n{len(sweep.runs)} runs into {place.out}", err=to_stderr)
    for line in lines:
        click.echo(f"  {line['name']}: {line['state']}", err=to_stderr)
    sizes = Counter(line["stream"] for line in lines if "stream" in line)
    if sizes:
        from cache import EmbeddingCache
        from distill.data.pool import has_pool
        from distill.data.replayed_views import has_views
        from distill.sweep.together import what_parts

        cache = EmbeddingCache.open(place.cache)
        parts = what_parts(sweep.runs, pool=has_pool(cache), views=has_views(cache))
        apart = f", because of {', '.join(parts)}" if len(sizes) > 1 else ""
        students = ", ".join(map(str, sizes.values()))
        click.echo(f"streams of batches: {len(sizes)} (students in each: {students}){apart}", err=to_stderr)


def _watched(
    sweep: Sweep, place: Place, *, jobs: int, together: bool, cluster: RayCluster | None
) -> tuple[Any, Engine]:
    from cache.runtime.progress import progress_for
    from distill.sweep.run import Processes
    from distill.sweep.watch import Lines, LiveTable

    if together:  # its bar is the live part
        from distill.sweep.together import Together

        return Lines(sweep.runs, place), Together(progress=progress_for("training"))
    watch = LiveTable(sweep.runs, place) if sys.stderr.isatty() else Lines(sweep.runs, place)
    if cluster:
        from distill.sweep.ray import RayRuns

        return watch, RayRuns(cluster=cluster, warn=watch.warn)
    return watch, Processes(jobs=jobs)


def _plain(result: RunResult, chosen: tuple[str, float] | None) -> dict[str, Any]:
    run, summary = result.run, result.summary
    measures = ("_accuracy", "_precision", "_recall")
    names = [name for name in summary if name.endswith(measures) and isinstance(summary[name], float)]
    return {
        "name": run.name,
        "settings": run.settings,
        "seed": run.seed,
        "status": result.status,
        **{name: summary[name] for name in (*names, "seconds") if name in summary},
        **({"chosen": run.point == chosen[0]} if chosen else {}),
        **({"error": result.error} if result.error else {}),
    }


def _by_cosine(results: Sequence[RunResult], split: str) -> bool:
    from distill.headline import headline, is_by_cosine

    judged = [r.summary for r in results if headline(r.summary, split) is not None]
    return bool(judged) and all(is_by_cosine(summary, split) for summary in judged)


def _print_means(results: Sequence[RunResult], out: Path) -> None:
    from distill.headline import NOTHING_TO_JUDGE, headline_label, headline_splits
    from distill.sweep.run import means_of

    summaries = [result.summary for result in results]
    splits = headline_splits(summaries)
    rows = [
        [
            point["point"],
            str(point["n"]),
            *(mean(point, split, cosine=_by_cosine(results, split)) for split in splits),
        ]
        for point in means_of(results)
    ]
    episodes = any(name.endswith("_average_precision") for r in results for name in r.summary)
    judged_by = "mean average precision" if episodes else "macro accuracy"
    if splits and all(_by_cosine(results, split) for split in splits):
        judged_by = "mean cosine with the teacher"
    heads = ["", "n", *(headline_label(summaries, split) for split in splits)]
    table(f"{out}: {judged_by}, mean and deviation over seeds", heads, rows)
    if any(summaries) and not splits:
        click.echo(f"note: {NOTHING_TO_JUDGE}")
