import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import entropy as scipy_entropy

from trustvlm import PrototypeBank, scores
from trustvlm.exceptions import EvidenceMissingError, InputError
from trustvlm.scores import arrays

seeds = st.integers(0, 10_000)
TEXT = ("msp", "maxlogit", "energy", "entropy", "margin")
VISUAL = ("image_similarity", "prototype_margin", "trustvlm", "trustvlm_star")


def case(seed, n=9, n_classes=4, d=6, absent=()):
    rng = np.random.default_rng(seed)
    labels = np.array([c for c in np.repeat(np.arange(n_classes), 3) if c not in absent])
    return {
        "logits": rng.normal(size=(n, n_classes)) * 4,
        "features": rng.normal(size=(n, d)),
        "bank": PrototypeBank().fit(rng.normal(size=(len(labels), d)), labels, n_classes=n_classes),
    }


def slow_softmax(z):
    exponentials = [math.exp(v - max(z)) for v in z]
    return [e / sum(exponentials) for e in exponentials]


def slow_cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def slow(name, z, f, bank, weight=1.0, temperature=0.01):
    """One image at a time, term by term as the paper writes it."""
    p = slow_softmax(z)
    cos = [
        slow_cosine(f, P) if k else None
        for P, k in zip(bank.prototypes_, bank.present_, strict=True)
    ]
    yhat = max(range(len(z)), key=lambda c: z[c])
    if name == "image_similarity":
        return yhat, -1.0 if cos[yhat] is None else cos[yhat]
    if name == "prototype_margin":
        least = [-1.0 if c is None else c for c in cos]
        return yhat, least[yhat] - max([*least[:yhat], *least[yhat + 1 :]])
    if name == "trustvlm":
        return yhat, max(p) + weight * (cos[yhat] or 0.0)
    seen = [c for c in range(len(z)) if cos[c] is not None]
    votes = dict(zip(seen, slow_softmax([cos[c] / temperature for c in seen]), strict=True))
    q = [p[c] + weight * votes.get(c, 0.0) for c in range(len(z))]
    yhat = max(range(len(z)), key=lambda c: q[c])
    return yhat, q[yhat] + weight * (cos[yhat] or 0.0)


@given(seeds, st.sampled_from(VISUAL), st.sampled_from([(), (1,), (0, 3)]))
def test_visual_scores_equal_the_obvious_version(seed, name, absent):
    evidence = case(seed, absent=absent)
    result = scores.compute(name, **evidence)
    for i in range(9):
        yhat, confidence = slow(
            name, evidence["logits"][i], evidence["features"][i], evidence["bank"]
        )
        assert result.prediction[i] == yhat
        assert result.confidence[i] == pytest.approx(confidence, abs=1e-12)


@given(seeds)
def test_text_scores_equal_scipy(seed):
    z = case(seed)["logits"]
    p = np.exp(z - logsumexp(z, axis=1, keepdims=True))
    ordered = np.sort(p, axis=1)
    expected = {
        "msp": p.max(axis=1),
        "maxlogit": z.max(axis=1),
        "energy": logsumexp(z, axis=1),
        "entropy": -scipy_entropy(p, axis=1),
        "margin": ordered[:, -1] - ordered[:, -2],
    }
    for name, value in expected.items():
        result = scores.compute(name, logits=z)
        np.testing.assert_allclose(result.confidence, value, atol=1e-12)
        np.testing.assert_array_equal(result.prediction, z.argmax(axis=1))


def test_the_papers_first_figure():
    """A wrong prediction (0.40, 0.48) scores 0.88, a right one (0.38, 0.72) scores 1.10."""
    # The rest is spread over two classes, so that the first one is the prediction.
    logits = np.array(
        [
            [math.log(0.40), math.log(0.30), math.log(0.30)],
            [math.log(0.38), math.log(0.31), math.log(0.31)],
        ]
    )
    features = np.array([[0.48, math.sqrt(1 - 0.48**2)], [0.72, math.sqrt(1 - 0.72**2)]])
    bank = PrototypeBank().fit([[1.0, 0.0]], [0], n_classes=3)
    trust = scores.compute("trustvlm", logits=logits, features=features, bank=bank).confidence
    np.testing.assert_allclose(trust, [0.88, 1.10], atol=1e-12)
    msp = scores.compute("msp", logits=logits).confidence
    assert msp[0] > msp[1]
    assert trust[0] < trust[1]


