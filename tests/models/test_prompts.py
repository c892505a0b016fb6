"""From templates and class names to one unit vector per class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixel_encoder import PixelEncoder
from trustvlm.exceptions import InputError
from trustvlm.models import class_embeddings, fill, read_prompts
from trustvlm.models.prompts import ALIKE, text_problems

NAMES = ("cat", "golden_retriever", "7", "aeroplane (small)")
TEMPLATES = ("a photo of a {}.", "a drawing of a {}.", "{}")


@pytest.mark.parametrize(
    ("prompt", "templates"),
    [
        ("a photo of a {}.", ("a photo of a {}.",)),
        ("a photo of a {name}.", ("a photo of a {}.",)),
        ("{}", ("{}",)),
        (["a {}.", "the {name}!"], ("a {}.", "the {}!")),
        (("a {}.", "b {}", "a {name}."), ("a {}.", "b {}")),
    ],
)
def test_templates(prompt: Any, templates: tuple[str, ...]) -> None:
    assert read_prompts(prompt) == templates


@pytest.mark.parametrize("as_text", [True, False])
def test_templates_from_a_file(as_text: bool, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(
        "\ufeff# an ensemble\n\n a photo of a {}.\r\nein Bild: {name} – schön\n", "utf-8"
    )
    expected = ("a photo of a {}.", "ein Bild: {} – schön")
    assert read_prompts(str(file) if as_text else file) == expected


def test_a_file_of_any_name_may_be_given_as_a_path(tmp_path: Path) -> None:
    file = tmp_path / "{odd}.txt"
    file.write_text("a {}")
    assert read_prompts(file) == ("a {}",)


@pytest.mark.parametrize("prompt", ["a {} and a {}", "a {name} and a {}", ["a {}", "a cat"]])
def test_a_template_has_one_slot(prompt: Any) -> None:
    with pytest.raises(InputError, match="once, where the class name goes"):
        read_prompts(prompt)


@pytest.mark.parametrize("prompt", ["{class}", "{", "{0}"])
def test_another_slot_is_not_understood(prompt: str) -> None:
    with pytest.raises(InputError, match="once"):
        read_prompts(prompt)


def test_no_template_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    for prompt in (tmp_path / "empty.txt", []):
        with pytest.raises(InputError, match="at least one prompt template"):
            read_prompts(prompt)


def test_what_is_neither_a_template_nor_a_file(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe{\x00}")
    for prompt in ("a photo of a cat", tmp_path, tmp_path / "binary", tmp_path / "none"):
        with pytest.raises(InputError, match="cannot be read as a file"):
            read_prompts(prompt)


def test_underscores_in_names_become_spaces_and_in_templates_stay() -> None:
    assert fill(["my_{}!", "{}"], ["golden_retriever"]) == [
        ["my_golden retriever!", "golden retriever"]
    ]


def test_names_are_put_in_as_they_are() -> None:
    assert fill(["a {}."], ["{}", "%s", "\\1"]) == [["a {}."], ["a %s."], ["a \\1."]]


def test_a_single_template_gives_plain_normalised_embeddings() -> None:
    vlm = PixelEncoder()
    actual = class_embeddings(vlm, NAMES, TEMPLATES[:1])
    vectors = vlm.encode_texts([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_an_ensemble_is_the_normalised_mean_of_normalised_embeddings() -> None:
    """Radford et al. 2021, section 3.1.4, one class and one prompt at a time."""
    vlm = PixelEncoder()
    actual = class_embeddings(vlm, NAMES, TEMPLATES)
    for row, name in zip(actual, NAMES, strict=True):
        total = np.zeros(vlm.dim)
        for template in TEMPLATES:
            vector = vlm.encode_texts([template.replace("{}", name.replace("_", " "))])[0]
            total += vector / np.sqrt(np.sum(vector.astype(float) ** 2))
        np.testing.assert_allclose(row, total / np.sqrt(np.sum(total**2)), atol=1e-6)


@given(st.permutations(range(len(TEMPLATES))), st.permutations(range(len(NAMES))))
def test_order_changes_only_the_order(templates: list[int], names: list[int]) -> None:
    vlm = PixelEncoder()
    plain = class_embeddings(vlm, NAMES, TEMPLATES)
    moved = class_embeddings(vlm, [NAMES[i] for i in names], [TEMPLATES[i] for i in templates])
    np.testing.assert_allclose(moved, plain[names], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-6)


def test_every_distinct_text_is_encoded_once() -> None:
    vlm = PixelEncoder()
    rows = class_embeddings(vlm, ["cat", "dog", "cat"], TEMPLATES)
    assert vlm.text_batches == [2 * len(TEMPLATES)]
    np.testing.assert_array_equal(rows[0], rows[2])


def test_another_encoder_of_texts_may_take_over() -> None:
    vlm = PixelEncoder()
    other = PixelEncoder(seed=1)
    actual = class_embeddings(vlm, NAMES, TEMPLATES, encode=other.encode_texts)
    np.testing.assert_array_equal(actual, class_embeddings(other, NAMES, TEMPLATES))
    assert vlm.text_batches == []


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_vector_without_direction_names_its_text(value: float) -> None:
    def encode(texts: Any) -> Any:
        vectors = np.ones((len(texts), 3), dtype=np.float32)
        vectors[texts.index("a dog")] = value
        return vectors

    with pytest.raises(InputError, match=r"pixels-0 gave a vector without direction for 'a dog'"):
        class_embeddings(PixelEncoder(), ["cat", "dog"], ["a {}"], encode=encode)


def test_prompts_that_cancel_out_name_their_class() -> None:
    def encode(texts: Any) -> Any:
        signs = [-1.0 if text == "not dog" else 1.0 for text in texts]
        return np.outer(signs, [0.1, 0.2, 0.3]).astype(np.float32)

    with pytest.raises(InputError, match="class 'dog' cancel each other"):
        class_embeddings(PixelEncoder(), ["cat", "dog"], ["{}", "not {}"], encode=encode)


class Short(PixelEncoder):
    """Reads twenty letters."""

    def cut_texts(self, texts: Any) -> list[str]:
        return [text for text in texts if len(text) > 20]


def unit(angle: float) -> list[float]:
    return [float(np.cos(angle)), float(np.sin(angle))]


def test_classes_that_the_text_cannot_tell_apart_are_named_once() -> None:
    near = float(np.arccos(ALIKE))
    names = ["sofa", "couch", "Sofa", "bed", "chair"]
    # Of five: two share a name, one is nearer than the bound to these, one is just too far off.
    rows = np.array([unit(0), unit(0.99 * near), unit(0), unit(-1.01 * near), unit(2)], np.float32)
    shared, alike = text_problems(PixelEncoder(), names, names, ["a {}."], rows)
    assert "classes that share a name: 'sofa', 'Sofa'" in shared
    cosine = f"{np.cos(0.99 * near):.3f}"
    assert f"'sofa' and 'couch' ({cosine}), 'couch' and 'Sofa' ({cosine})" in alike
    assert "bed" not in alike
    assert "0.97" in alike


def test_prompts_that_are_cut_name_their_classes() -> None:
    names = ["cat", "a very long name of a class", "dog"]
    (cut,) = text_problems(Short(), names, names, ["{}", "one {}"], np.eye(3, dtype=np.float32))
    assert "prompts of 'a very long name of a class' are longer" in cut
    assert not text_problems(Short(), ["cat"], ["cat"], ["{}"], np.eye(1, dtype=np.float32))
    # Of a model that does not say what it cuts nothing is said.
    eye = np.eye(3, dtype=np.float32)
    assert not text_problems(PixelEncoder(), names, names, ["{}"], eye)


def test_of_many_problems_some_are_named() -> None:
    names = [f"class {i}" for i in range(20)]
    (alike,) = text_problems(PixelEncoder(), names, names, ["{}"], np.ones((20, 1), np.float32))
    assert "and 182 more" in alike
