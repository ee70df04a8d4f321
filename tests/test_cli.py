from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import cli
from cache.runtime.signals import Terminated
from cache.sources.names import separated
from distill.commands.export import begins_anew

ROOT = Path(__file__).parent.parent


def commands_of(group, path=""):
    """Every command below a group that is not one itself, by its words."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command, words = group.get_command(ctx, name), f"{path} {name}".strip()
        if isinstance(command, click.Group):
            yield from commands_of(command, words)
        else:
            yield words, command


def options_of(group):
    return {
        words: sorted(
            o for p in command.params if isinstance(p, click.Option) for o in p.opts if o.startswith("--")
        )
        for words, command in commands_of(group)
    }


OPTIONS = {
    "cache-features": "address batch-size caption-column captions class-depth compile cpus descriptions device dtype engine format gpus image-column json keep-text-tower key-column label-column label2text max-pixels model names neighbours no-exif out path-column pixels pixels-format precision preprocess pretrained rebuild shared-classes split split-column store strict support-shots support-views teacher template text-file view-policy views views-scale workers",
    "split": "allow-missing dataset id-test json lists ood ood-classes out seed",
    "describe": "base-url label2text model out prompt retries workers",
    "caption": "batch-size device model out split workers",
    "fewshot": "alpha average-views beta cache checkpoint code data device episodes epochs json lr method out search set shots support-seed support-views text-share",
    "cache add-texts": "bank device from-images label2text model pretrained replace run shots teacher template text-file",
    "cache info": "json",
    "cache verify": "json",
    "doctor": "folder json",
    "cache repair": "compact json",
    "cache import": "as bank caption-column captions class-depth classes data dtype format image-column images key-column keys label-column max-pixels model names no-exif out path-column pretrained shared-classes split split-column texts",
    "cache convert": "data out to",
    "train": "arch batch-size check closed-set code data device device-images epochs head-only image-size json k local losses lr mlflow negative-text out plan prompts recipe replay-views resume seed set start teachers text wandb",
    "evaluate": "cache caption-column check checkpoint class-depth code data device eval-crop eval-size image-column json key-column label-column label2text names negative-text on path-column pretrained space split split-column teacher teacher-model template text",
    "recipes": "",
    "report": "baseline out",
    "sweep": "address cache choose code cpus data engine gpus jobs json mlflow out plan set together wandb",
    "compare": "json",
    "export": "cache check-images checkpoint code data formats int8 json license nearest-images out precisions preprocessing pretrained push runtime teacher teacher-model unknowns vocabulary web",
    "predict": "bank batch-size format names open out precision reject threads threshold top",
    "embed": "batch-size cache caption-column checkpoint class-depth code device image-column json key-column label-column names out path-column precision pretrained split split-column teacher-model threads",
    "texts": "add bank cache device json pretrained teacher-model template",
    "serve": "host max-megabytes max-pixels port precision pretrained rate teacher-model threads",
    "bench-model": "code json out pretrained repeats rounds run teacher-model threads",
    "demo": "device epochs json out seed",
    "adapt": "arch budget cache code device json model names out pretrained seed start",
    "robotics make-demo": "id-test image-size ood-test seed train",
    "robotics cache-features": "batch-size descriptions device dtype episode-keys format json keep-text-tower model negative-descriptions negative-template out precision preprocess pretrained rebuild regions strict template workers",
}
"""The options of every command, without their dashes."""


def test_the_set_of_options_is_what_we_mean_it_to_be():
    wanted = {words: sorted(f"--{name}" for name in names.split()) for words, names in OPTIONS.items()}
    assert options_of(cli.main) == wanted


@pytest.mark.parametrize("words", [words for words, names in OPTIONS.items() if "names" in names.split()])
def test_names_are_a_list_or_a_file_in_every_command(words, tmp_path, monkeypatch):
    (option,) = [one for one in dict(commands_of(cli.main))[words].params if one.name == "names"]
    assert "a file (@FILE, FILE.txt) with one a line" in option.help
    monkeypatch.chdir(tmp_path)
    for name in ("names.txt", "lemon"):
        Path(name).write_text("apple\n\nplum, ripe\n\n")

    @click.command(params=[option])
    def told(names):
        # predict leaves lists whole: a model may have a name with commas.
        whole = words == "predict"
        click.echo(
            [part for name in names for part in (separated(name) if whole and '"' in name else [name])]
        )

    for given, names in (
        ('"plum, ripe",fig', ["plum, ripe", "fig"]),
        ("names.txt", ["apple", "", "plum, ripe"]),
        ("@lemon", ["apple", "", "plum, ripe"]),
    ):
        assert CliRunner().invoke(told, ["--names", given]).output == f"{names}\n"
    longer_than_a_files_name = ",".join(f"number {i}" for i in range(99))
    assert "number 98" in CliRunner().invoke(told, ["--names", longer_than_a_files_name]).output
    assert "give @lemon, or 'lemon,'" in CliRunner().invoke(told, ["--names", "lemon"]).output


def test_every_command_has_help_with_an_example():
    for words, _ in commands_of(cli.main):
        shown = CliRunner().invoke(cli.main, [*words.split(), "--help"]).output
        assert "Example" in shown, words
        assert '[default: ""]' not in shown, words


@pytest.mark.parametrize("table", [cli.COMMANDS, cli.CACHE, cli.ROBOTICS])
def test_help_lists_commands_in_the_order_of_work_with_their_own_first_line_uncut(table):
    group = cli.Commands("distill", table=table)
    listed = group.get_help(click.Context(group, terminal_width=78)).partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == list(table)  # no line is folded
    for (name, (_, line)), shown in zip(table.items(), listed, strict=True):
        command = group.get_command(click.Context(group), name)
        assert command.help.splitlines()[0] == line, name
        assert shown.split(maxsplit=1)[1] == line


@pytest.mark.parametrize(
    ("helped", "never"),
    [
        ([[]], ["torch", "numpy", "h5py", "open_clip", "rich", "distill"]),
        ([[name] for name in cli.COMMANDS], ["torch", "numpy", "h5py", "open_clip", "rich"]),
    ],
)
def test_help_imports_no_other_command_and_nothing_heavy(helped, never):
    code = f"""