@given(seeds, st.sampled_from(["trustvlm", "trustvlm_star"]))
def test_weight_zero_is_msp(seed, name):
    evidence = case(seed)
    plain, msp = (
        scores.compute(name, weight=0.0, **evidence),
        scores.compute("msp", logits=evidence["logits"]),
    )
    np.testing.assert_array_equal(plain.prediction, msp.prediction)
    np.testing.assert_array_equal(plain.confidence, msp.confidence)


def test_weight_zero_predicts_as_the_vlm_even_where_softmax_rounds():
    logits = np.array([[0.0, 1e-20]])
    assert np.exp(logits[0, 1]) == 1.0
    bank = PrototypeBank().fit([[1.0], [1.0]], [0, 1])
    star = scores.compute("trustvlm_star", logits=logits, features=[[1.0]], bank=bank, weight=0.0)
    assert star.prediction[0] == 1


@given(seeds, st.floats(0, 20))
def test_the_plain_variant_never_changes_the_prediction(seed, weight):
    evidence = case(seed)
    result = scores.compute("trustvlm", weight=weight, **evidence)
    np.testing.assert_array_equal(result.prediction, evidence["logits"].argmax(axis=1))


@given(seeds, st.sampled_from([*TEXT, *VISUAL]))
def test_scores_do_not_depend_on_image_order_or_block_size(seed, name):
    evidence = case(seed)
    used = evidence if name in VISUAL else {"logits": evidence["logits"]}
    whole = scores.compute(name, **used)
    order = np.random.default_rng(seed).permutation(9)
    shuffled = {k: v if k == "bank" else v[order] for k, v in used.items()}
    permuted = scores.compute(name, **shuffled)
    np.testing.assert_allclose(permuted.confidence, whole.confidence[order], atol=1e-13)
    np.testing.assert_array_equal(permuted.prediction, whole.prediction[order])


@pytest.mark.parametrize("name", [*TEXT, *VISUAL])
def test_blocks_give_the_same_as_one_pass(name, monkeypatch):
    evidence = case(1, n=50)
    used = evidence if name in VISUAL else {"logits": evidence["logits"]}
    whole = scores.compute(name, **used)
    monkeypatch.setattr(arrays, "_BLOCK_BYTES", 1)
    blocked = scores.compute(name, **used)
    np.testing.assert_allclose(blocked.confidence, whole.confidence, atol=1e-13)
    assert list(arrays.row_blocks(3, 10)) == [slice(0, 1), slice(1, 2), slice(2, 3)]


@pytest.mark.parametrize("name", [*TEXT, *VISUAL])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_image_no_image_and_narrow_types(name, dtype):
    evidence = case(2, n=1)
    used = evidence if name in VISUAL else {"logits": evidence["logits"]}
    narrow = {k: v if k == "bank" else v.astype(dtype) for k, v in used.items()}
    result = scores.compute(name, **narrow)
    assert result.confidence.dtype == np.float64
    assert result.confidence.shape == (1,)
    np.testing.assert_allclose(
        result.confidence, scores.compute(name, **used).confidence, rtol=0.02, atol=0.02
    )
    empty = {k: v if k == "bank" else v[:0] for k, v in used.items()}
    assert scores.compute(name, **empty).confidence.shape == (0,)


@pytest.mark.parametrize("name", TEXT)
def test_a_single_class_and_huge_logits_stay_finite(name):
    assert np.isfinite(scores.compute(name, logits=[[3.0]]).confidence).all()
    huge = scores.compute(name, logits=[[1e300, -1e300], [1e4, 1e4]])
    assert np.isfinite(huge.confidence).all()


def test_no_class_has_shots():
    evidence = case(5)
    evidence["bank"] = PrototypeBank().fit(np.empty((0, 6)), np.empty(0, dtype=int), n_classes=4)
    msp = scores.compute("msp", logits=evidence["logits"])
    for name in ("trustvlm", "trustvlm_star"):
        result = scores.compute(name, **evidence)
        np.testing.assert_array_equal(result.confidence, msp.confidence)
    assert (scores.compute("image_similarity", **evidence).confidence == -1).all()


def test_the_shots_themselves_serve_as_bank():
    rng = np.random.default_rng(0)
    support, labels = rng.normal(size=(8, 6)), np.arange(8) % 4
    evidence = case(0)
    from_bank = scores.compute(
        "trustvlm", **{**evidence, "bank": PrototypeBank().fit(support, labels, n_classes=4)}
    )
    evidence.pop("bank")
    from_shots = scores.compute(
        "trustvlm", **evidence, support_features=support, support_labels=labels
    )
    np.testing.assert_array_equal(from_bank.confidence, from_shots.confidence)


