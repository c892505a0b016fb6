"""The claims of the README on real sets, with CLIP and offline; and a plain re-computation."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from trustvlm import TrustVLM
from trustvlm.embeddings.encode import image_key
from trustvlm.exceptions import TrustVLMWarning

SETS = (
    "caltech101",
    "cifar10",
    "dtd10",
    "eurosat",
    "imagenette",
    "office_caltech10",
    "oxford_pets37",
    "pacs",
)
# Those of few images, from files to metrics; arrays of the same images have all eight.
FROM_FILES = ("cifar10", "dtd10", "office_caltech10", "pacs")


@pytest.fixture(scope="module")
def evaluations(data_root):
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    found = {}
    for name in FROM_FILES:
        model = TrustVLM("offline", "offline", classes=data_root / name / "classes.txt")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TrustVLMWarning)
            model.fit(data_root / name / "train", shots_per_class=16)
        found[name] = model, model.evaluate(data_root / name / "test")
    return found


@pytest.mark.slow
def test_trustvlm_ranks_better_than_msp(evaluations):
    for name, (_, result) in evaluations.items():
        assert result.metrics["trustvlm"].auroc > result.metrics["msp"].auroc, name


@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_FILES)
def test_a_plain_recomputation_from_the_stored_embeddings_agrees(evaluations, data_root, name):
    """Written out from the paper, image by image, without the rooms under test."""
    model, result = evaluations[name]
    keys = {path: path.read_bytes() for path in result.files}
    from hashlib import sha256

    def stored(encoder, contents):
        hashes = [sha256(content).hexdigest() for content in contents]
        rows = model.embedding_store.get_many(image_key(encoder), hashes)
        return np.array([rows[digest] for digest in hashes], dtype=np.float64)

    def unit(rows):
        return rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))

    train = data_root / name / "train"
    shots = [(train / shot["path"]).read_bytes() for shot in model.shots_]
    shot_labels = np.array([shot["class"] for shot in model.shots_])
    vlm, vision = model.encoders.vlm, model.encoders.vision
    shot_features = stored(vision, shots)
    prototypes = unit(
        np.stack([shot_features[shot_labels == c].mean(axis=0) for c in range(len(model.classes_))])
    )
    names = [n.replace("_", " ") for n in model.classes_.names]
    texts = unit(vlm.encode_texts([f"a photo of a {n}." for n in names]).astype(np.float64))
    z = 20.0 * unit(stored(vlm, keys.values())) @ texts.T
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    cosines = unit(stored(vision, keys.values())) @ prototypes.T
    prediction = z.argmax(axis=1)
    confidence = p.max(axis=1) + np.take_along_axis(cosines, prediction[:, None], axis=1)[:, 0]
    correct = prediction == result.labels

    order = np.argsort(-confidence, kind="stable")
    k = np.arange(1, len(order) + 1)
    aurc = np.mean(np.cumsum(~correct[order]) / k)
    fpr, tpr, _ = roc_curve(correct, confidence, drop_intermediate=False)
    found = result.metrics["trustvlm"]
    assert found.auroc == pytest.approx(roc_auc_score(correct, confidence), abs=1e-6)
    assert found.aurc == pytest.approx(aurc, abs=1e-6)
    assert found.fpr95 == pytest.approx(fpr[tpr >= 0.95][0], abs=1e-6)
    np.testing.assert_allclose(result.results["trustvlm"].confidence, confidence, atol=1e-6)


def test_trustvlm_ranks_better_than_msp_on_at_least_seven_of_eight_sets(embeddings_root):
    """Scores and metrics on ready-made arrays of the same images, computed elsewhere."""
    from trustvlm import metrics, scores
    from trustvlm.scores.few_shot import draw_shots

    better = 0
    for name in SETS:
        train = np.load(embeddings_root / f"{name}__train.npz", allow_pickle=False)
        test = np.load(embeddings_root / f"{name}__test.npz", allow_pickle=False)
        n_classes = len(train["class_names"])
        chosen = draw_shots(train["labels"], n_classes, 16).indices
        evidence = {
            "logits": test["logits"],
            "features": test["features"],
            "support_features": train["features"][chosen],
            "support_labels": train["labels"][chosen],
        }
        auroc = {}
        for score in ("msp", "trustvlm"):
            v = scores.compute(score, **evidence)
            auroc[score] = metrics.auroc(v.confidence, v.prediction == test["labels"])
        better += auroc["trustvlm"] > auroc["msp"]
    assert better >= 7


CLIP_SETS = ("dtd_clip_vitb32", "sun397_clip_vitb32", "caltech61_clip_vitb32",
             "cifar10_openclip_vitb32")  # fmt: skip


@pytest.mark.parametrize("name", CLIP_SETS)
def test_with_clip_auto_ranks_better_than_trustvlm_and_that_better_than_msp(
    clip_embeddings_root, name
):
    from trustvlm import metrics, scores
    from trustvlm.benchmark import load_arrays
    from trustvlm.scores.few_shot import draw_shots

    support = load_arrays(clip_embeddings_root / f"{name}__train.npz")
    test = load_arrays(clip_embeddings_root / f"{name}__test.npz")
    shots = support.shots(draw_shots(support.labels, support.n_classes, 16).indices)
    evidence = test.about(shots)
    auroc = {}
    for score in ("msp", "trustvlm", "auto"):
        result = scores.apply(score, evidence)
        auroc[score] = metrics.auroc(result.confidence, result.prediction == test.labels)
    assert auroc["msp"] + 0.01 < auroc["trustvlm"] < auroc["auto"] - 0.04
    star = scores.apply("auto_star", evidence)
    assert (star.prediction == test.labels).mean() > (test.logits.argmax(1) == test.labels).mean()
