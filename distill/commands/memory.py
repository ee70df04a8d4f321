"""What a command can do with less memory, and how it goes on: its part of a line about the system."""

from __future__ import annotations

from cache.runtime.errors import UserError
from cache.runtime.memory_errors import MORE, OutOfDeviceMemory, OutOfMemory, WorkerEnded
from cache.runtime.system_errors import AGAIN

# Settings that change no number: a run that was stopped goes on with others.
RESUMED = "(--resume --out RUN goes on)"
SMALLER = "in another --out a smaller --batch-size or --image-size"

HOST = {
    "cache-features": "give a smaller --batch-size or fewer --workers",
    "train": f"give --set data.memory_mb=256 or --set data.workers=1 {RESUMED}, or {SMALLER}",
    "sweep": "give fewer --jobs, --set data.memory_mb=256 or --set data.workers=1",
    "fewshot": "give --set data.memory_mb=256 or --set data.workers=1",
    "export": "give fewer --check-images",
    "predict": "give a smaller --batch-size or fewer --threads",
    "embed": "give a smaller --batch-size or fewer --threads",
    "serve": "give fewer --threads, or a smaller --max-pixels",
    "bench-model": "give fewer --threads",
    "adapt": "give a smaller student with --arch",
    "caption": "give a smaller --batch-size or fewer --workers",
}
DEVICE = {
    "cache-features": "give a smaller --batch-size, or --device cpu",
    "train": f"give --set data.device_images=off {RESUMED}, or {SMALLER}",
    "sweep": "give fewer --jobs, or in another --out --set train.batch_size=N or train.precision=bfloat16",
    "fewshot": "give a smaller --set train.batch_size=N, or --device cpu",
    "evaluate": "give --device cpu",
    "adapt": "give a smaller student with --arch, or --device cpu",
    "caption": "give a smaller --batch-size, or --device cpu",
    "embed": "give a smaller --batch-size, or --device cpu",
    "add-texts": "give --device cpu",
    "demo": "give --device cpu",
}
WORKERS = {
    "cache-features": "give fewer --workers, or a smaller --batch-size",
    "train": f"give --set data.workers=1 {RESUMED}, or {SMALLER}",
    "sweep": "give --set data.workers=1, or fewer --jobs",
    "fewshot": "give --set data.workers=1",
    "caption": "give fewer --workers",
}


def told_of(error: UserError, command: str, *, keeps: bool) -> UserError:
    """Return an error with what can be lowered in a command, where memory was full, and how it goes on.

    ``keeps`` says whether the command goes on where it was stopped.
    """
    fix = error.fix
    if isinstance(error, OutOfMemory):
        of_device = isinstance(error, OutOfDeviceMemory)
        options = WORKERS if isinstance(error, WorkerEnded) else DEVICE if of_device else HOST
        more = "free the GPU's memory" if of_device else MORE
        fix = f"{options[command]}, or {more}" if command in options else more
        fix = f"{fix}, {AGAIN}" if keeps and command != "train" else f"{fix}."
    elif command == "train":
        fix = fix.replace(AGAIN, "then run it again with --resume: what is finished is kept.")
    elif not keeps:
        fix = fix.replace(AGAIN, "then run the same command again.")
    return type(error)(error.problem, fix=fix) if fix != error.fix else error
