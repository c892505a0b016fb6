"""What goes over the wire, as the OpenAPI document shows it, and what comes from a database."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from trustvlm.text import did_you_mean

# The smallest PNG that the models look at: 8 x 8, grey.
EXAMPLE_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAQAAAADsdIMmAAAADUlEQVR42mP4z8SADAEPcQEOdvOI0AAAAABJRU5E"
    "rkJggg=="
)


LABEL_FIELDS = ("label", "label_confidence")


def misspelt_label(names: Iterable[str]) -> str:
    """Say which of some names seems to mean a field of labels; "" if none does.

    Other fields are left aside. One that was to hold the label is refused: the answer would be
    about the model's own label instead, and look as if it were about that one.

    Examples
    --------
    >>> misspelt_label(["label", "camera"]), misspelt_label(["labels"])
    ('', "there is no field 'labels', did you mean label?")
    """
    for name in names:
        hint = "" if name in LABEL_FIELDS else did_you_mean(name, LABEL_FIELDS, 1)
        if hint:
            return f"there is no field {name[:80]!r}, {hint}"
    return ""


class ImageIn(BaseModel):
    """One image within JSON."""

    data: str = Field(
        description="The bytes of the image file, in base64: plain or URL-safe, in one line or "
        "several, alone or as a data URI."
    )
    name: str | None = Field(None, description="What to call it in the answer.")
    label: str | None = Field(
        None,
        max_length=1000,
        description="A label from elsewhere, which is judged instead of the model's own.",
    )
    label_confidence: float | None = Field(
        None, ge=0, le=1, description="The probability that whoever gave the label gave with it."
    )

    @model_validator(mode="before")
    @classmethod
    def _no_misspelt_label(cls, values: Any) -> Any:
        fault = misspelt_label(map(str, values)) if isinstance(values, dict) else ""
        if fault:
            raise PydanticCustomError("misspelt", "{fault}", {"fault": fault.removesuffix("?")})
        return values


class PredictRequest(BaseModel):
    """Images within JSON."""

    images: list[ImageIn] = Field(min_length=1)


class ExampleAnswer(BaseModel):
    """An example image of the model; see `/v1/examples/{shot}`."""

    shot: int
    similarity: float = Field(description="Cosine with the image.")


class VerdictAnswer(BaseModel):
    """What is said about one image; the columns of `trustvlm predict`, and some more."""

    path: str = Field(description="The name that came with the image.")
    label: str = Field(description="The predicted class; empty if the image cannot be used.")
    confidence: float | None = Field(description="The score; higher is more trusted.")
    p_correct: float | None = Field(description="P(label is right); null until calibrated.")
    decision: Literal["accept", "review", "error"]
    text_score: float | None = Field(description="Softmax probability from the text side.")
    image_score: float | None = Field(description="Cosine with the label's example images.")
    runner_up: str = Field(description="The label to consider instead.")
    reason: str = Field(description="Why, in plain words.")
    error: str = Field(description="What is wrong with the image, and the remedy.")
    image: str = Field(description="SHA-256 of the bytes: the image's name in other requests.")
    kind: str = Field(description="One word for the error; empty if there is none.")
    vlm_label: str = Field(
        "", description="What the text side alone says; empty if an older version did not say."
    )
    corrected: bool | None = Field(
        None,
        description="Whether `label` is another one than `vlm_label`; null if an older version did "
        "not say.",
    )
    candidates: list[str] = Field(
        default_factory=list,
        description="The labels for a person to choose from, if asked for: `label`, `runner_up`, "
        "then the rest of the prediction set, or the most probable ones; four to nine of them.",
    )
    label_example: ExampleAnswer | None = Field(
        None, description="The most similar example of the label, if asked for."
    )
    runner_up_example: ExampleAnswer | None = Field(
        None, description="The most similar example of the runner-up, if asked for."
    )
    kept: bool = Field(False, description="Whether the image waits for review now.")


class PredictAnswer(BaseModel):
    """One verdict per image, in the order of the request."""

    model: str = Field(description="The model that answered.")
    verdicts: list[VerdictAnswer]


class EncoderAnswer(BaseModel):
    """One of the two encoders."""

    spec: str
    fingerprint: str
    note: str
    device: str = Field("cpu", description="Where it computes, such as cpu or cuda:1.")


class ModelAnswer(BaseModel):
    """What is known about a model."""

    name: str
    classes: list[str]
    score: str
    models: dict[str, EncoderAnswer]
    shots: list[int] = Field(description="Example images of each class.")
    guarantee: str | None = Field(
        None,
        description="valid, or invalid once images are no longer like those that the model was "
        "calibrated on; null if nothing is guaranteed.",
    )
    calibrated: bool = Field(description="Whether any threshold is certified.")
    needs_labels: bool = Field(
        False, description="Whether each image has to come with a `label`, which is judged."
    )
    decision_rule: str
    created_by: str
    created_at: str


class ErrorDetail(BaseModel):
    """What was wrong with a request."""

    kind: str = Field(description="One word, for programs.")
    message: str = Field(description="What was wrong and what to do, for people.")


class ErrorAnswer(BaseModel):
    """Every error has this shape."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"error": {"kind": "queue_full", "message": "256 images wait already, ..."}}
            ]
        }
    )

    error: ErrorDetail


