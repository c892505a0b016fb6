"""What makes two encoders the same: their numbers, not their names."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from trustvlm.models import ModelIdentity, Preprocessing

IDENTITY = ModelIdentity(
    spec="clip-vit-b16",
    source="openai/clip-vit-base-patch16",
    revision="57c216476eefef5ab752ec549e440a49ae4ae5f3",
    weights="ab" * 32,
    settings={"precision": "float32", "pooling": "projection"},
)
PREPROCESSING = Preprocessing()


@pytest.mark.parametrize(
    "change", [{"spec": "hf:elsewhere"}, {"source": "elsewhere"}, {"revision": "another"}]
)
def test_names_do_not_count(change: dict[str, str]) -> None:
    other = replace(IDENTITY, **change)
    assert other != IDENTITY
    assert other.fingerprint(PREPROCESSING) == IDENTITY.fingerprint(PREPROCESSING)


def test_the_order_of_settings_does_not_count() -> None:
    other = replace(IDENTITY, settings=dict(reversed(IDENTITY.settings.items())))
    assert other.fingerprint(PREPROCESSING) == IDENTITY.fingerprint(PREPROCESSING)


def test_everything_that_changes_a_number_counts() -> None:
    others = [
        replace(IDENTITY, weights="cd" * 32).fingerprint(PREPROCESSING),
        replace(IDENTITY, settings={}).fingerprint(PREPROCESSING),
        replace(IDENTITY, settings={**IDENTITY.settings, "precision": "bfloat16"}).fingerprint(
            PREPROCESSING
        ),
        *(
            IDENTITY.fingerprint(replace(PREPROCESSING, **change))
            for change in (
                {"size": (224, 225)},
                {"resize": None},
                {"interpolation": "bilinear"},
                {"mean": (0.5, 0.5, 0.5)},
                {"std": (0.5, 0.5, 0.5)},
                {"rounding": "even"},
                {"draft": True},
            )
        ),
    ]
    fingerprints = {IDENTITY.fingerprint(PREPROCESSING), *others}
    assert len(fingerprints) == len(others) + 1
    assert all(len(fingerprint) == 64 for fingerprint in fingerprints)


def test_it_survives_json() -> None:
    copy = ModelIdentity(**json.loads(json.dumps(IDENTITY.to_dict())))
    assert copy == IDENTITY
    assert copy.fingerprint(PREPROCESSING) == IDENTITY.fingerprint(PREPROCESSING)
