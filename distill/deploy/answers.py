"""What the service answers, as types for openapi.json; at run time nothing is checked against them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class LabelAnswer(BaseModel):
    """One label of an image."""

    label: str
    class_name: str = Field(description="The class folder; '' where it has none.")
    score: float = Field(ge=0, le=1, description="Probability among the class set.")
    similarity: float = Field(description="Cosine between the image and the label's text.")


class NearestImage(BaseModel):
    """One training image near the image."""

    key: str
    label: str
    similarity: float = Field(description="Cosine between the image and the teacher's row of the other.")
    picture: str = Field(description="A small JPEG as a data: URL.")


class TeacherLabel(BaseModel):
    """One label of an image, by the teacher."""

    label: str
    class_name: str = Field(description="The class folder; '' where it has none.")
    similarity: float = Field(description="Cosine between the teacher's row of the image and of the text.")


class TeacherAnswer(BaseModel):
    """What the teacher says of the image, among the same classes; best first."""

    answer: str
    labels: list[TeacherLabel]


class PredictAnswer(BaseModel):
    """The labels of an image, best first."""

    answer: str = Field(description="The best label, or that it is none of these.")
    none_of_these: bool
    labels: list[LabelAnswer]
    nearest_images: list[NearestImage]
    teacher: TeacherAnswer | None = Field(description="None unless it is asked for.")
    milliseconds: float = Field(ge=0, description="From the request's header to this answer.")


class HealthAnswer(BaseModel):
    """That the service is alive."""

    status: Literal["ok"]
    model: str
    precision: str
    waiting: int = Field(ge=0, description="Requests in work.")


class LabelsAnswer(BaseModel):
    """Every text bank's labels."""

    bank: str = Field(description="The one that classifies unless another is chosen.")
    banks: dict[str, list[str]]
    can_reject: bool = Field(description="Whether reject=true can be asked.")
    vocabulary: int = Field(ge=0, description="How many words open=true chooses from.")
    teacher: bool = Field(description="Whether teacher=true can be asked.")


class ErrorAnswer(BaseModel):
    """Why there is no answer, in one line."""

    error: str


_RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string", "pattern": "^[0-9]+$"}}}
_WHY = {
    400: "The body is empty, or a form without a file.",
    404: "The model has no such text bank or name.",
    408: "The body came too slowly.",
    413: "The body has too many bytes, or the image too many pixels.",
    415: "The body is no image, or a damaged one.",
    422: "A parameter has no such value.",
    429: "This client asks too often.",
    503: "Too much is in work.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the errors that a path may answer, as FastAPI's ``responses``."""
    return {
        status: {
            "model": ErrorAnswer,
            "description": _WHY[status],
            **({"headers": _RETRY} if status in (429, 503) else {}),
        }
        for status in statuses
    }


BODY = {
    "requestBody": {
        "required": True,
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary", "contentMediaType": media_type}}
            for media_type in ("image/jpeg", "image/png", "image/webp", "image/bmp")
        },
    }
}
"""The body of /predict. A form is told of in words alone: a schema cannot say that its file is an image."""
