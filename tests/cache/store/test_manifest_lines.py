from __future__ import annotations

from dataclasses import fields

import pytest

from cache.store.manifest import Manifest
from cache.store.manifest_lines import (
    COLUMNS,
    CropViewsColumn,
    ListedFile,
    PixelsColumn,
    SupportViewsColumn,
)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_is_a_field_of_the_manifest_and_a_folder_of_the_cache(column):
    assert column in {field.name for field in fields(Manifest)}
    assert ListedFile(file=f"{column}/train-00000.h5", bytes=0, sha256="").file.startswith(column)


def test_how_a_column_is_made_is_all_that_its_line_says_beside_its_shards():
    assert SupportViewsColumn(views=3, operations=1, magnitude=5).settings == [3, 1, 5]
    assert CropViewsColumn(views=4, scale=0.08).settings == [4, 0.08]
    assert PixelsColumn(side=36, encoding="raw").settings == [36, "raw"]