def test_zero_shot_logits():
    logits = scores.zero_shot_logits([[3.0, 4.0]], [[1.0, 0.0], [0.0, 2.0]], logit_scale=10)
    np.testing.assert_allclose(logits, [[6.0, 8.0]])
    with pytest.raises(InputError, match="different models"):
        scores.zero_shot_logits([[1.0]], [[1.0, 0.0]])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": None}, EvidenceMissingError, "`trustvlm` needs `features`"),
        ({"bank": None}, EvidenceMissingError, "needs `bank`"),
        ({"logits": np.zeros((9, 5))}, InputError, "`bank` to have 5 classes"),
        ({"features": np.ones((8, 6))}, InputError, "`features` to have 9 rows"),
        ({"features": np.ones((9, 7))}, InputError, "another encoder"),
        ({"features": np.zeros((9, 6))}, InputError, "all zeros"),
        ({"logits": np.full((9, 4), np.nan)}, InputError, "9 of 9 rows hold NaN"),
        ({"logits": np.empty((9, 0))}, InputError, "at least one column"),
        ({"wieght": 2.0}, InputError, "no parameter `wieght`; it has `weight`"),
    ],
)
def test_bad_evidence_is_explained(change, error, message):
    with pytest.raises(error, match=message):
        scores.compute("trustvlm", **{**case(0), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": np.zeros((9, 5))}, "`logits` to have 4 columns, but got 5"),
        ({"features": np.ones((9, 7))}, "`support_features` to have 7 columns like `features`"),
        ({"features": np.ones((8, 6))}, "`features` to have 9 rows like `logits`, but got 8"),
        ({"image_embeddings": np.ones((9, 3))}, "`support_image_embeddings` to have 3 columns"),
    ],
)
def test_images_that_do_not_fit_the_shots_are_refused(change, message):
    images = {key: value for key, value in case(0).items() if key != "bank"}
    shots = scores.Evidence.of(
        logits=np.empty((0, 4)),
        support_features=np.ones((2, 6)),
        support_labels=[0, 3],
        support_image_embeddings=np.ones((2, 5)),
    )
    assert shots.with_images(**images).n == 9
    with pytest.raises(InputError, match=message):
        shots.with_images(**{**images, **change})


def test_features_of_another_encoder_than_the_banks_are_refused():
    without_shots = scores.Evidence.of(logits=np.empty((0, 4)), bank=case(0)["bank"])
    with pytest.raises(InputError, match="6 columns like the prototypes, but got 7"):
        without_shots.with_images(logits=np.zeros((9, 4)), features=np.ones((9, 7)))


def test_temperature_must_be_positive():
    with pytest.raises(InputError, match="`temperature` to be above 0"):
        scores.compute("trustvlm_star", temperature=0.0, **case(0))


def test_the_registry_knows_what_each_score_needs():
    needs = scores.names()
    assert needs["msp"] == ("logits",)
    assert needs["trustvlm"] == ("logits", "features", "bank")
    for name in needs:
        score = scores.get(name)
        assert score.summary
        assert score.source
        assert score.formula
    assert scores.get("trustvlm_star").corrects
    assert scores.get("trustvlm").parameters == {"weight": 1.0, "link": "softmax"}
    with pytest.raises(InputError, match="did you mean trustvlm"):
        scores.get("trustvml")
    with pytest.raises(InputError, match="already registered"):
        scores.register("msp", formula="", source="")(lambda evidence: None)
    for pieces in ("needs", "optional"):
        with pytest.raises(InputError, match=f"`{pieces}` of score `new` names no evidence"):
            scores.register("new", **{pieces: ("tea_leaves",)}, formula="", source="")


@pytest.mark.parametrize(
    ("name", "sees", "corrects"),
    [
        ("msp", {"text": "logits"}, False),
        ("gda", {"text": "logits", "shots": "yes", "vision encoder": "yes"}, True),
        (
            "trine",
            {"text": "logits, embeddings", "shots": "yes", "VLM's image space": "yes"},
            False,
        ),
        ("conf_ot", {"text": "logits", "whole batch": "yes"}, True),
        (
            "auto_adapted",
            {
                "text": "logits",
                "shots": "yes",
                "VLM's image space": "if passed",
                "vision encoder": "yes",
                "whole batch": "yes",
            },
            False,
        ),
    ],
)
def test_what_a_score_sees_follows_from_what_it_is_registered_with(name, sees, corrects):
    score = scores.get(name)
    assert {source: seen for source, seen in score.sees.items() if seen != "no"} == sees
    assert score.sight.endswith("may change the label." if corrects else "keeps the VLM's label.")
    assert score.function.__doc__.endswith(f"\n\n{score.sight}")


