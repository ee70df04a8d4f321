"""Prove on one machine what its GPU reaches: see scripts/gpu_check.sh, which is how it is run.

The parts are processes of their own with a time limit each, one after the other; what fails or overruns is
recorded as such, and the rest goes on. Of the standard library alone until what is needed is there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu.children import FAILED, OK, OVERRAN, Outcome, part_command, run_part
from gpu.parts import MULTI, PARTS, TOTAL_S, chosen_parts
from gpu.report import goals, written
from gpu.wheels import listing, with_wheels

ROOT = Path(__file__).parent.parent
# Of a result, beside its command, what BENCHMARKS.md keeps.
KEPT = ("date", "card", "driver", "versions", "rows")


def main(words: Sequence[str] | None = None) -> int:
    """Parse, and run one part or all."""
    args = parsed(words)
    if args.list_wheels:
        print(listing())
        return 0
    if args.keep_from:
        return keep(earlier(args.keep_from), args.keep)
    if args.part:
        return one_part(args)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"Error: {args.out} cannot be a folder ({error.strerror}). Fix: choose another --out.")
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        if problem := with_wheels(os.environ.get("WHEELS", ""), Path(scratch) / "packages"):
            print(f"Error: {problem}", file=sys.stderr)
            return 1
        outcomes, result = all_parts(args, Path(scratch))
    return ended(args, outcomes, result)


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(prog="gpu_check.sh", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: a small form of all.")
    parser.add_argument("--multi", action="store_true", help="Two processes as well, by NCCL, or gloo.")
    parser.add_argument("--out", type=Path, default=Path("artifacts/gpu"), metavar="DIR")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, *MULTI], metavar="PART", help="These parts.")
    parser.add_argument("--keep", metavar="MACHINE", help="Keep it in BENCHMARKS.md under this name.")
    parser.add_argument("--keep-from", type=Path, metavar="FILE", help="Keep an earlier gpu_check.json.")
    parser.add_argument("--list-wheels", action="store_true", help="What it needs beside torch.")
    parser.add_argument("--part", choices=[*PARTS, *MULTI], help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.keep_from and not args.keep:
        parser.error("--keep-from goes with --keep MACHINE")
    if args.keep and args.device == "cpu" and not args.keep_from:
        parser.error("--keep is of a GPU's numbers: leave out --device cpu")
    return args


def earlier(path: Path) -> dict[str, Any]:
    """Return what an earlier check wrote; the program ends with one line where that cannot be read."""
    try:
        result: dict[str, Any] = json.loads(path.read_bytes())
        if not {"command", *KEPT} <= result.keys():
            raise ValueError("it holds something else")
    except (OSError, ValueError, AttributeError) as error:
        sys.exit(f"Error: {path} is no result of this check ({error}). Fix: give a gpu_check.json.")
    return result


def all_parts(args: argparse.Namespace, scratch: Path) -> tuple[list[Outcome], dict[str, Any]]:
    """Run all parts, each within its limit and what is left of the whole; write the JSON after each."""
    began, outcomes, result = time.monotonic(), list[Outcome](), dict[str, Any]()
    command = f"bash scripts/gpu_check.sh {'--multi' if args.multi else ''}".strip()
    parts = chosen_parts(args.multi or "several" in (args.only or ()))
    for name in parts if args.only is None else [name for name in parts if name in args.only]:
        left = TOTAL_S - (time.monotonic() - began)
        (args.out / f"{name}.json").unlink(missing_ok=True)
        words = ["--device", args.device, "--scratch", str(scratch)]
        limit = min(parts[name].limit, left)
        outcome = run_part(name, part_command(name, words, args.out), limit=limit, folder=args.out)
        outcomes.append(outcome)
        said = f": {outcome.said}" if outcome.said else ""
        print(f"{parts[name].title:18} {outcome.state} in {outcome.seconds:.0f} s{said}", flush=True)
        result = written(args.out, outcomes, command)
        if name == "machine" and outcome.state != OK:
            break  # no part could do more
    return outcomes, result


def one_part(args: argparse.Namespace) -> int:
    """Run a part here, in the process that was started for it."""
    sys.path.insert(0, str(ROOT))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    from cache.runtime.devices import choose_device
    from cache.runtime.errors import UserError
    from gpu.work import Work, writer

    try:
        device = choose_device(args.device)
        keep_rows = writer(args.out / f"{args.part}.json")
        work = Work(device=device, small=args.device == "cpu", scratch=args.scratch, keep=keep_rows)
        (PARTS | MULTI)[args.part].load()(work)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def ended(args: argparse.Namespace, outcomes: Sequence[Outcome], result: dict[str, Any]) -> int:
    """Print the table and the goals, write the table, keep the result where asked; return the status."""
    sys.path.insert(0, str(ROOT))
    from bench import table_lines
    from benchmarks.gpu import COLUMNS

    lines = table_lines(COLUMNS, [{"machine": args.keep or "here", **result}])
    (args.out / "GPU.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n" + "\n".join(lines) + "\n")
    met, missed = goals(result["rows"])
    for text in met:
        print(f"met      {text}")
    for text in missed:
        print(f"NOT met  {text}")
    print(f"{args.out / 'gpu_check.json'}; {args.out / 'GPU.md'}; a log of each part beside them")
    if args.keep:
        keep(result, args.keep)
    return 1 if any(outcome.state in (FAILED, OVERRAN) for outcome in outcomes) else 0


def keep(result: dict[str, Any], machine: str) -> int:
    """Keep a result in BENCHMARKS.md, under a machine's name."""
    sys.path.insert(0, str(ROOT))
    import bench

    keep_in(bench.RESULTS, result, machine)
    bench.write_page()
    return 0


def keep_in(folder: Path, result: dict[str, Any], machine: str) -> None:
    """Keep a result among those of a folder; a machine that is new there is added by what it is."""
    import bench

    names = bench.machines(folder)
    if machine not in names:
        said = [row["said"] for row in result["rows"] if row["part"] == "machine"]
        bench.write_json(folder / "machines.json", names | {machine: "; ".join(said)})
    run = {name: result[name] for name in KEPT}
    command = f"{result['command']} --keep MACHINE"
    bench.keep("gpu", {"machine": machine, "command": command, **run}, folder)
    kept = bench.kept_of("gpu", folder)
    bench.write_json(folder / "gpu.json", {**kept, "notes": []})  # which said that it is still to be run


if __name__ == "__main__":
    sys.exit(main())
