"""The head of a model card, as huggingface_hub writes it: what the hub lists and filters models by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cache.store.spec import HF_HUB, IMPORTED, LOCAL_DIR
from distill.config import PRETRAINED, StudentConfig
from distill.deploy.info import ModelInfo
from distill.deploy.timm_student import OPEN_CLIP
from distill.student.names import HUB, TIMM, resolve, timm_module

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


def front_matter(info: ModelInfo) -> str:
    """Return the YAML of a model's card, without the lines around it."""
    from huggingface_hub import ModelCardData

    libraries = [name for name in (OPEN_CLIP, TIMM) if name in info.measured]
    runs_in = [*libraries, "onnx" if info.precisions else "pytorch"]
    data = ModelCardData(
        base_model=info.source.get("base_model") or None,
        license=info.license,
        library_name=runs_in[0],
        pipeline_tag=_task(info),
        tags=["distill", "distillation", *(("clip", "open-vocabulary") if info.bank else ()), *runs_in],
        metrics=["average_precision" if info.objects is not None else "accuracy"] if info.bank else None,
        model_name=info.name,
        eval_results=list(_results(info)) or None,
    )
    return str(data.to_yaml())


def base_models(teacher: Mapping[str, Any], student: StudentConfig) -> list[str]:
    """Return what a student comes from, by its names on the hub: its teacher, its own first weights.

    What has none there is left out.
    """
    names = [_teacher_on_the_hub(teacher)]
    library, name = resolve(student.arch)
    if student.start == PRETRAINED and library == HUB:
        names.append(name)
    if student.start == PRETRAINED and library == TIMM:
        known = timm_module().get_pretrained_cfg(name, allow_unregistered=True)
        tag = known.tag if known else ""
        names.append(f"timm/{known.architecture}.{tag}" if tag else "")
    return [name for name in names if name]


def _teacher_on_the_hub(teacher: Mapping[str, Any]) -> str:
    if teacher["model"].startswith(LOCAL_DIR) or teacher["pretrained"] == IMPORTED:
        return ""
    if teacher["model"].startswith(HF_HUB):
        return teacher["model"].removeprefix(HF_HUB)
    from cache.teacher.weights import hub_name  # here, because open_clip takes seconds to import

    return hub_name(teacher["model"], teacher["pretrained"])


def _task(info: ModelInfo) -> str:
    if not info.bank:
        return "image-feature-extraction"
    return "image-classification" if info.objects is not None else "zero-shot-image-classification"


def _results(info: ModelInfo) -> Iterator[EvalResult]:
    """Yield what was measured of the first file, a result a metric and split."""
    from huggingface_hub import EvalResult

    episodes = info.objects is not None
    for first in [*info.measured.values()][:1] if info.bank else []:
        for split, numbers in first["splits"].items():
            metrics = (
                {"average_precision": "mean average precision over the split's objects, percent"}
                if episodes
                else {
                    "all_accuracy": f"macro accuracy among all {first['classes']} classes, percent",
                    "accuracy": f"macro accuracy among the split's own {numbers['classes']} classes, percent",
                }
            )
            for name, words in metrics.items():
                if name not in numbers:
                    continue
                yield EvalResult(
                    task_type=_task(info),
                    dataset_type="hdf5" if episodes else "imagefolder",
                    dataset_name=info.source["data"] or "the run's data",
                    dataset_split=split,
                    metric_type="average_precision" if episodes else "accuracy",
                    metric_name=words,
                    metric_value=round(float(numbers[name]), 2),
                )
