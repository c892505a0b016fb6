import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustvlm.exceptions import InputError
from trustvlm.monitoring.ood import OODThreshold, held_out_typicality
from trustvlm.scores import Evidence, PrototypeBank

cosines = st.lists(st.sampled_from([-1.0, 0.1, 0.2, 0.3, 0.8, 1.0]), max_size=150)


@given(cosines, cosines, st.sampled_from([0.01, 0.02, 0.05]))
def test_a_flag_is_a_conformal_p_value_of_at_most_the_share(of_shots, new, share):
    threshold = OODThreshold.of(of_shots, false_flags=share)
    least = 1 / (len(of_shots) + 1)
    wanted = max(share, least)
    p_values = [(1 + sum(shot <= value for shot in of_shots)) * least for value in new]
    expected = [wanted <= 0.05 and p <= wanted + 1e-12 for p in p_values]
    assert threshold.is_ood(new).tolist() == expected
    assert threshold.false_flags <= wanted + 1e-12
    assert (threshold.false_flags == 0) == (wanted > 0.05)


def test_ordinary_images_are_flagged_as_rarely_as_stated():
    """Over draws of shots and of one new image; the mean is exact for continuous values."""
    rng = np.random.default_rng(0)
    flagged, stated = [], []
    for _ in range(3000):
        values = rng.beta(8, 3, size=400)
        threshold = OODThreshold.of(values[:250])
        flagged.append(threshold.is_ood(values[250:]).mean())
        stated.append(threshold.false_flags)
    assert set(np.round(stated, 6)) == {round(2 / 251, 6)}
    assert np.mean(flagged) == pytest.approx(2 / 251, abs=4 * np.std(flagged) / math.sqrt(3000))


def test_an_image_without_any_prototype_is_not_flagged():
    assert not OODThreshold.of(np.linspace(0, 1, 200)).is_ood([math.nan]).any()


@pytest.mark.parametrize("share", [0.0, 0.06, math.nan])
def test_the_share_is_checked(share):
    with pytest.raises(InputError, match="false_flags"):
        OODThreshold.of([0.5], false_flags=share)


def shots(labels, seed=0):
    rng = np.random.default_rng(seed)
    return Evidence.of(
        logits=np.empty((0, 3)),
        support_features=rng.normal(size=(len(labels), 5)),
        support_labels=np.array(labels, dtype=int),
        support_logits=np.zeros((len(labels), 3)),
    )


def test_typicality_of_a_shot_is_that_against_the_others():
    labels = [0, 0, 0, 2, 2]
    evidence = shots(labels)
    typicality = held_out_typicality(evidence)
    features = evidence.support_features
    # The j-th shots of all classes are held out together: 0 with 3, 1 with 4, 2 with 3.
    for i, out in enumerate([(0, 3), (1, 4), (2, 3), (3, 0), (4, 1)]):
        kept = [k for k in range(5) if k not in out]
        bank = PrototypeBank().fit(features[kept], [labels[k] for k in kept], n_classes=3)
        assert typicality[i] == pytest.approx(np.nanmax(bank.similarities(features[i : i + 1])))


@pytest.mark.parametrize("labels", [[], [0, 1]])
def test_shots_that_nothing_can_be_compared_with_have_none(labels):
    assert held_out_typicality(shots(labels)).tolist() == []
