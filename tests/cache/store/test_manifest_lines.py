from __future__ import annotations

from dataclasses import fields

import pytest

from cache.store.manifest import Manifest
from cache.store.manifest_lines import COLUMNS, ListedFile


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_is_a_field_of_the_manifest_and_a_folder_of_the_cache(column):
    assert column in {field.name for field in fields(Manifest)}
    assert ListedFile(file=f"{column}/train-00000.h5", bytes=0, sha256="").file.startswith(column)
