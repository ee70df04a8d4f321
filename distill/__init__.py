"""Train small students from a cache of a teacher's embeddings, with no teacher in memory.

From Python, the functions that the commands call::

    import distill

    cache = distill.cache_features("photos", "artifacts/photos", pretrained="openai")
    student = distill.train_student(cache, "runs/first")
    print(distill.evaluate(student.folder))
    exported = distill.export(student.folder, "models/first")
    print(distill.load_model(exported.folder).predict("photo.jpg"))

``import distill`` imports neither torch nor numpy: each name is looked up when it is first used.

Inside, from the ground up, each importing what is before it; each room names its files::

    config_fields, config_checks    fields that know their values, and what does not go together
    config_data, config, settings    how images are drawn; the whole of a run as one frozen value; TOML, names
    losses, objective         pure terms, and the one place that adds them up
    metrics, tip_adapter, spread    pure functions of logits, embeddings, a few numbers
    headline                  which splits and which number a run is judged by first
    precision, data_identity, checkpoint    what is computed in; what a run is made of; its state in a file
    record                    what a run leaves behind
    data                      images and frames joined to rows
    student                   trunk, heads, prompts
    robotics                  what only episodes have
    judge                     the one evaluator
    train                     the loop, and a step
    fewshot, sweep, report    a few images of new classes; many runs; one page of them
    deploy                    a student that leaves: export, predict, serve
    demo, recipes, doctor     the embedded example; settings that ship; a machine examined
    api                       what ``import distill`` offers
    commands                  one a file
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.reader import EmbeddingCache
    from cache.runtime.errors import UserError
    from distill.adapt.outcome import Outcome
    from distill.api.adapting import adapt_photos
    from distill.api.exporting import Exported, export
    from distill.api.features import cache_features
    from distill.api.judging import Evaluation, evaluate
    from distill.api.model import ImageModel, load_model
    from distill.api.training import TrainedStudent, train_student
    from distill.deploy.model import Label, Prediction

    __version__: str

__all__ = [
    "EmbeddingCache",
    "Evaluation",
    "Exported",
    "ImageModel",
    "Label",
    "Outcome",
    "Prediction",
    "TrainedStudent",
    "UserError",
    "__version__",
    "adapt_photos",
    "cache_features",
    "evaluate",
    "export",
    "load_model",
    "train_student",
]

_WHERE = {
    "EmbeddingCache": "cache.reader",
    "Evaluation": "distill.api.judging",
    "Exported": "distill.api.exporting",
    "ImageModel": "distill.api.model",
    "Label": "distill.deploy.model",
    "Outcome": "distill.adapt.outcome",
    "Prediction": "distill.deploy.model",
    "TrainedStudent": "distill.api.training",
    "UserError": "cache.runtime.errors",
    "adapt_photos": "distill.api.adapting",
    "cache_features": "distill.api.features",
    "evaluate": "distill.api.judging",
    "export": "distill.api.exporting",
    "load_model": "distill.api.model",
    "train_student": "distill.api.training",
}


def __getattr__(name: str) -> object:
    # Looked up late: torch takes seconds, and who only predicts needs none of it.
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("distill")
    elif name in _WHERE:
        try:
            value = getattr(import_module(_WHERE[name]), name)
        except ModuleNotFoundError as error:
            raise _in_the_way(error) from error
    else:
        raise AttributeError(f"module 'distill' has no attribute {name!r}")
    globals()[name] = value
    return value


def _in_the_way(error: ModuleNotFoundError) -> ImportError:
    """Return what to say where a module of the user's is called as our other package, ``cache``."""
    import sys

    ours = getattr(sys.modules.get("cache"), "__file__", None)
    if (error.name or "").startswith("cache") and ours and not ours.endswith("__init__.py"):
        return ImportError(
            f"{ours} is imported as 'cache', which is a package of distill: rename that file", name="cache"
        )
    return error


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
