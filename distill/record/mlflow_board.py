"""The only importer of mlflow: a run's numbers in an experiment of MLflow, as TensorBoard gets them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from cache.runtime.errors import UserError, missing_package, printable
from distill.config import RunConfig
from distill.record.board import columns_of, keep_id, kept_id, numbers_of, sweep_of
from distill.settings import flat

ID = "mlflow-run-id.txt"
# What MLflow takes at once, and the longest value that it takes.
PARAMETERS, METRICS, LONGEST = 100, 1000, 5000
# Of a server that is gone: unless told, MLflow would ask for four minutes, at every epoch.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


def mlflow_module() -> ModuleType:
    """Return mlflow; UserError where it is not installed. Its telemetry is off unless asked for."""
    for name, value in {"MLFLOW_DISABLE_TELEMETRY": "true", **PATIENCE}.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow
    except ImportError as error:
        raise missing_package(error, extra="mlflow") from error
    module: ModuleType = mlflow
    return module


class MlflowRun:
    """One run of an MLflow experiment, named as its folder; those of a sweep carry its name as a tag.

    MLFLOW_TRACKING_URI and the like say where. A resumed run goes on in the same one: its id is kept in the
    folder. A server that goes away in mid-run stops no training, whatever MLflow raises then, plain
    Exceptions too: how many epochs it lacks is said at the end.
    """

    def __init__(self, experiment: str, folder: Path, config: RunConfig) -> None:
        """Begin a run, or go on with it.

        UserError if mlflow is not installed, or cannot begin: without a server, say.
        """
        mlflow, self._missed, self._status, self._epoch = mlflow_module(), 0, "KILLED", 0
        try:
            self._client = mlflow.MlflowClient()
            self._id = kept_id(folder / ID) or self._new(experiment, folder)
            self._client.update_run(self._id, status="RUNNING")
            self._log_settings(config)
        except UserError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"MLflow cannot begin ({reason})",
                fix="set MLFLOW_TRACKING_URI to a server that runs, as http://HOST:5000 of 'mlflow server'.",
            ) from error
        keep_id(folder / ID, self._id)

    def _new(self, experiment: str, folder: Path) -> str:
        with suppress(Exception):  # where it is there: runs of a sweep begin at once
            self._client.create_experiment(experiment)
        there = self._client.get_experiment_by_name(experiment)
        if there is None:
            raise UserError(f"MLflow makes no experiment {experiment!r}", fix="choose another --mlflow.")
        sweep = sweep_of(folder)
        tags = {"sweep": sweep} if sweep else {}
        begun = self._client.create_run(there.experiment_id, run_name=folder.resolve().name, tags=tags)
        run_id: str = begun.info.run_id
        return run_id

    def _log_settings(self, config: RunConfig) -> None:
        """Log every setting; of a run that goes on they are there, and MLflow takes none twice."""
        from mlflow.entities import Param

        settings = flat(asdict(config))
        there = self._client.get_run(self._id).data.params
        new = [Param(name, str(value)[:LONGEST]) for name, value in settings.items() if name not in there]
        for batch in _batches(new, PARAMETERS):
            self._client.log_batch(self._id, params=batch)

    def write(self, line: Mapping[str, Any]) -> None:
        """Write one epoch."""
        self._epoch = line["epoch"]
        numbers = {name: value for name, value in numbers_of(line).items() if name != "epoch"}
        try:
            self._log(numbers)
        except Exception as error:
            if not self._missed:
                _warn(f"MLflow does not take epoch {self._epoch} ({error}); training goes on")
            self._missed += 1

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the summary: numbers as metrics ``summary/NAME``, words as tags.

        Not by the epochs' own names, whose curves would end in a mean over epochs.
        """
        from mlflow.entities import RunTag

        columns = columns_of(summary)
        numbers = {f"summary/{name}": value for name, value in columns.items() if not isinstance(value, str)}
        words = [RunTag(n, v[:LONGEST]) for n, v in columns.items() if isinstance(v, str)]
        try:
            self._log(numbers)
            self._client.log_batch(self._id, tags=words[:PARAMETERS])
            self._status = "FINISHED"
        except Exception as error:
            _warn(f"MLflow does not take the summary ({error})")

    def _log(self, numbers: Mapping[str, int | float | str]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_allowed(n), float(v), now, self._epoch) for n, v in numbers.items()]
        for batch in _batches(metrics, METRICS):
            self._client.log_batch(self._id, metrics=batch)

    def close(self) -> None:
        """End what was begun: as finished where the summary is there, else as killed."""
        if self._missed:
            _warn(f"MLflow lacks {self._missed} epochs; metrics.jsonl has all")
        with suppress(Exception):
            self._client.set_terminated(self._id, status=self._status)


def _batches(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _warn(problem: str) -> None:
    sys.stderr.write(f"warning: {printable(' '.join(problem.split()))}\n")


def _allowed(name: str) -> str:
    """Return a metric's name as MLflow takes it, which knows no '@'."""
    return name.replace("@", ":")
