"""What the check leaves behind: JSON, and the table that BENCHMARKS.md has. Of the standard library alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpu.children import OK, Outcome
from gpu.parts import chosen_parts

TITLES = {name: part.title for name, part in chosen_parts(multi=True).items()}
# What a row has for the table; the rest of it is for the JSON.
FOR_JSON = ("card", "driver", "versions")


def written(out: Path, outcomes: Sequence[Outcome], command: str) -> dict[str, Any]:
    """Write gpu_check.json, and return what it holds; it is written anew after every part."""
    facts = {name: value for one in outcomes for row in one.rows for name, value in row.items()}
    result = {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "card": facts.get("card", ""),
        "driver": facts.get("driver", ""),
        "versions": facts.get("versions", {}),
        "parts": [asdict(outcome) for outcome in outcomes],
        "rows": table_rows(outcomes),
    }
    temporary = out / ".gpu_check.json.tmp"
    temporary.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(out / "gpu_check.json")
    return result


def table_rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return the table's rows: those of every part, and one of each that did not end well."""
    rows = []
    for outcome in outcomes:
        title = TITLES[outcome.name]
        for row in outcome.rows:
            shown = {name: value for name, value in row.items() if name not in FOR_JSON and value is not None}
            rows.append({"part": title, **shown})
        if outcome.state != OK:
            rows.append({"part": title, "what": outcome.state, "said": outcome.said})
    return rows


def goals(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Return in words which goals were met, and which were not."""
    named = [(f"{row['part']}: {row['what']} ({row['goal']})", row["met"]) for row in rows if row.get("goal")]
    return [text for text, met in named if met == "yes"], [text for text, met in named if met != "yes"]
