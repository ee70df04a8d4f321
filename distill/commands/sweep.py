"""``distill sweep``: many runs of one question."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.runtime.errors import printable
from cache.runtime.torchrun import world_size
from distill.commands.options import (
    EXISTING_FOLDER,
    FOLDER,
    JOBS,
    json_option,
    ray_cluster,
    ray_options,
    set_option,
    wandb_option,
)
from distill.commands.tables import mean, print_json, table

if TYPE_CHECKING:
    from cache.runtime.ray_pool import RayCluster
    from distill.sweep.plan import Sweep
    from distill.sweep.run import Engine, Place, RunResult


@click.command()
@click.argument("sweep", metavar="SWEEP")
@click.option("--cache", required=True, type=EXISTING_FOLDER, help="The cache that all runs learn from.")
@click.option("--data", required=True, type=EXISTING_FOLDER, help="The images' folder.")
@click.option("--out", required=True, type=FOLDER, help="Where the runs go; run again, it continues.")
@click.option("--plan", is_flag=True, help="Print the runs, and do nothing.")
@click.option("--jobs", default=1, type=JOBS, help="Runs at once here.")
@click.option(
    "--together",
    is_flag=True,
    help="Train all that see the same batches beside each other, from one stream; set data.seed to share it.",
)
@set_option("Any setting of all runs. Repeatable.")
@ray_options
@wandb_option
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
      distill sweep losses --cache artifacts/photos --data photos --out runs/losses --plan
      distill sweep my-sweep.toml --cache artifacts/photos --data photos --out runs/mine --jobs 2
      distill sweep losses --cache artifacts/photos --data photos --out runs/losses --engine ray --gpus 0.5
      distill sweep vlalign --cache artifacts/photos --data photos --out runs/k --together --set data.seed=0
    """
    from distill.sweep.plan import load_sweep
    from distill.sweep.run import FAILED, Place, run_sweep

    if world_size() > 1:
        raise click.UsageError("a sweep starts its own processes: leave out torchrun.")
    cluster, jobs, together = ray_cluster(ctx, given), given.pop("jobs"), given.pop("together")
    if (together and jobs > 1) or (cluster and (together or jobs > 1)):
        raise click.UsageError("choose one: --jobs N, --together, or --engine ray.")
    planned, place = load_sweep(sweep, settings=settings), Place(**given)
    if plan and as_json:
        print_json(_plan(planned, place, together=together))
        return
    _print_plan(planned, place, together=together, to_stderr=not plan)
    if plan:
        return
    watch, runs = _watched(planned, place, jobs=jobs, together=together, cluster=cluster)
    with closing(watch):
        results = run_sweep(planned, place, runs, watch, command=sys.argv)
    if as_json:
        print_json([_plain(result) for result in results])
    else:
        _print_means(results, place.out)
    failed = [result for result in results if result.status == FAILED]
    for result in failed:
        click.echo(printable(f"failed: {result.run.name}: {result.error}"), err=True)
    sys.exit(1 if failed else 0)


def _print_plan(sweep: Sweep, place: Place, *, together: bool, to_stderr: bool) -> None:
    from distill.sweep.run import states

    state = states(sweep, place)
    click.echo(f"{sweep.question}\n{len(sweep.runs)} runs into {place.out}", err=to_stderr)
    for run in sweep.runs:
        click.echo(f"  {run.name}: {state[run.name]}", err=to_stderr)
    if together:
        from distill.sweep.together import groups_of, what_parts

        groups = groups_of(sweep.runs)
        apart = f", because of {', '.join(what_parts(sweep.runs))}" if len(groups) > 1 else ""
        sizes = ", ".join(str(len(group)) for group in groups)
        click.echo(f"streams of batches: {len(groups)} (students in each: {sizes}){apart}", err=to_stderr)


def _plan(sweep: Sweep, place: Place, *, together: bool) -> list[dict[str, Any]]:
    from distill.sweep.run import states

    state = states(sweep, place)
    stream: dict[str, dict[str, int]] = {}
    if together:
        from distill.sweep.together import groups_of

        groups = groups_of(sweep.runs)
        stream = {run.name: {"stream": i} for i, group in enumerate(groups) for run in group}
    return [
        {
            "name": run.name,
            "settings": run.settings,
            "seed": run.seed,
            "state": state[run.name],
            **stream.get(run.name, {}),
        }
        for run in sweep.runs
    ]


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


def _plain(result: RunResult) -> dict[str, Any]:
    run, summary = result.run, result.summary
    measures = ("_accuracy", "_precision", "_recall", "_f1")
    names = [name for name in summary if name.endswith(measures) and isinstance(summary[name], float)]
    return {
        "name": run.name,
        "settings": run.settings,
        "seed": run.seed,
        "status": result.status,
        **{name: summary[name] for name in (*names, "seconds") if name in summary},
        **({"error": result.error} if result.error else {}),
    }


def _print_means(results: Sequence[RunResult], out: Path) -> None:
    from distill.sweep.run import means_of

    rows = [
        [point["point"], str(point["n"]), *(mean(point, name) for name in ("id_test", "ood_test"))]
        for point in means_of(results)
    ]
    episodes = any(name.endswith("_average_precision") for r in results for name in r.summary)
    judged_by = "mean average precision" if episodes else "macro accuracy"
    table(f"{out}: {judged_by}, mean and deviation over seeds", ["", "n", "ID", "OOD"], rows)
