"""What goes over the wire when people review, as the OpenAPI document shows it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from trustvlm.serve.schemas import VerdictAnswer

__all__ = [
    "CurveAnswer",
    "FeedbackAnswer",
    "FeedbackRequest",
    "ForgottenAnswer",
    "QueueAnswer",
    "UndoAnswer",
]

DIGEST = r"^[0-9a-f]{64}$"


class _Said(BaseModel):
    """What every answer of a person has."""

    model_config = ConfigDict(extra="forbid")

    image: str = Field(description="`image` of the verdict.", pattern=DIGEST)
    model: str | None = Field(None, description="Which model.", max_length=255)


class Accepted(_Said):
    """The predicted label is right."""

    action: Literal["accept"]
    label: str | None = Field(
        None,
        description="The predicted label; only needed if the image was not kept.",
        max_length=1000,
    )


class Corrected(_Said):
    """The predicted label is wrong, this one is right."""

    action: Literal["correct"]
    label: str = Field(description="The right class.", min_length=1, max_length=1000)


class Skipped(_Said):
    """The person cannot say, or does not want to."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"image": "9f2c" * 16, "action": "skip"}]}
    )

    action: Literal["skip"]
    label: None = None


FeedbackRequest = Annotated[Accepted | Corrected | Skipped, Field(discriminator="action")]


class EarlierAnswer(BaseModel):
    """An answer on the same image that counted until now."""

    id: int
    action: str
    label: str


class FeedbackAnswer(BaseModel):
    """The answer is on disk."""

    id: int = Field(description="Undo it with DELETE /v1/feedback/{id}.")
    open: int = Field(description="Images that still wait.")
    earlier: EarlierAnswer | None = Field(
        None, description="What counted before, if someone had answered already."
    )


class UndoAnswer(BaseModel):
    """The answer was taken back."""

    undone: int


class ForgottenAnswer(BaseModel):
    """The image is no longer kept."""

    forgotten: str


class Waiting(BaseModel):
    """One image that waits for a person."""

    image: str
    kept_at: str
    verdict: VerdictAnswer


class QueueAnswer(BaseModel):
    """Images that wait for a person, the most doubtful first."""

    open: int = Field(description="How many wait in all.")
    images: list[Waiting]


class CurvePoint(BaseModel):
    """One threshold, and what it would do to the calibration images."""

    threshold: float
    coverage: float
    risk: float
    accepted: int
    wrong: int


class CertifiedPoint(BaseModel):
    """The threshold that is guaranteed for new images."""

    threshold: float
    coverage: float
    risk_bound: float | None


class CurveAnswer(BaseModel):
    """Risk and coverage on the calibration images."""

    images: int
    points: list[CurvePoint]
    certified: CertifiedPoint | None
    statement: str
