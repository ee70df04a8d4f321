"""Class folders that are called by ids, which a teacher reads as words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cache.runtime.errors import quoted, some_of

# A synset of WordNet (n01440764); a number alone; a number before a name (001.Black_footed_Albatross).
_ID = re.compile(r"[nvars]\d{8}|\d+|\d+[._ -]+\D.*")


def ids_note(folders: Sequence[str]) -> str:
    """Return one line where most class folders are called by ids; '' where they are not."""
    ids = [name for name in folders if _ID.fullmatch(name)]
    if len(ids) < 2 or 2 * len(ids) <= len(folders):
        return ""
    return (
        f"{len(ids):,} class folders are called by ids ({some_of([*map(quoted, ids)], 2)}), which the "
        "teacher reads as they are: give their names with --label2text, 'FOLDER INDEX NAME' a line"
    )
