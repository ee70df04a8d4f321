from __future__ import annotations

import pytest

from cache.runtime.errors import UserError
from distill.config import RunConfig
from distill.settings import RECIPES, from_toml, load_recipe, names_in, to_toml, with_settings

SHIPPED = [
    *("paper-resnet18", "paper-vit_b_32", "paper-efficientnet_b0", "small", "head-first", "pool", "smoke"),
    *("robotics_demo", "robotics_efficientnet_b0"),
]


@pytest.mark.parametrize("name", SHIPPED)
def test_recipes_are_valid_and_survive_a_round_trip(name):
    assert name in names_in(RECIPES)
    config = load_recipe(name)
    assert from_toml(to_toml(config), where="x") == config


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper-resnet18", ("sgd", 0.05, 0.9, 1e-4, "step", "epoch", (1 / 3, 2 / 3), 0.1, "crop_flip")),
        (
            "paper-vit_b_32",
            ("adamw", 1e-4, 0.9, 0.01, "onecycle", "epoch", (1 / 3, 2 / 3), 0.1, "randaugment"),
        ),
    ],
)
def test_recipes_have_the_papers_values(name, expected):
    config = load_recipe(name)
    o = config.optim
    assert (
        o.name,
        o.lr,
        o.momentum,
        o.weight_decay,
        o.schedule,
        o.schedule_by,
        o.milestones,
        o.gamma,
        config.data.policy,
    ) == expected
    assert (config.train.epochs, config.train.batch_size, config.train.eval_batch_size) == (90, 128, 64)
    assert (config.data.repeat_epochs, config.student.image_size, config.data.per_image) == (5, 224, True)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("loss.vlaling=1", "did you mean 'loss.vlalign'"),
        ("lr=1", "lr is not a setting"),
        ("loss=1", "loss is not a setting"),
        ("loss.cls", "has no '='"),
        ("loss.cls=-1", "loss.cls is -1.0"),
        ("loss.cls=many", "loss.cls is 'many', expected a number"),
        ("train.epochs=1.5", "train.epochs is 1.5, expected a whole number"),
        ("train.epochs=true", "train.epochs is True, expected a whole number"),
        ("train.epochs=0", "train.epochs is 0"),
        ("optim.schedule=onecylce", "did you mean 'onecycle'"),
        ("data.per_image=1", "expected true or false"),
        ("optim.milestones=3", "expected a list"),
        ("loss.temperature=0", "loss.temperature is 0.0"),
        ("train.compile=true", "train.compile is 'true'. Fix: choose from off, default, reduce-overhead"),
        ("optim.name=[1]", "optim.name is [1], expected a text"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(setting, message):
    with pytest.raises(UserError) as error:
        with_settings(RunConfig(), [setting])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_are_read_as_toml_and_bare_words_are_texts():
    config = with_settings(
        RunConfig(),
        ["optim.milestones=[0.3, 0.6]", "student.arch=timm:resnet10t", "loss.mse=2", "text=descriptions"],
    )
    assert (config.optim.milestones, config.student.arch, config.loss.mse, config.text) == (
        (0.3, 0.6),
        "timm:resnet10t",
        2.0,
        "descriptions",
    )


def test_a_word_that_toml_reads_as_a_number_or_a_truth_value_is_a_text_where_one_is_expected():
    config = with_settings(RunConfig(), ["text=2", "student.arch=true", 'teachers=["main", 7]'])
    assert (config.text, config.student.arch, config.teachers) == ("2", "true", ("main", "7"))


def test_a_wrong_recipe_file_is_named_with_its_line_or_key(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[loss]\nclss = 1.0\n")
    with pytest.raises(UserError, match=r"mine\.toml: loss\.clss is not a setting.*did you mean 'cls'"):
        load_recipe(str(path))
    path.write_text("[loss\n")
    with pytest.raises(UserError, match=r"mine\.toml is not TOML.*line 1"):
        load_recipe(str(path))
    with pytest.raises(UserError, match="did you mean 'paper-resnet18'"):
        load_recipe("paper-resnet81")
