"""What cache-features says it has done: rows that are new, columns that were added, nothing of what was not."""

from __future__ import annotations

import json

import pytest
from helpers.teachers import save_clip

from cache.build.from_folder import FeatureOptions, cache_features
from distill.commands.tables import print_build


@pytest.fixture
def run(photos, teacher_dir, tmp_path):
    def run_it(folder=teacher_dir, **options):
        made = FeatureOptions(model=f"local-dir:{folder}", device="cpu", workers=0, **options)
        return cache_features(photos, tmp_path / "cache", made)

    return run_it


def test_columns_and_a_second_teacher_are_told_with_their_rows_and_seconds(run, tmp_path, capsys):
    first = run()
    assert (first.teacher, first.new_rows, first.added_columns) == ("main", first.rows, {})
    more = run(views=2, pixels=8, support_views=2, support_shots=1)
    assert more.new_rows == 0
    rows = first.rows_of_splits
    assert more.added_columns == {"crop_views": rows["train"], "pixels": first.rows, "support_views": 5}
    assert more.columns_seconds > 0
    print_build(more, tmp_path / "cache", as_json=False)
    told = capsys.readouterr().out
    assert f"{first.rows} (0 new)" in told
    assert "added crop_views" in told
    assert "rows/s" in told
    assert "images/s" not in told  # none was embedded
    second = run(save_clip(tmp_path / "clip", embed_dim=24), teacher="second")
    assert (second.teacher, second.new_rows) == ("second", first.rows)
    assert second.images_per_s > 0
    assert second.added_columns == {"second.crop_views": rows["train"]}
    print_build(second, tmp_path / "cache", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["added_columns"] == second.added_columns
    assert told["teacher"] == "second"
    assert run(views=2, pixels=8).added_columns == {}
