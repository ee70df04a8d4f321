"""Files in another encoding, numbers beyond all bounds, full memory, small splits: one line each, no traceback."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from click.testing import CliRunner
from conftest import make_cache
from helpers.runs import SMALL

import cli
from cache.runtime.atomic_files import read_text
from cache.runtime.errors import UserError
from cache.runtime.system_errors import as_user_error
from cache.sources.arrays import load_array
from cache.sources.class_texts import read_captions, read_lines
from cache.teacher.load import load_teacher
from distill.config import RunConfig
from distill.metrics import ImageScores
from distill.settings import load_recipe, with_settings
from distill.student.weights_files import read_state_dict
from distill.sweep.plan import load_sweep
from distill.train.start import train as run

NO_TEXT = {
    "Latin-1": "# ähnlich\n".encode("latin-1"),
    "UTF-16": "# a line\n".encode("utf-16"),
    "UTF-16 without its mark": "# a line\n".encode("utf-16-le"),
}


@pytest.mark.parametrize("content", NO_TEXT.values(), ids=NO_TEXT)
@pytest.mark.parametrize("read", [read_text, read_lines, lambda path: load_recipe(str(path)), load_sweep])
def test_a_text_file_in_another_encoding_is_named(tmp_path, content, read):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{re.escape(str(path))} .*not UTF-8 text.*Fix: save it as UTF-8"):
        read(path)


NO_TOML = {
    "5,000 digits": f"[train]\nseed = {'9' * 5000}\n",
    "5,000 digits of base 16": f"[train]\nseed = 0x{'f' * 5000}\n",
    "65 bits": f"[train]\nseed = {2**63}\n",
    "a rate of 400 digits": f"[optim]\nlr = {'9' * 400}\n",
    "deep lists": f"text = {'[' * 5000}{']' * 5000}\n",
    "deep tables": f"[{'.'.join('a' * 5000)}]\n",
}


@pytest.mark.parametrize("content", NO_TOML.values(), ids=NO_TOML)
@pytest.mark.parametrize("read", [lambda path: load_recipe(str(path)), load_sweep])
def test_numbers_and_nesting_that_no_toml_has_are_one_line_with_the_file(tmp_path, content, read):
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(UserError, match=f"{re.escape(str(path))} is not TOML") as raised:
        read(path)
    message = str(raised.value)
    assert len(message) < 400
    assert "set_int_max_str_digits" not in message  # no advice to switch a guard off


@pytest.mark.parametrize("value", ["9" * 5000, f"0x{'f' * 5000}", "-1", "[" * 5000])
def test_such_a_number_as_a_setting_is_a_short_usage_error(value):
    with pytest.raises(UserError, match=r"train\.seed is ") as raised:
        with_settings(RunConfig(), [f"train.seed={value}"])
    assert (raised.value.status, len(str(raised.value)) < 400) == (2, True)


def test_a_list_of_classes_breaks_at_line_ends_alone(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffone\r\na\u2028b\x0cc\n\nlast".encode())
    assert read_lines(path) == ["one", "a\u2028b\x0cc", "", "last"]
    path.write_bytes(b"")
    assert read_lines(path) == []


@pytest.mark.parametrize("caption", [r"a \u0000 b", r"half \ud83d"])
def test_a_caption_that_no_file_can_hold_is_named_with_its_line(tmp_path, caption):
    path = tmp_path / "captions.jsonl"
    path.write_text(f'{{"key": "a/1.jpg", "caption": "{caption}"}}\n')
    with pytest.raises(UserError, match=r"captions\.jsonl, line 1: .* zero byte or half a character"):
        read_captions(path)


NUMBERS = [
    (["train", ".", "--data", ".", "--out", "run"], ("seed", "epochs", "batch-size", "image-size", "k")),
    (["robotics", "make-demo", "demo"], ("seed", "train", "id-test", "ood-test", "image-size")),
    (["demo", "--out", "demo"], ("seed", "epochs")),
    (["split", ".", "--out", "split"], ("seed",)),
    (["fewshot", "."], ("epochs", "shots", "episodes", "support-views", "support-seed")),
]


# Of anything but a seed a large number is no mistake in itself: the machine's memory is its bound.
@pytest.mark.parametrize(
    ("command", "option", "number"),
    [
        (words, option, number)
        for words, options in NUMBERS
        for option in options
        for number in ("-1", *(["9" * 5000] if "seed" in option else []))
    ],
)
def test_a_whole_number_out_of_bounds_is_a_usage_error(command, option, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(cli.main, [*command, f"--{option}", number])
    assert ended.exit_code == 2, ended.output
    assert f"'--{option}'" in ended.output


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. "),
            "decodes images was killed, most likely because the memory was full",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 1, 2) exited unexpectedly"),
            "decodes images ended before its time.*give it more memory",
        ),
        (
            RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_0>: Success (0)"),
            "too little shared memory.*--shm-size",
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
                "you tried to allocate 9 bytes. Error code 12 (Cannot allocate memory)"
            ),
            "computer's memory is full",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "GPU's memory is full"),
        (MemoryError("Unable to allocate 7.28 TiB for an array"), "computer's memory is full"),
    ],
)
def test_full_memory_and_a_worker_that_the_system_ended_are_one_line(error, message):
    assert re.search(message, str(as_user_error(error)))


def test_what_torch_says_of_a_full_memory_is_known():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert "memory is full" in str(as_user_error(raised.value))
    assert as_user_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None  # a bug of ours


@pytest.mark.parametrize(
    ("library", "read"),
    [
        ("torch.load", read_state_dict),
        ("torch.load", lambda path: load_array(str(path))),
        ("open_clip.create_model", lambda path: load_teacher(f"local-dir:{path.parent}")),
    ],
    ids=["weights", "array", "teacher"],
)
def test_a_memory_that_fills_while_a_file_is_read_is_no_fault_of_the_file(
    teacher_dir, tmp_path, monkeypatch, library, read
):
    folder = shutil.copytree(teacher_dir, tmp_path / "teacher")
    (folder / "rows.pt").write_bytes(b"")

    def full(*given, **more):
        raise MemoryError

    monkeypatch.setattr(library, full)
    with pytest.raises(UserError, match="computer's memory is full"):
        read(folder / "rows.pt")


def test_one_class_has_an_accuracy():
    logits, labels = torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)
    assert ImageScores.of(logits, labels).metrics().per_class_C.tolist() == [100.0]


def test_splits_of_one_class_and_one_image_train_or_say_in_one_line_why_not(photos, tmp_path):
    settings = with_settings(RunConfig(), [*SMALL, "train.epochs=1", "loss.cap=0"])
    shutil.rmtree(photos / "val" / "plum")
    for i in (1, 2):
        (photos / "val" / "lemon" / f"val_{i}.jpg").unlink()
    (photos / "val_on_train" / "apple" / "val_on_train_0.jpg").write_text("no image")
    cache = make_cache(tmp_path / "cache", photos).path
    summary = run(settings, cache_dir=cache, data_dir=photos, out=tmp_path / "run")
    assert summary["ood_test_accuracy"] == 100
    assert summary["images"] == {"train": 24, "id_test": 8, "ood_test": 1}  # what was judged
    assert list(summary["unreadable_images"]["id_test"]) == ["apple/val_on_train_0.jpg"]
    for name in ("banana", "cherry"):
        shutil.rmtree(photos / "train" / name)
        shutil.rmtree(photos / "val_on_train" / name)
    for i in range(1, 8):
        (photos / "train" / "apple" / f"train_{i}.jpg").unlink()
    small = make_cache(tmp_path / "small", photos).path
    with pytest.raises(UserError, match="of 1 training images there is no batch of at least 2"):
        run(
            with_settings(settings, ["data.repeat_epochs=1"]),
            cache_dir=small,
            data_dir=photos,
            out=tmp_path / "one",
        )
