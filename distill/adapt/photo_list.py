"""The photos and the names as files that a cache is made from, and made again."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from cache.runtime.atomic_files import replacing
from cache.sources.class_texts import LABELS
from distill.adapt.labels import Photo
from distill.adapt.names import Names

LIST = "photos.csv"


def write_photo_list(work: Path, photos: Iterable[Photo], names: Names) -> Path:
    """Write ``photos.csv`` (path,label,split,key) and ``label2text.txt``; return the list.

    All names are in the latter, also those that no photo has: the model is to know each.
    """
    with replacing(work / LABELS) as temporary:
        names.write(temporary)
    with replacing(work / LIST) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split", "key"])
        rows.writerows((photo.place, photo.name, photo.split, photo.key) for photo in photos)
    return work / LIST
