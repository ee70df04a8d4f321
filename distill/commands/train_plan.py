"""What ``distill train --plan`` prints: a run that is not made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from cache.runtime.errors import printable
from distill.commands.tables import print_json, table


def print_plan(plan: Mapping[str, Any], *, recipe: str, unit: str, as_json: bool) -> None:
    """Print what :func:`distill.train.plan.plan` says; as JSON all of it, with every setting."""
    if as_json:
        print_json({"recipe": recipe, **plan})
        return
    changed = _other_than_default(plan["config"])
    click.echo(printable(f"recipe {recipe}; settings other than the defaults:"))
    for name, value in changed.items():
        click.echo(printable(f"  {name} = {value}"))
    images, steps, rates, seconds = (plan[name] for name in ("images", "steps", "rates", "seconds"))
    pool = (
        f", {images['pool']:,} without a label ({plan['pool_share']:.0%} of a batch)"
        if images["pool"]
        else ""
    )
    judged = ", ".join(f"{name} {count:,}" for name, count in plan["judged"].items())
    rows = {
        "cache": plan["cache"],
        "learnt from": f"{images['train']:,} {unit}{pool}",
        "judged on": judged or "nothing",
        "starts from": plan["start"],
    }
    if plan["views"]:
        rows["views"] = f"{plan['views']} an image"
    if steps["all"]:
        rows["steps"] = f"{steps['epoch']:,} an epoch, {steps['all']:,} in all"
        rows["learning rate"] = ", ".join(f"{rate:.2g} at its {when}" for when, rate in rates.items())
        rows["a step"] = f"{seconds['step']:,.2f} s, by a few of them on {plan['device']}"
    parts = [
        f"{what} {_time(seconds[what])}" for what in ("features", "training", "judging") if seconds[what]
    ]
    rows["time"] = f"{_time(seconds['all'])} or so ({', '.join(parts)})"
    table("a run would be", ["", ""], list(rows.items()))


def _other_than_default(config: Mapping[str, Any]) -> dict[str, str]:
    """Return those settings whose value is not the default, as TOML writes it."""
    from distill.config import RunConfig
    from distill.settings import flat, toml_value

    default = flat(asdict(RunConfig()))
    return {name: toml_value(value) for name, value in config.items() if value != default[name]}


def _time(seconds: float) -> str:
    """Return a time in the unit that people would say it in."""
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