def predict_body() -> dict[str, Any]:
    """Return the request body of `/v1/predict`, in its two forms, for the OpenAPI document."""
    files = {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
    return {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {**files, "description": "The image files."},
                        "label": {
                            "type": "array",
                            "items": {"type": "string", "maxLength": 1000},
                            "description": "Labels from elsewhere, which are judged instead of the "
                            "model's own: one for each image, in their order; empty for none.",
                        },
                        "label_confidence": {
                            "type": "array",
                            "items": {
                                "anyOf": [
                                    {"type": "number", "minimum": 0, "maximum": 1},
                                    {"const": ""},
                                ]
                            },
                            "description": "The probabilities that came with the labels, likewise; "
                            "empty where there is no label.",
                        },
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "object",
                                "required": ["data"],
                                "dependentRequired": {"label_confidence": ["label"]},
                                "properties": {
                                    "name": {"type": "string"},
                                    "data": {"type": "string", "contentEncoding": "base64"},
                                    "label": {"type": "string", "maxLength": 1000},
                                    "label_confidence": {
                                        "type": "number",
                                        "minimum": 0,
                                        "maximum": 1,
                                    },
                                },
                            },
                        }
                    },
                },
                "example": {"images": [{"name": "a.png", "data": EXAMPLE_PNG}]},
            },
        },
    }


# What goes over the wire when people review, as the OpenAPI document shows it.

DIGEST = r"^[0-9a-f]{64}$"


class _Said(BaseModel):
    """What every answer of a person has."""

    model_config = ConfigDict(extra="forbid")

    image: str = Field(description="`image` of the verdict.", pattern=DIGEST)
    model: str | None = Field(None, description="Which model.", max_length=255)
    key: str | None = Field(
        None,
        description="A text of your own, such as a UUID: an answer on an image that is sent again "
        "with the same key is stored once.",
        min_length=1,
        max_length=64,
    )
    if_unanswered: bool = Field(
        False, description="Refuse the answer (409) if somebody's answer on the image counts."
    )


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


class BatchRequest(BaseModel):
    """Answers on several images of one model."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="Which model.", max_length=255)
    answers: list[FeedbackRequest] = Field(min_length=1, max_length=100)


class BatchItem(BaseModel):
    """What became of one answer of several."""

    id: int | None = Field(description="As in the answer to one; null if it was not stored.")
    earlier: EarlierAnswer | None = Field(None, description="What counted before.")
    error: ErrorDetail | None = Field(None, description="Why it was not stored, if it was not.")


class BatchAnswer(BaseModel):
    """All answers without an error are on disk."""

    open: int = Field(description="Images that still wait.")
    answers: list[BatchItem] = Field(description="In the order of the request.")


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
    lease_seconds: float | None = Field(
        None, description="How long the images are the reviewer's; null without a reviewer."
    )


class LabelCount(BaseModel):
    """Images of one predicted label that wait."""

    label: str
    open: int


class LeaseRequest(BaseModel):
    """Images that a reviewer still looks at."""

    model_config = ConfigDict(extra="forbid")

    reviewer: str = Field(min_length=1, max_length=64)
    model: str | None = Field(None, description="Which model.", max_length=255)
    images: list[Annotated[str, Field(pattern=DIGEST)]] = Field(max_length=100)


class LeaseAnswer(BaseModel):
    """Which images are the reviewer's."""

    held: list[str] = Field(
        description="Those of the request that wait and that nobody else was handed meanwhile."
    )
    lease_seconds: float = Field(description="How long they are the reviewer's.")


class ReleasedAnswer(BaseModel):
    """The images are anyone's again."""

    released: int


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


# What goes over the wire when a model is updated.


class ComparisonAnswer(BaseModel):
    """The model before and after the update, on the same images."""

    of: str = Field(description="What the images are, such as `corrections`.")
    n: int
    accuracy_before: float | None
    accuracy_after: float | None
    difference: float | None = Field(description="After minus before, as a fraction.")
    low: float | None = Field(description="Of the 95 % interval of the difference.")
    high: float | None
    aurc_before: float | None
    aurc_after: float | None
    verdict: Literal["better", "worse", "no significant difference"]
    statement: str = Field(description="All of it in a sentence.")


class UpdateResultAnswer(BaseModel):
    """What the update would do."""

    added: int = Field(description="Answers that became examples.")
    relabelled: int = Field(description="Examples that have another label now.")
    shots_before: int
    shots_after: int
    comparisons: list[ComparisonAnswer]
    calibration: Literal["none", "renewed", "dropped"]
    calibration_statement: str
    worse: bool = Field(description="Whether any comparison is significantly worse.")
    notes: list[str]


class UpdateAnswer(BaseModel):
    """How far the update of a model is."""

    state: Literal["none", "running", "ready", "worse", "failed", "cancelled", "switched"]
    model: str
    done: int = Field(description="Steps.")
    total: int = Field(description="Steps in all; 0 as long as that is not known.")
    seconds: float = Field(description="Since the start.")
    message: str = Field(description="Why it failed.")
    command: str = Field(description="The command that does the same, in the model's folder.")
    kept: str = Field(description="After the switch, the folder with the model before.")
    result: UpdateResultAnswer | None


# Answers as they are stored; a database may come from elsewhere.


class StoredAnswer(TypedDict):
    """A row of the table of answers; `image` names a file when it is written."""

    id: int
    image: Annotated[str, Field(pattern=DIGEST)]
    model: str
    action: Literal["accept", "correct", "skip"]
    label: str
    folder: str
    predicted: str
    confidence: float | None
    created_at: str


STORED_ANSWERS = TypeAdapter(list[StoredAnswer])
