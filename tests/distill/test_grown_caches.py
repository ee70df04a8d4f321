"""A run and its cache, which grew since: each split is judged as before, or said to be another."""

from __future__ import annotations

import pytest
from helpers.runs import SMALL

from cache.build.from_folder import FeatureOptions, cache_features
from cache.runtime.errors import CacheMismatch
from distill.config import RunConfig
from distill.judge.open_run import evaluate_run
from distill.settings import with_settings
from distill.train.start import train as run


@pytest.fixture
def build(photos, teacher_dir, tmp_path):
    """A function that runs stage 1, the same command each time, with other names of some classes."""
    (photos / "chatgpt.txt").unlink()

    def build(**names):
        classes = sorted({path.name for split in ("train", "val") for path in (photos / split).iterdir()})
        lines = [f"{name} {i} {names.get(name, name)}" for i, name in enumerate(classes, start=1)]
        (photos / "label2text.txt").write_text("\n".join(lines) + "\n")
        options = FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0)
        cache_features(photos, tmp_path / "cache", options)
        return tmp_path / "cache"

    return build


def test_a_run_is_judged_as_before_on_what_its_growing_cache_still_has_and_refused_other_texts(
    build, photos, write_jpeg, tmp_path
):
    given = {"cache_dir": build(), "data_dir": photos}
    config = with_settings(RunConfig(), [*SMALL, "loss.cap=0", "train.epochs=1"])
    run(config, out=tmp_path / "run", **given)
    before = evaluate_run(tmp_path / "run", device="cpu")
    write_jpeg(photos / "val" / "plum" / "new.jpg")
    write_jpeg(photos / "val" / "mango" / "first.jpg")
    build()
    after = evaluate_run(tmp_path / "run", device="cpu")
    assert after["id_test"].other_data == ""
    assert after["id_test"].per_class == before["id_test"].per_class
    assert after["ood_test"].other_data == "classes only here: mango; 8 images here, 6 when it was trained"
    with pytest.raises(CacheMismatch, match="ood_test: classes only here: mango"):
        run(config, out=tmp_path / "run", resume_run=True, **given)
    build(banana="yellow_fruit")
    with pytest.raises(CacheMismatch, match=r"\(text bank main/labels: other texts of banana\)"):
        evaluate_run(tmp_path / "run", device="cpu")
