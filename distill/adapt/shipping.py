"""A run's student in the model's place, if it is better than the one that is there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from typing import Any

from distill.adapt.book import Book
from distill.adapt.costs import FEW_CHECKED, FIRST_CHECK, LEAST_CHECKED, MOST_CHECKED
from distill.adapt.options import WORK, in_words
from distill.adapt.score import score_of
from distill.adapt.state import Shipped
from distill.adapt.students import CLOSED_FORM, IN_WORDS, TRAINED
from distill.deploy.export import export_run
from distill.deploy.export_options import ExportOptions
from distill.deploy.info import NAME as MODEL_JSON
from distill.deploy.info import ModelInfo
from distill.deploy.replace import put_in_place
from distill.deploy.vocabulary_rows import VocabularySource


def is_better(book: Book, name: str, summary: Mapping[str, Any]) -> bool:
    """Say whether a run's student is to take the model's place; tell of one that is trained, and is not."""
    (score, told), shipped = score_of(summary), book.state.shipped
    if shipped is None or shipped.inputs != book.state.inputs or not has_model(book):
        return True
    if shipped.run == name:
        return shipped.score != score
    if score > shipped.score:
        return True
    if name != CLOSED_FORM and shipped.run != TRAINED:
        book.note(f"{IN_WORDS[name]} is no better ({told}): {IN_WORDS[shipped.run]} stays")
    return False


def has_model(book: Book) -> bool:
    """Say whether there is a model."""
    return (book.options.out / MODEL_JSON).is_file()


def ship(book: Book, name: str, summary: Mapping[str, Any], words: VocabularySource | None) -> None:
    """Put a run's student, with ``words`` to name anything by, in the model's place."""
    score, told = score_of(summary)
    with book.stage("export"):
        export(book, name, words)
    book.keep(shipped=Shipped(run=name, inputs=book.state.inputs, score=score))
    book.note(f"{book.options.out} can be used after {in_words(book.seconds)}: {IN_WORDS[name]}, {told}")


def export(book: Book, name: str, words: VocabularySource | None) -> None:
    """Write a run's model beside the one that is there, and put it in its place."""
    began, most = time.perf_counter(), _checked(book, name)
    options = book.options
    new = options.work / "next" / options.out.resolve().name
    shutil.rmtree(new.parent, ignore_errors=True)
    wanted = ExportOptions(
        code=options.code, vocabulary=words, check_images=most, data_name=options.data_name
    )
    export_run(options.work / name, new, wanted, progress=book.progress)
    put_in_place(new, options.out, beside=WORK)
    shutil.rmtree(new.parent, ignore_errors=True)
    if book.state.pace is not None and words is None:
        book.keep(pace=book.state.pace.exported(most, time.perf_counter() - began))


def has_words(book: Book) -> bool:
    """Say whether the model that is there names anything."""
    return bool(ModelInfo.load(book.options.out).vocabulary)


def _checked(book: Book, name: str) -> int:
    """Return how many images of each split a model is compared with its student on: few where it is to go."""
    pace = book.state.pace
    if pace is None:
        return MOST_CHECKED if name == TRAINED else FEW_CHECKED
    if name == TRAINED:
        return pace.checked(book.left - pace.report)
    share = FIRST_CHECK * book.left if name == CLOSED_FORM else book.left - pace.report
    return min(FEW_CHECKED, max(LEAST_CHECKED, pace.checked(share)))