@pytest.mark.parametrize("name", list(scores.names()))
def test_what_a_score_is_not_said_to_see_it_does_not_see(name):
    """Other arrays in place of those change nothing; images alone unless the batch is seen."""
    rng = np.random.default_rng(0)
    labels = np.arange(12) % 4

    def arrays_of(seed):
        rng = np.random.default_rng(seed)
        return {
            "features": rng.normal(size=(9, 6)),
            "support_features": rng.normal(size=(12, 6)),
            "image_embeddings": rng.normal(size=(9, 5)),
            "support_image_embeddings": rng.normal(size=(12, 5)),
            "text_embeddings": rng.normal(size=(4, 5)),
        }

    fixed = {
        "logits": rng.normal(size=(9, 4)) * 4,
        "support_logits": rng.normal(size=(12, 4)),
        "support_labels": labels,
    }
    score, one, other = scores.get(name), arrays_of(1), arrays_of(2)
    seen = {*score.needs, *score.optional}
    if "bank" in seen:
        seen.add("support_features")
    if name in ("maxcosine", "mcm"):  # cosines with the text, which logits give as well
        seen |= {"image_embeddings", "text_embeddings"}
    mixed = {piece: one[piece] if piece in seen else other[piece] for piece in one}
    whole = scores.compute(name, **fixed, **one)
    np.testing.assert_array_equal(
        scores.compute(name, **fixed, **mixed).confidence, whole.confidence
    )
    part = {
        key: rows if key.startswith(("support", "text")) else rows[:4]
        for key, rows in {**fixed, **one}.items()
    }
    alone = scores.compute(name, **part).confidence
    independent = np.allclose(alone, whole.confidence[:4], rtol=1e-9, atol=1e-12)
    assert independent != score.whole_batch


def test_scores_and_metrics_do_not_need_torch(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import trustvlm.metrics, trustvlm.scores\n"
        "heavy = {'transformers', 'onnxruntime', 'matplotlib', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("TrustVLM", "trustvlm"),
        ("TrustVLM*", "trustvlm_star"),
        ("TrustVLM*(F)", "trustvlm_star_f"),
        ("TrustVLM* (F)", "trustvlm_star_f"),
        ("MSP", "msp"),
        ("MaxLogit", "maxlogit"),
        ("Doctor", "doctor_alpha"),
        ("DOCTOR-α", "doctor_alpha"),
        ("Doctor beta", "doctor_beta"),
        ("kNN", "knn"),
        ("Tip-Adapter", "tip_adapter"),
        ("Trust Score", "trust_score"),
        ("Mahalanobis", "mahalanobis"),
        ("p-norm MaxLogit", "pnorm_maxlogit"),
        ("GDA", "gda"),
        ("TRINE", "trine"),
        ("trustvlm_star", "trustvlm_star"),
        ("TrustVLM∗", "trustvlm_star"),
        ("TrustVLM⋆", "trustvlm_star"),
        ("TrustVLM★ (F)", "trustvlm_star_f"),
        ("auto＊", "auto_star"),
        ("auto_star †", "auto_star"),
        ("Tip‑Adapter", "tip_adapter"),
        ("TrustVLM°", "TrustVLM°"),
        ("TrustVLM-D", "TrustVLM-D"),
        ("no such score", "no such score"),
    ],
)
def test_names_in_print(said, name):
    assert scores.canonical_name(said) == name


def test_no_name_in_print_means_two_scores():
    for name in scores.names():
        assert scores.canonical_name(name.upper()) == name
        assert scores.canonical_name(name.replace("_", "-")) == name
    with pytest.raises(InputError, match=r"named `TrustVLM\*`; in print that is `trustvlm_star`"):
        scores.get("TrustVLM*")
    for said, meant in {
        "TrustVLM-D": "`trustvlm` with .* dinov2",
        "TrustVLM*-M": "_star` with .* moco",
    }.items():
        with pytest.raises(InputError, match=f"it is .*{meant}"):
            scores.get(said)
