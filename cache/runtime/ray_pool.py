"""The only importer of ray: a function's calls as tasks of a cluster, done again where a machine is lost."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cache.runtime.errors import UserError, missing_package

# Each time on a machine of its own: a task that takes its worker down wherever it runs ends some day.
RETRIES = 10
POLL_S = 0.5
PATIENCE_S = 20


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """A Ray cluster by its address, and what each task takes of it.

    ``address`` None is the one that RAY_ADDRESS names or that runs here, else a new one of this machine;
    ``gpus`` may be a share of one.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0


@contextmanager
def connected(cluster: RayCluster) -> Iterator[None]:
    """Connect to a cluster for a while, unless this process is connected already.

    Raises
    ------
    UserError
        If ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise missing_package(error, extra="ray") from error
    if ray.is_initialized():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        _knock(cluster.address or os.environ.get("RAY_ADDRESS", ""))
        # Of a job that is no client's, workers would import what lies in this process's working folder.
        job = ray.job_config.JobConfig(_client_job=True)
        ray.init(address=cluster.address, job_config=job, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:  # of a node that does not start in time Ray says so by a bare one
        raise UserError(
            f"no Ray cluster answers at {cluster.address or 'this machine'} ({str(error).splitlines()[0]})",
            fix="give the address that 'ray start --head' printed.",
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray's own would leave with a status that says nothing
    with contextlib.redirect_stdout(sys.stderr):  # Ray tells of lost machines on standard output
        try:
            yield
        finally:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raise an OSError where nothing listens at HOST:PORT, for which Ray would look for minutes."""
    host, separator, port = address.rpartition(":")
    if separator and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=PATIENCE_S).close()


def cannot_hold(cluster: RayCluster) -> str:
    """Say why no machine that is in the cluster now can take a task; nothing where one can."""
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(m.get("CPU", 0) >= cluster.cpus and m.get("GPU", 0) >= cluster.gpus for m in machines):
        return ""
    has = "; ".join(f"{m.get('CPU', 0):g} CPUs, {m.get('GPU', 0):g} GPUs" for m in machines)
    wanted = f"{cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs"
    return f"no machine of the cluster has {wanted} (they have {has}): waiting"


def slots(cluster: RayCluster) -> int:
    """Return how many tasks the machines that are in a connected cluster now can run at once."""
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": cluster.cpus, "GPU": cluster.gpus}
    return sum(
        min((int(machine.get(what, 0) / share) for what, share in wanted.items() if share), default=1)
        for machine in machines
    )


def run_tasks(
    function: Callable[..., Any],
    calls: Mapping[str, tuple[Any, ...]],
    cluster: RayCluster,
    *,
    fresh: bool,
    asked_to_stop: Callable[[], bool],
) -> Iterator[tuple[str, Any] | None]:
    """Call ``function`` once for each of ``calls``, on the machines of a connected cluster.

    Yields (name, what was returned, or the exception) as the calls end, and None now and then. A call whose
    worker or machine was lost is made again elsewhere, so it must be able to go on from what it left. When
    ``asked_to_stop``, running calls get a KeyboardInterrupt, are waited for, and nothing more is yielded.

    Every machine has the module of ``function`` installed; its arguments are pickled, those of several calls
    once. With ``fresh`` each
    call has a process of its own; else a process may make many.
    """
    import ray

    task = ray.remote(
        num_cpus=cluster.cpus,
        num_gpus=cluster.gpus,
        max_retries=RETRIES,
        max_calls=1 if fresh else 0,
    )(function)
    left = {task.remote(*sent): name for name, sent in _put_once(calls)}
    try:
        while left and not asked_to_stop():
            ended, _ = ray.wait(list(left), timeout=POLL_S)
            for one in ended:
                yield left.pop(one), _outcome(one)
            if not ended:
                yield None
    finally:
        for one in left:
            ray.cancel(one)
        for one in left:
            _outcome(one)


def _put_once(calls: Mapping[str, tuple[Any, ...]]) -> Iterator[tuple[str, list[Any]]]:
    """Yield calls in which what several are given is in the cluster's store, and does not cross with each."""
    import ray

    given = Counter(id(argument) for arguments in calls.values() for argument in arguments)
    stored: dict[int, Any] = {}
    for name, arguments in calls.items():
        for argument in arguments:
            if given[id(argument)] > 1 and id(argument) not in stored:
                stored[id(argument)] = ray.put(argument)
        yield name, [stored.get(id(argument), argument) for argument in arguments]


def _outcome(reference: Any) -> Any:
    """Return what a call gave, or as a UserError why it gave nothing."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.as_instanceof_cause()
        last = str(error).strip().splitlines()[-1]
        return cause if isinstance(cause, UserError) else UserError(last, fix="see the logs of Ray.")
    except ray.exceptions.RayError as error:
        lost = str(error).strip().splitlines()
        return UserError(lost[0] if lost else type(error).__name__, fix="run the same command again.")
