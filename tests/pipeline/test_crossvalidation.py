import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictures import write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM, metrics, scores
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import EvidenceMissingError, InputError
from trustvlm.pipeline.cross_validate import cross_validate, deal_folds
from trustvlm.scores import Evidence

SOME = ("msp", "trustvlm", "trustvlm_star", "trustvlm_star_f", "knn", "mahalanobis")


def shots(labels, seed=0, d=6):
    rng = np.random.default_rng(seed)
    labels = np.asarray(labels)
    return Evidence.of(
        logits=np.empty((0, 4)),
        support_features=2 * rng.normal(size=(4, d))[labels] + rng.normal(size=(len(labels), d)),
        support_labels=labels,
        support_logits=rng.normal(size=(len(labels), 4)),
        support_image_embeddings=rng.normal(size=(len(labels), 3)),
        text_embeddings=rng.normal(size=(4, 3)),
    )


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(2, 7))
def test_folds_are_even_in_every_class_and_leave_some_of_it(labels, folds):
    labels = np.array(labels)
    fold = deal_folds(labels, folds)
    for c in np.unique(labels):
        of_class = fold[labels == c]
        if len(of_class) == 1:
            assert of_class.tolist() == [-1]
            continue
        sizes = np.bincount(of_class, minlength=folds)
        assert sizes.sum() == len(of_class)
        assert sizes.max() - sizes.min() <= 1
        assert sizes.max() < len(of_class)


@pytest.mark.parametrize("folds", [2, 3, 50])
def test_each_shot_is_judged_by_the_others_of_other_folds(folds):
    labels = [0, 1, 0, 2, 1, 0, 0, 1, 2, 3]
    evidence = shots(labels)
    validated = cross_validate(evidence, SOME, folds=folds, parameters={"knn": {"k": 2}})
    fold = deal_folds(np.array(labels), folds)
    assert validated.left_out == 1
    assert validated.labels.tolist() == labels[:-1]
    for name in SOME:
        for i in range(9):
            kept = fold != fold[i]
            alone = scores.compute(
                name,
                logits=evidence.support_logits[[i]],
                features=evidence.support_features[[i]],
                support_features=evidence.support_features[kept],
                support_labels=evidence.support_labels[kept],
                **({"k": 2} if name == "knn" else {}),
            )
            assert validated.results[name].prediction[i] == alone.prediction[0]
            assert validated.results[name].confidence[i] == pytest.approx(alone.confidence[0])
        expected = metrics.evaluate(
            validated.results[name].confidence,
            validated.results[name].prediction == validated.labels,
        )
        assert validated.metrics[name] == expected


def test_all_scores_and_their_rows():
    validated = cross_validate(shots(np.arange(24) % 4))
    assert set(validated.metrics) == set(scores.names())
    rows = validated.to_dict()["rows"]
    assert [row["score"] for row in rows] == list(validated.metrics)
    assert {row["n"] for row in rows} == {24}


def test_the_difference_is_paired():
    validated = cross_validate(shots(np.arange(40) % 4), ["msp", "trustvlm_star"])
    gain = validated.difference("trustvlm_star", "msp")
    accuracy = {name: validated.metrics[name].accuracy for name in validated.metrics}
    assert gain.difference == pytest.approx(accuracy["trustvlm_star"] - accuracy["msp"])
    assert gain.low > 0


def test_what_cannot_be_cross_validated_is_explained():
    evidence = shots([0, 0, 1, 1])
    with pytest.raises(InputError, match="at least 2"):
        cross_validate(evidence, folds=1)
    with pytest.raises(InputError, match="none has"):
        cross_validate(shots([0, 1, 2]))
    with pytest.raises(InputError, match="no parameter `x`"):
        cross_validate(evidence, parameters={"msp": {"x": 1}})
    with pytest.raises(InputError, match="no score named"):
        cross_validate(evidence, ["msq"])
    with pytest.raises(EvidenceMissingError, match="`support_logits`"):
        cross_validate(Evidence.of(logits=[[1.0]]))


def test_a_model_judges_its_own_shots_with_its_own_settings(tmp_path):
    folder = write_class_folders(tmp_path / "shots", per_class=6)
    settings = {"weight": 0.4, "temperature": 0.2}

    def fitted(**more):
        model = TrustVLM(
            vlm=PixelEncoder(seed=1),
            vision=PixelEncoder(seed=2, dim=9),
            store=EmbeddingStore.memory(),
            score="trustvlm_star",
            score_parameters=settings,
            **more,
        )
        return model.fit(folder)

    model = fitted()
    names = ["trustvlm", "trustvlm_star", "trustvlm_star_f"]
    validated = model.cross_validate(names, folds=3)
    expected = cross_validate(
        model.evidence_of_shots(),
        names,
        folds=3,
        parameters={"trustvlm_star": settings, "trustvlm_star_f": settings},
    )
    for name in names:
        np.testing.assert_array_equal(
            validated.results[name].confidence, expected.results[name].confidence
        )
    # The prototypes of a fine-tuned model know every shot: they are not what is measured.
    tuned = fitted(finetune=True).cross_validate(names, folds=3)
    for name in names:
        np.testing.assert_array_equal(
            validated.results[name].confidence, tuned.results[name].confidence
        )
