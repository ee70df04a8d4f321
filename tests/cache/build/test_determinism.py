"""The same command and machine: the same bytes, however many workers there are."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from cli import main


def distill(*words: object) -> None:
    ended = CliRunner().invoke(main, list(map(str, words)))
    assert ended.exit_code == 0, ended.output


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_cache_is_the_same_bytes_whatever_workers_read_the_images(photos, teacher_dir, tmp_path):
    words = ["cache-features", photos, "--model", f"local-dir:{teacher_dir}", "--device", "cpu"]
    words += ["--views", 2, "--pixels", 40, "--batch-size", 4]
    for workers in (0, 2):
        distill(*words, "--workers", workers, "--out", tmp_path / f"workers-{workers}")
    distill(*words, "--workers", 0, "--out", tmp_path / "again")
    assert files_of(tmp_path / "workers-0") == files_of(tmp_path / "again")
    assert files_of(tmp_path / "workers-0") == files_of(tmp_path / "workers-2")
