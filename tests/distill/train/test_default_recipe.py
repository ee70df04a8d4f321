"""What is trained unless told, and with which first weights."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from helpers.pools import import_pool_cache
from helpers.tar_caches import as_tars

import cli
from cache.runtime.errors import UserError, WrongOption
from distill.config import RunConfig
from distill.data.pool import check_share_of_none
from distill.settings import with_settings
from distill.train.default_recipe import config_of, default_recipe, default_settings


def test_the_recipe_goes_by_what_the_cache_has_and_by_a_start_from_scratch(cached, photos, tmp_path):
    pool = import_pool_cache(tmp_path / "pool").path
    assert default_recipe(cached.path, ()) == "head-first"
    assert default_recipe(pool, ()) == "pool"
    assert default_recipe(pool, ("data.pool_share=0",)) == "head-first"
    assert default_recipe(pool, ('student.start="scratch"',)) == "small"
    tars = as_tars(cached, photos, tmp_path / "tars")
    assert default_recipe(tars, (), from_tars=False) == "head-first"
    with pytest.raises(UserError, match=r"is streamed, and head-first.*--data.*--start scratch"):
        default_recipe(tars, (), from_tars=True)


def test_a_pool_alone_is_learnt_from_without_cls(tmp_path):
    assert default_settings(import_pool_cache(tmp_path / "both").path) == ()
    alone = import_pool_cache(tmp_path / "alone", labelled=()).path
    assert config_of("pool", default_settings(alone), named=False).loss.cls == 0


def test_a_head_by_ridge_needs_no_more_words_than_that(cached):
    ridge = ('train.head_only="closed-form"',)
    config = config_of("head-first", (*default_settings(cached.path, ridge), *ridge), named=False)
    assert config.train.head_only == "closed-form"
    assert config.optim.average_with_start == 0
    assert default_settings(cached.path, (*ridge, 'student.start="scratch"')) == ()


def test_a_share_for_images_without_a_label_is_refused_where_there_are_none(tmp_path):
    cache, config = (
        import_pool_cache(tmp_path / "both", pool=0),
        with_settings(RunConfig(), ["data.pool_share=0.5"]),
    )
    check_share_of_none(config, cache, unused=1)
    with pytest.raises(UserError, match=r"data\.pool_share is 0\.5, and .* has no images without a label"):
        check_share_of_none(config, cache, unused=0)


def test_what_does_not_fit_a_recipe_that_nobody_named_says_so():
    with pytest.raises(
        WrongOption, match=r"with train\.closed_set.*another recipe than head-first.*--recipe small"
    ):
        config_of("head-first", ("train.closed_set=true",), named=False)
    with pytest.raises(WrongOption, match=r"data\.see is not a setting. Fix: did you mean (?!.*--recipe)"):
        config_of("head-first", ("data.see=1",), named=False)


def test_first_weights_that_cannot_be_had_are_one_line_before_any_work(cached, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    words = ["train", str(cached.path), "--data", str(photos), "--out", str(tmp_path / "run")]
    for more in (["--arch", "timm:test_resnet"], ["--arch", "resnet18"], ["--start", "nowhere.pt"]):
        ended = CliRunner().invoke(cli.main, [*words, *more])
        assert ended.exit_code == 1
        said = [line for line in ended.stderr.splitlines() if not line.startswith("Downloading: ")]  # torch's
        assert len(said) == 1
        assert said[0].startswith("Error: ")
        assert said[0].endswith("--start FILE, or --start scratch.")
        assert not (tmp_path / "run").exists()
