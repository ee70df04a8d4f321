"""One writer at a time, faults of the system, and signals: real processes, real locks, a real full disk."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import make_cache
from helpers.processes import distill as command_of

from cache import EmbeddingCache
from cache.maintain.verify import verify_cache
from cache.runtime.atomic_files import replacing
from cache.runtime.errors import UserError
from cache.runtime.locks import NAME, only_writer, only_writer_of_file
from cache.runtime.system_errors import as_user_error

HOLD = """
import sys, time
from pathlib import Path
from cache.runtime.locks import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(3600)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def let_go(holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.communicate()


def test_a_second_writer_is_told_who_holds_the_folder_and_a_dead_one_holds_nothing(tmp_path):
    holder = hold(tmp_path / "cache")
    with (
        pytest.raises(
            UserError, match=rf"cache is being written by process {holder.pid} on .* since 20.*: -c"
        ),
        only_writer(tmp_path / "cache"),
    ):
        raise AssertionError("both hold it")
    let_go(holder)
    assert (tmp_path / "cache" / NAME).exists()
    with only_writer(tmp_path / "cache"), only_writer(tmp_path / "cache"):
        (tmp_path / "cache" / "work").write_text("")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["work"]


def refused(folder: Path) -> bool:
    """Whether another process is told that the folder is being written."""
    other = subprocess.run(
        [sys.executable, "-c", HOLD.replace("3600", "0"), str(folder)], capture_output=True, text=True
    )
    assert other.returncode == 0 or "is being written by process" in other.stderr
    return other.returncode != 0


def test_a_copy_of_the_folder_and_an_opened_lock_file_take_no_lock_away(tmp_path):
    with only_writer(tmp_path / "cache"):
        shutil.copytree(tmp_path / "cache", tmp_path / "copy")
        (tmp_path / "cache" / NAME).read_bytes()
        assert refused(tmp_path / "cache")
    assert not refused(tmp_path / "copy")
    assert not refused(tmp_path / "cache")


def test_a_forked_worker_neither_takes_the_lock_away_nor_keeps_it(tmp_path):
    with only_writer(tmp_path / "cache"):
        short = os.fork()
        if not short:
            os._exit(0)
        assert os.waitpid(short, 0)[1] == 0
        assert refused(tmp_path / "cache")
        told, tell = os.pipe()
        long = os.fork()
        if not long:
            os.close(tell)
            os.read(told, 1)  # until the writer is gone, and a second one has been
            os._exit(0)
        os.close(told)
    assert not refused(tmp_path / "cache")
    os.close(tell)
    assert os.waitpid(long, 0)[1] == 0


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_the_file_system_knows_no_locks_a_writer_goes_on_and_says_so(
    tmp_path, monkeypatch, capsys, number
):
    def flock(file: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    cache = tmp_path / "cache"
    with only_writer(cache), only_writer(cache), replacing(cache / "work") as temporary:
        temporary.write_text("")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["work"]
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert (
        f"cache is written without a lock, which its file system has not ({os.strerror(number)})" in printed
    )


def test_a_lock_file_can_be_read_by_whom_any_new_file_can(tmp_path):
    (tmp_path / "plain").write_text("")
    with only_writer(tmp_path):
        assert (tmp_path / NAME).stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_a_lock_file_that_its_owner_keeps_from_a_group_is_named():
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        cache.chmod(0o777)
        (cache / NAME).write_text('{"process": 7, "host": "a", "command": "distill train", "since": "2026"}')
        (cache / NAME).chmod(0o644)
        other = os.fork()
        if not other:
            try:
                os.setuid(65534)
                with only_writer(cache):
                    os._exit(3)
            except UserError as error:
                named = "another user's (process 7 on a since 2026: distill train)" in error.problem
                os._exit(0 if named and f"if {cache / NAME} is still there, remove it" in error.fix else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 0


def test_a_lock_leaves_nothing_where_nothing_was_written(tmp_path):
    with only_writer(tmp_path / "new"), only_writer_of_file(tmp_path / "out.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_readers_are_not_held_up_by_a_writer(tmp_path, photos):
    cache = make_cache(tmp_path / "cache", photos).path
    holder = hold(cache)
    try:
        assert len(EmbeddingCache.open(cache).split("train").keys) == 24
        assert not any(check.problem for check in verify_cache(cache))
    finally:
        let_go(holder)


def test_a_folder_that_was_moved_away_is_not_made_again(tmp_path):
    with only_writer(tmp_path / "run"):
        with replacing(tmp_path / "run" / "first") as temporary:
            temporary.write_text("1")
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        message = r"run is not the folder any more .*bring it back"
        with pytest.raises(UserError, match=message), replacing(tmp_path / "run" / "second") as temporary:
            temporary.write_text("2")
        assert not (tmp_path / "run").exists()
    assert (tmp_path / "elsewhere" / "first").read_text() == "1"


@pytest.fixture
def distill(teacher_dir) -> Callable[..., subprocess.Popen[str]]:
    """A function that starts a command; ``limits`` are resources' limits, ``teacher`` adds the small one.

    Signals are for all processes of a ``group``, as a terminal's are.
    """

    def start(
        *words: object, teacher: bool = False, limits: dict[int, int] | None = None, group: bool = False
    ) -> subprocess.Popen[str]:
        more = ["--model", f"local-dir:{teacher_dir}", "--device", "cpu"] if teacher else []

        def limit() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a shell's background jobs ignore
            for what, most in (limits or {}).items():
                resource.setrlimit(what, (most, most))

        return subprocess.Popen(
            [*command_of(*words), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=limit,
            start_new_session=True,
            env={**os.environ, "FORK_CLIENT_GROUP": "yes"} if group else None,
        )

    return start


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """The status of a command and the lines that say why."""
    _, printed = process.communicate(timeout=600)
    assert "Traceback" not in printed, printed
    return process.returncode, [line for line in printed.splitlines() if line.startswith("Error: ")]


def leftovers(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.name == NAME or path.suffix == ".tmp"]


def train_words(cache: Path, photos: Path, out: Path, *more: str) -> list[object]:
    small = ["--recipe", "smoke", "--arch", "timm:test_resnet", "--device", "cpu", "--set", "data.workers=0"]
    return ["train", cache, "--data", photos, "--out", out, *small, *more]


def test_commands_are_refused_while_another_writes_the_same_folder(tmp_path, photos, distill):
    cache = make_cache(tmp_path / "cache", photos).path
    runs = [hold(tmp_path / name) for name in ("cache", "run", "sweep")]
    (tmp_path / "sweep.toml").write_text('recipe = "smoke"\n')
    commands = {
        "cache": distill("cache-features", photos, "--out", cache, teacher=True),
        "run": distill(*train_words(cache, photos, tmp_path / "run")),
        "sweep": distill(
            "sweep", tmp_path / "sweep.toml", "--cache", cache, "--data", photos, "--out", tmp_path / "sweep"
        ),
    }
    try:
        for (name, command), holder in zip(commands.items(), runs, strict=True):
            status, errors = ended(command)
            assert (status, len(errors)) == (1, 1), name
            assert f"{tmp_path / name} is being written by process {holder.pid}" in errors[0]
    finally:
        for holder in runs:
            let_go(holder)
    assert ended(distill(*train_words(cache, photos, tmp_path / "run"))) == (0, [])
    assert leftovers(tmp_path / "run") == []


def test_too_few_file_handles_are_one_line_or_enough(tmp_path, photos, distill):
    words = ["cache-features", photos, "--out", tmp_path / "cache", "--workers", "2"]
    status, errors = ended(distill(*words, teacher=True, limits={resource.RLIMIT_NOFILE: 40}))
    assert status == 0 or (status, len(errors)) == (1, 1), errors
    if status:
        assert "Too many open files" in errors[0]
        assert "ulimit -n" in errors[0]
    assert ended(distill(*words, teacher=True)) == (0, [])
    assert not any(check.problem for check in verify_cache(tmp_path / "cache"))


def test_a_fault_of_the_system_is_found_behind_what_libraries_say():
    for error in (
        OSError(28, "No space left on device", "x.h5"),
        RuntimeError(
            "Can't decrement id ref count (unable to close file, errno = 28, error message = 'No space')"
        ),
        RuntimeError("[enforce fail at inline_container.cc:626] . unexpected pos 64 vs 0"),
    ):
        assert "No space left on device" in str(as_user_error(error))
    inner = OSError(24, "Too many open files")
    outer = RuntimeError("a worker died")
    outer.__cause__ = inner
    assert "ulimit -n" in str(as_user_error(outer))
    assert as_user_error(ValueError("a bug")) is None
    assert as_user_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert as_user_error(FileNotFoundError(2, "No such file or directory", "x")) is None


def test_ctrl_c_ends_stage_1_within_seconds_and_the_same_command_goes_on(tmp_path, photos, distill):
    for i in range(800):
        shutil.copy(photos / "train" / "apple" / "train_0.jpg", photos / "train" / "apple" / f"more_{i}.jpg")
    words = [
        "cache-features",
        photos,
        "--out",
        tmp_path / "cache",
        "--batch-size",
        "1",
    ]
    command = distill(*words, "--workers", "2", teacher=True, group=True)
    rows = tmp_path / "cache" / "rows"
    while not (rows.exists() and any(rows.iterdir())):
        time.sleep(0.01)
        assert command.poll() is None
    os.killpg(command.pid, signal.SIGINT)  # as a terminal does
    status, errors = ended(command)
    message = "Error: stopped; what was finished is kept: the same command goes on."
    assert (status, errors) == (130, [message])
    assert leftovers(tmp_path) == []
    assert ended(distill(*words, teacher=True)) == (0, [])
    assert not any(check.problem for check in verify_cache(tmp_path / "cache"))


def test_runs_of_a_sweep_end_with_it_even_when_it_is_killed(tmp_path, photos, distill):
    cache = make_cache(tmp_path / "cache", photos).path
    (tmp_path / "sweep.toml").write_text(
        'recipe = "smoke"\n[base]\nstudent.arch = "timm:test_resnet"\ntrain.epochs = 5000\ntrain.device = "cpu"\n'
    )
    out = tmp_path / "out"
    sweep = distill("sweep", tmp_path / "sweep.toml", "--cache", cache, "--data", photos, "--out", out)
    while not list(out.glob("*/metrics.jsonl")):
        time.sleep(0.05)
        assert sweep.poll() is None
    sweep.kill()
    sweep.communicate()
    log = next(out.glob("logs/*.log"))
    deadline = time.monotonic() + 600
    while "Error: stopped" not in log.read_text():
        assert time.monotonic() < deadline, "the run goes on without its sweep"
        time.sleep(0.1)
