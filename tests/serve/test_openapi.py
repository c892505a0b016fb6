"""The service keeps to its own OpenAPI document, whatever is sent."""

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis.errors import Unsatisfiable

from service import service_of

schemathesis = pytest.importorskip("schemathesis", reason="no schemathesis: install the extra test")
from schemathesis import GenerationMode  # noqa: E402


@pytest.fixture(scope="module")
def document(colours, tmp_path_factory):
    folder = tmp_path_factory.mktemp("openapi")
    options = ("--feedback", folder / "f.sqlite", "--max-body-mib", 4)
    with service_of(colours, *options, log=folder / "log") as (_, address):
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


def labels_fit(body):
    """Whether each image may have a label, and each probability has one.

    JSON Schema cannot say it of a form, nor of labels that are blank.
    """
    if not isinstance(body, dict) or not isinstance(body.get("images"), list):
        return True
    images = [image for image in body["images"] if isinstance(image, dict)]
    if any(
        "label_confidence" in image and not str(image.get("label", "")).strip() for image in images
    ):
        return False
    fields = (body.get(name, []) for name in ("label", "label_confidence"))
    return all(
        len(field) in (0, len(body["images"])) for field in fields if isinstance(field, list)
    )


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_answer_is_as_documented(document, mode):
    tried = set()
    for result in document.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=8,
            phases=[Phase.explicit, Phase.generate],
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers_as_documented(case):
            assume(labels_fit(case.body))
            tried.add(case.operation.label)
            case.call_and_validate()

        try:
            answers_as_documented()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # nothing can be wrong with these
    assert "POST /v1/predict" in tried
    assert "POST /v1/feedback" in tried


def test_every_path_is_documented_with_an_example_and_versioned(client):
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, operations in document["paths"].items():
        assert path.startswith("/v1/") or path in ("/healthz", "/readyz", "/metrics")
        for operation in operations.values():
            assert operation["summary"]
            assert operation["description"]
    body = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    example = body["application/json"]["example"]
    (verdict,) = client.post("/v1/predict", json=example).json()["verdicts"]
    assert verdict["decision"] != "error"
    assert set(body) == {"application/json", "multipart/form-data"}


def test_the_pages_of_other_hosts_are_not_served(client):
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404
