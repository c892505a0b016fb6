"""Models and verdicts in other processes, and copies of them, say the same."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from pictures import COLOURS, picture
from pixel_encoder import PixelEncoder
from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.embeddings.store import NullStore
from trustvlm.exceptions import ArtefactError, InputError
from trustvlm.models import register_backend, unregister_backend

SHOTS = [picture(colour, i) for i in range(4) for colour in COLOURS.values()]
LABELS = list(COLOURS) * 4
NEW = [picture(colour, 50 + i) for i in range(10) for colour in COLOURS.values()]
TRUE = list(COLOURS) * 10


def by_pickle(value):
    return pickle.loads(pickle.dumps(value))


COPIES = {"pickle": by_pickle, "deepcopy": copy.deepcopy, "copy": copy.copy}


def new_model(**settings):
    encoders = {"vlm": PixelEncoder(seed=1), "vision": PixelEncoder(seed=2, dim=9)}
    return TrustVLM(**{**encoders, "store": EmbeddingStore.memory(), **settings})


@pytest.fixture(scope="module")
def model():
    return new_model().fit((SHOTS, LABELS)).calibrate((NEW[:15], TRUE[:15]), risk=0.3)


def predict(model):
    return model.predict(NEW[15:]).to_jsonl()


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_judges_alike(model, how):
    other = COPIES[how](model)
    assert predict(other) == predict(model)
    assert repr(other.calibration_.certificate) == repr(model.calibration_.certificate)
    assert other.shots_ == model.shots_
    # What the copy learns is its own.
    other.fit((SHOTS[:6], LABELS[:6]))
    assert len(other.shots_) == 6
    assert len(model.shots_) == 12
    assert model.calibration_ is not None


@pytest.mark.parametrize("how", COPIES)
def test_a_model_that_is_not_fitted(how):
    other = COPIES[how](new_model(score="trustvlm", classes=iter(COLOURS)))
    assert other.score == "trustvlm"
    with pytest.raises(InputError, match="call fit"):
        _ = other.shots_
    assert predict(other.fit((SHOTS, LABELS))) == predict(
        new_model(score="trustvlm", classes=[*COLOURS]).fit((SHOTS, LABELS))
    )


@pytest.mark.parametrize("how", COPIES)
def test_verdicts(model, how):
    verdicts = model.predict(NEW[15:], prediction_sets=0.8)
    other = COPIES[how](verdicts)
    assert other.to_jsonl() == verdicts.to_jsonl()
    assert other.to_csv() == verdicts.to_csv()
    assert other.run == verdicts.run
    assert other.columns == verdicts.columns
    assert repr(other[2:5]) == repr(verdicts[2:5])


def test_results_travel(model):
    result = model.evaluate((NEW[15:], TRUE[15:]), scores=["auto_star"])
    assert by_pickle(result).verdicts.to_csv() == result.verdicts.to_csv()
    assert by_pickle(model.bank_).sums_.tolist() == model.bank_.sums_.tolist()


def test_a_spawned_process_judges_alike(model):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(predict, model).result(timeout=120) == predict(model)


def test_threads_share_a_copy(model):
    other, expected, results = by_pickle(model), predict(model), []
    threads = [threading.Thread(target=lambda: results.append(predict(other))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def test_stores(tmp_path):
    store = EmbeddingStore(tmp_path / "s.sqlite")
    store.put_many("f", {"cat": np.ones(3, np.float32)})
    assert list(by_pickle(store).get_many("f", ["cat"])) == ["cat"]
    memory = EmbeddingStore.memory()
    memory.put_many("f", {"cat": np.ones(3, np.float32)})
    assert by_pickle(memory).get_many("f", ["cat"]) == {}
    assert type(by_pickle(NullStore())) is NullStore
    model = new_model(store=store)
    assert by_pickle(model).store.path == store.path
    assert copy.deepcopy(model).store is store


class Stubborn(PixelEncoder):
    def __reduce__(self):
        raise TypeError("it holds a lock")


def test_an_encoder_that_cannot_travel_is_named(model):
    stubborn = new_model(vision=Stubborn(seed=2, dim=9)).fit((SHOTS, LABELS))
    with pytest.raises(InputError, match=r"The vision was .*\(it holds a lock\): name it by"):
        pickle.dumps(stubborn)
    assert predict(copy.deepcopy(stubborn)) == predict(stubborn)


@pytest.fixture
def weights():
    """A backend of encoders by name: what was loaded, and what stands for other weights."""
    state = {"loaded": [], "seed": 0}

    @register_backend("seeded", roles=("vlm", "vision"), form="<seed>")
    def load(name, options):
        """Pixels by seed."""
        state["loaded"].append(name)
        return PixelEncoder(seed=int(name) + state["seed"], dim=7)

    yield state
    unregister_backend("seeded")


@pytest.mark.parametrize("protocol", ["clean", "paper"])
def test_encoders_are_loaded_again_when_they_are_needed(weights, protocol):
    model = new_model(vlm="seeded:1", vision="seeded:2", protocol=protocol).fit((SHOTS, LABELS))
    assert weights["loaded"] == ["1", "2"]
    content = pickle.dumps(model)
    other = pickle.loads(content)
    assert other.classes_.labels == model.classes_.labels
    assert weights["loaded"] == ["1", "2"], "not yet"
    assert predict(other) == predict(model)
    assert weights["loaded"] == ["1", "2"] * 2
    assert predict(copy.deepcopy(model)) == predict(model)
    assert weights["loaded"] == ["1", "2"] * 2, "a copy in this process shares them"


def test_other_encoders_are_refused_where_a_model_arrives(weights):
    model = new_model(vlm="seeded:1", vision="seeded:2").fit((SHOTS, LABELS))
    other, again = by_pickle(model), by_pickle(model)
    weights["seed"] = 5
    with pytest.raises(ArtefactError, match=r"VLM on this machine .* is not the one"):
        predict(other)
    # Whoever fits it here needs no encoders but those that are here.
    assert len(again.fit((SHOTS, LABELS)).shots_) == 12


def test_estimators_can_be_cloned():
    base = pytest.importorskip("sklearn.base")
    from trustvlm.adapters import TrustClassifier

    X, y = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]], list("abcabc")
    fitted = TrustClassifier(np.eye(3), correct=False).fit(X, y)
    fresh = base.clone(fitted)
    assert not hasattr(fresh, "bank_")
    np.testing.assert_array_equal(fresh.fit(X, y).predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_array_equal(by_pickle(fitted).predict_proba(X), fitted.predict_proba(X))
