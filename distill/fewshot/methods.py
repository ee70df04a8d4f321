"""Several ways to learn from one support, side by side: a table and a plot of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import write_json
from cache.runtime.progress import Progress
from distill.fewshot.plot import draw_methods
from distill.fewshot.project import ProjectJudge
from distill.fewshot.retrieval import Judge
from distill.fewshot.run import FewShotOptions, check_method, teach
from distill.judge.trained_run import TrainedRun
from distill.record.run_files import FEWSHOT, FEWSHOT_PLOT


def teach_by_all(
    trained: TrainedRun, folders: Mapping[str, Path], out: Path, options: FewShotOptions, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Return what :func:`distill.fewshot.run.teach` gives by method, each with its own folder.

    The student sees the OOD images once for all of them. Of several, all their tables and a plot are written
    to ``out``. UserError as there, before the first is begun where a method does not fit the run.
    """
    trained = replace(trained, progress=progress)
    for method in folders:
        check_method(trained, trained.checkpoint.parent, replace(options, method=method))
    judge = Judge(trained)
    if "project" in folders:
        judge = ProjectJudge(trained, folders["project"], progress)
    results = {
        method: teach(trained, folder, replace(options, method=method), progress, judge=judge)
        for method, folder in folders.items()
    }
    if len(results) > 1:
        tables = {method: one["table"] for method, one in results.items()}
        write_json(out / FEWSHOT, {"run": str(trained.checkpoint.parent), "tables": tables})
        title = f"{trained.checkpoint.parent.name}: few-shot"
        draw_methods(out / FEWSHOT_PLOT, tables, of=trained.model.measure, title=title)
    return results