import sys, cli
from click.testing import CliRunner
for words in {helped}:
    assert CliRunner().invoke(cli.main, [*words, "--help"]).exit_code == 0
print([name for name in {never} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_file_of_the_working_folder_called_as_one_of_ours_is_not_run(tmp_path):
    for name in ("cache", "distill"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong file')\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [sys.executable, "-m", "cli", "split", "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("Usage: distill split"), done.stderr


def test_the_whole_way_through_the_command_line(photos, teacher_dir, tmp_path):
    runner, cache, run = CliRunner(), str(tmp_path / "cache"), str(tmp_path / "run")

    def call(*words):
        result = runner.invoke(cli.main, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.stdout

    built = json.loads(
        call(
            "cache-features",
            photos,
            "--out",
            cache,
            "--model",
            f"local-dir:{teacher_dir}",
            "--device",
            "cpu",
            "--json",
        )
    )
    assert built["rows"] == 39
    assert "labels" in call("cache", "info", cache)
    assert json.loads(call("cache", "info", cache, "--json"))["complete"]
    assert "files are sound" in call("cache", "verify", cache)
    call("cache", "convert", cache, "--to", "webdataset", "--out", tmp_path / "tar", "--data", photos)
    small = [
        "--arch",
        "timm:test_resnet",
        "--image-size",
        "32",
        "--epochs",
        "1",
        "--batch-size",
        "6",
        "--device",
        "cpu",
    ]
    trained = json.loads(
        call("train", tmp_path / "tar", "--data", photos, "--out", run, "--recipe", "smoke", *small, "--json")
    )
    again = [
        "train",
        tmp_path / "tar",
        "--data",
        photos,
        "--out",
        run,
        "--recipe",
        "smoke",
        *small,
        "--resume",
    ]
    assert "ood_test" in call(*again)
    judged = json.loads(call("evaluate", run, "--device", "cpu", "--json"))
    assert judged["ood_test"]["accuracy"] == pytest.approx(trained["ood_test_accuracy"])
    assert call("evaluate", cache) == call("evaluate", cache, "--teacher")
    for words, status, message in (
        (
            ["train", cache, "--data", photos, "--out", tmp_path / "x", "--local"],
            2,
            "--local is for episodes",
        ),
        (
            ["evaluate", run, "--negative-text", "own"],
            2,
            "--negative-text is for episodes, and these are photos",
        ),
        (["fewshot", run, "--episodes", "2"], 2, "--episodes is for episodes, and these are photos"),
    ):
        refused = runner.invoke(cli.main, [str(word) for word in words])
        assert (refused.exit_code, message in refused.stderr) == (status, True), refused.stderr


STAGE_1 = ["cache-features", ".", "--out", "x", "--pretrained", "openai"]
STAGE_2 = ["train", ".", "--data", ".", "--out", "x"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["train", "nowhere", "--data", ".", "--out", "x"], 2, "nowhere"),
        (["cache-features", ".", "--out", "x"], 2, "--pretrained"),
        (["cache-features", ".", "--out", "x", "--pretrained", "openai", "--dtype", "int4"], 2, "int4"),
        (["trian"], 2, "No such command 'trian': did you mean 'train'"),
        (["cache", "inf"], 2, "No such command 'inf': did you mean 'info'"),
        (["--trian"], 2, "No such option"),
        (["cache", "info", "."], 1, "is not a cache"),
        (["evaluate", ".", "--teacher"], 1, "is not a cache"),
        (["evaluate", "."], 1, "no checkpoint"),
        (["evaluate", ".", "--teacher", "--space"], 2, "leave out --space"),
        (["fewshot", "."], 1, "no checkpoint"),
        (["fewshot", ".", "--shots", "0"], 2, "--shots"),
        (["fewshot", ".", "--shots", "two"], 2, "1,2,4"),
        (["fewshot", ".", "--method", "guess"], 2, "guess"),
        (["fewshot", ".", "--alpha", "-1"], 2, "--alpha"),
        (["split", ".", "--out", "x", "--dataset", "Food101"], 2, "--lists"),
        (["split", ".", "--out", "x", "--ood-classes", "nowhere.txt"], 2, "nowhere.txt"),
        (["split", ".", "--out", "x", "--dataset", "Food101", "--lists", ".", "--ood", "0.2"], 2, "--ood"),
        (["describe", ".", "--model", "m"], 1, "holds no picture"),
        (["caption", ".", "--model", "m"], 1, "holds no picture"),
        (["cache", "add-texts", ".", "--bank", "x"], 2, "nothing says what the texts are"),
        (
            ["cache-features", ".", "--out", "x", "--pretrained", "openai", "--support-views", "1"],
            2,
            "2 or more",
        ),
        ([*STAGE_1, "--pixels-format", "jpeg"], 2, "--pixels-format is of --pixels: give that too"),
        ([*STAGE_1, "--views-scale", "0.5"], 2, "--views-scale is of --views: give that too"),
        ([*STAGE_1, "--support-shots", "3"], 2, "--support-shots is of --support-views: give that too"),
        ([*STAGE_2, "--batch-size", "1"], 2, "'--batch-size': 1 is not in the range x>=2"),
        ([*STAGE_2, "--losses", "cls,foo"], 2, "'foo' is not a loss"),
        ([*STAGE_2, "--recipe", "smoke", "--set", "data.see=0"], 2, "--set data.see is not a setting"),
        ([*STAGE_2, "--recipe", "smoke", "--set", "train.epochs"], 2, "has no '='"),
        ([*STAGE_2, "--recipe", "smoke", "--set", "train.compile=true"], 2, "train.compile is 'true'"),
        ([*STAGE_2, "--recipe", "wrong.toml"], 1, "wrong.toml: train.epochs is 0"),
        ([*STAGE_2, "--recipe", "wrong.toml", "--lr", "1"], 1, "wrong.toml: train.epochs is 0"),
        ([*STAGE_2, "--recipe", "smoke", "--set", "lr=1"], 2, "did you mean 'optim.lr'?"),
        (
            [*STAGE_2, "--recipe", "smoke", "--set", "optim.milestones=30,60"],
            2,
            "optim.milestones=[0.33,0.67]",
        ),
        ([*STAGE_2, "--recipe", "smoke", "--set", "train.epochs=9999999"], 2, "at most 1,000,000"),
        ([*STAGE_2, "--recipe", "smoke", "--epochs", "9" * 30], 2, "of at most 64 bits"),
        ([*STAGE_2, "--learning-rate", "1"], 2, "Did you mean '--lr'?"),
        ([*STAGE_2, "--weight-decay", "1"], 2, "Did you mean '--set optim.weight_decay='?"),
        ([*STAGE_2, "--num-workers", "1"], 2, "Did you mean '--set data.workers='?"),
        (["predict", ".", "x.jpg", "--json"], 2, "Did you mean '--format'?"),
        (["adapt", ".", "--out", "x", "--names", "wrong.toml"], 2, "give @wrong.toml, or 'wrong.toml,'"),
        (["report", "run", "x", "--out", "x.html"], 2, "'distill compare run x', or one folder that holds"),
        (["compare", "run", "x", "y"], 2, "does not take 3 runs. Fix: one folder that holds them"),
        ([*STAGE_2, "--baseline"], 2, "Did you mean '--closed-set'?"),
        ([*STAGE_2, "--model", "resnet18"], 2, "Did you mean '--arch'?"),
        (["export", ".", "--out", "x", "--neighbours", "3"], 2, "Did you mean '--nearest-images'?"),
        ([*STAGE_2, "--recipe", "smoke", "--set", "data.views=on"], 2, "did you mean 'data.replay_views'?"),
        (["train", "run", "--out", "x"], 1, "run is not a cache (it is a run)"),
        (["predict", "run", "x.jpg"], 1, "run is not an exported model (it is a run)"),
        ([*STAGE_2, "-b", "8"], 2, "'--batch-size'"),
        ([*STAGE_2, "--bs", "8"], 2, "Did you mean '--batch-size'?"),
        ([*STAGE_2, "--epochs", "0"], 2, "'--epochs': 0 is not in the range x>=1"),
    ],
)
def test_bad_input_is_one_line_and_the_right_status(words, status, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.toml").write_text("[train]\nepochs = 0\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").touch()
    result = CliRunner().invoke(cli.main, words)
    assert result.exit_code == status
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("words", [["cache", "info", "."], ["cache", "infos", "."], [*STAGE_2, "--wd", "1"]])
def test_all_processes_of_torchrun_but_the_first_begin_their_errors_with_their_rank(
    words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    first = CliRunner().invoke(cli.main, words)
    monkeypatch.setenv("RANK", "3")
    fourth = CliRunner().invoke(cli.main, words)
    assert fourth.exit_code == first.exit_code
    assert fourth.stderr == f"Error: rank 3: {first.stderr.partition('Error: ')[2]}"


def test_debug_shows_the_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cli", "--debug", "cache", "info", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_a_stopped_export_says_that_it_begins_anew_and_others_that_they_go_on(error, status):
    goes_on = "stopped; what was finished is kept: the same command goes on."
    assert cli._explained(error, "train", debug=False) == (goes_on, status)
    assert cli._explained(error, "export", debug=False) == ("stopped.", status)
    with pytest.raises(type(error)), begins_anew(Path("model")):
        raise error
    anew = "stopped; model was not written: the same command begins anew."
    assert cli._explained(error, "export", debug=False) == (anew, status)
