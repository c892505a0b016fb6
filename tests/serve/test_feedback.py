"""Answers: durable, undoable, exported, and turned into examples."""

import csv
import io
import json
import os
import sqlite3
import stat
import threading
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from command import Command
from processes import next_line, running
from service import client_of
from trustvlm import TrustVLM
from trustvlm.exceptions import InputError
from trustvlm.serve.feedback import (
    Answer,
    FeedbackStore,
    KeptImage,
    StorageError,
    Submission,
    random_sample,
)
from uploads import png

DIGESTS = [f"{i:02d}" * 32 for i in range(8)]


def verdict(confidence=1.0, decision="review", p_correct=None, label="red"):
    return {
        "label": label,
        "confidence": confidence,
        "p_correct": p_correct,
        "decision": decision,
    }


def said(image, action="correct", label="red"):
    return Answer(image, "m", action, label, label, "blue", 0.5)


@pytest.fixture
def store(tmp_path):
    made = FeedbackStore(tmp_path / "m.feedback.sqlite")
    yield made
    made.close()


@pytest.fixture
def trustvlm(capsys, monkeypatch):
    return Command(capsys, monkeypatch)


def test_the_queue_begins_with_the_most_doubtful_and_ends_with_the_accepted(store):
    verdicts = [
        verdict(p_correct=0.7),
        verdict(p_correct=0.2),
        verdict(confidence=-9e9, decision="accept"),
        verdict(p_correct=0.5),
    ]
    for digest, one in zip(DIGESTS, verdicts, strict=False):
        store.keep(KeptImage(digest, "m", "a.png", one, b"x"))
    assert [row["image"] for row in store.queue("m", 9)] == [DIGESTS[i] for i in (1, 3, 0, 2)]
    assert [row["image"] for row in store.queue("m", 2)] == [DIGESTS[i] for i in (1, 3)]
    assert store.queue("other", 9) == []


class Reviewing(RuleBasedStateMachine):
    """Any sequence of keeping, answering and undoing, against plain lists."""

    def __init__(self):
        super().__init__()
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "m.feedback.sqlite"
        self.store = FeedbackStore(self.path)
        self.kept, self.given = {}, []

    @rule(digest=st.sampled_from(DIGESTS), doubt=st.floats(-1, 2))
    def keep(self, digest, doubt):
        assert self.store.keep(KeptImage(digest, "m", "a", verdict(doubt), b"x"))
        self.kept[digest] = doubt

    @rule(digest=st.sampled_from(DIGESTS), action=st.sampled_from(["accept", "skip"]))
    def answer(self, digest, action):
        number = self.store.record(said(digest, action))
        self.given.append([number, digest, action, True])

    @rule(which=st.integers(0, 20))
    def undo(self, which):
        if which < len(self.given):
            number, _, _, valid = self.given[which]
            assert self.store.undo(number) is valid
            self.given[which][3] = False

    @rule(digest=st.sampled_from(DIGESTS))
    def forget(self, digest):
        assert self.store.forget(digest, "m") is (self.kept.pop(digest, None) is not None)

    @rule()
    def reopen(self):
        self.store.close()
        self.store = FeedbackStore(self.path)

    @invariant()
    def agrees(self):
        latest = {digest: (n, action) for n, digest, action, valid in self.given if valid}
        answers = {r["image"]: (r["id"], r["action"]) for r in self.store.answers("m")}
        assert answers == latest
        waiting = sorted((doubt, d) for d, doubt in self.kept.items() if d not in latest)
        assert [r["image"] for r in self.store.queue("m", 99)] == [d for _, d in waiting]
        assert self.store.n_open("m") == len(waiting)
        expected = []
        for digest in sorted(self.kept):
            if latest.get(digest, (0, "skip"))[1] == "skip":
                break
            expected.append(digest)
        assert [r["image"] for r in random_sample(self.store, "m")] == expected

    def teardown(self):
        self.store.close()
        self.folder.cleanup()


Reviewing.TestCase.settings = hypothesis_settings(max_examples=10, stateful_step_count=15)
TestReviewing = Reviewing.TestCase


def room_for(n_bytes):
    """What a picture of so many bytes called by one letter takes, with its verdict and its row."""
    return n_bytes + len(json.dumps(verdict())) + 1 + 512


def test_no_room_is_reported_and_a_replaced_image_counts_once(tmp_path):
    store = FeedbackStore(tmp_path / "f.sqlite", max_bytes=room_for(10))
    assert store.keep(KeptImage(DIGESTS[0], "m", "a", verdict(), bytes(8)))
    assert not store.keep(KeptImage(DIGESTS[1], "m", "b", verdict(), bytes(8)))
    assert store.keep(KeptImage(DIGESTS[0], "m", "a", verdict(), bytes(10)))
    store.close()


def test_verdicts_on_small_pictures_take_room_too(tmp_path):
    path, n = tmp_path / "f.sqlite", 50
    for _ in range(2):  # counted as they come, and when the file is opened again
        store = FeedbackStore(path, max_bytes=n * room_for(1))
        kept = [
            store.keep(KeptImage(f"{i:064x}", "m", "a", verdict(), b"x")) for i in range(n + 20)
        ]
        assert kept == [True] * n + [False] * 20
        store.close()
    assert path.stat().st_size < 2 * n * room_for(1)


def test_answers_are_bounded(tmp_path):
    path = tmp_path / "f.sqlite"
    store = FeedbackStore(path, max_answers=3)
    first = Submission(said(DIGESTS[0]), key="k")
    (one,) = store.record_all([first])
    number = store.record(said(DIGESTS[0]))
    assert store.undo(number)  # it stays in the file
    with pytest.raises(StorageError, match="holds 3 answers") as refused:
        store.record_all([Submission(said(DIGESTS[1])), Submission(said(DIGESTS[2]))])
    assert refused.value.full
    assert "--max-answers" in refused.value.remedy
    assert [row["id"] for row in store.answers()] == [one.number]
    assert store.record(said(DIGESTS[1])) == 3  # of the two none was stored
    with pytest.raises(StorageError):
        store.record(said(DIGESTS[2]))
    # Sent again, it is stored already; and taking back needs no room.
    assert store.record_all([first])[0].number == one.number
    assert store.undo(3)
    store.close()
    with pytest.raises(StorageError):
        FeedbackStore(path, max_answers=3).record(said(DIGESTS[2]))
    assert FeedbackStore(path, max_answers=4).record(said(DIGESTS[2])) == 4


def test_beyond_the_most_answers_the_service_says_what_to_do(colours):
    with client_of(colours, max_answers=2) as client:
        for _ in range(2):
            assert client.post("/v1/feedback", json=SKIP).status_code == 200
        batch = {"answers": [SKIP]}
        for path, body in (("/v1/feedback", SKIP), ("/v1/feedback/batch", batch)):
            refused = client.post(path, json=body)
            error = refused.json()["error"]
            assert (refused.status_code, error["kind"]) == (507, "storage_full")
            assert "another --feedback file, or a larger --max-answers" in error["message"]
        assert client.get("/v1/queue").status_code == 200


def test_a_forgotten_image_makes_room(tmp_path):
    store = FeedbackStore(tmp_path / "f.sqlite", max_bytes=room_for(10))
    for digest in DIGESTS[:3]:
        assert store.keep(KeptImage(digest, "m", "a", verdict(), bytes(8)))
        assert not store.forget(digest, "other")
        assert not store.keep(KeptImage(DIGESTS[4], "m", "a", verdict(), bytes(8)))
        assert store.forget(digest, "m")
        assert not store.forget(digest, "m")
    assert store.keep(KeptImage(DIGESTS[4], "m", "a", verdict(), bytes(10)))
    assert not store.keep(KeptImage(DIGESTS[5], "m", "a", verdict(), bytes(1)))
    store.close()


def test_an_answer_from_elsewhere_names_no_file_outside_the_folder(tmp_path, trustvlm):
    store = FeedbackStore(tmp_path / "f.sqlite")
    store.keep(KeptImage("../../harm", "m", "a", verdict(), png("red", 1)))
    store.record(said("../../harm"))
    with pytest.raises(InputError, match=r"f\.sqlite holds an answer that is none \(at 0\.image"):
        store.answers()
    store.close()
    done = trustvlm("corrections", tmp_path / "f.sqlite", "-o", tmp_path / "a" / "b")
    assert done.code == 1
    assert "String should match pattern" in done.err
    assert [file.name for file in tmp_path.iterdir()] == ["f.sqlite"]


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
def test_the_images_are_for_the_owner_alone(store):
    store.record(said(DIGESTS[0]))
    for file in store.path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_is_something_else_is_left_alone(tmp_path):
    path = tmp_path / "f.sqlite"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 50)
    with pytest.raises(InputError, match="cannot be used"):
        FeedbackStore(path)
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(InputError, match="no feedback database"):
        FeedbackStore(other)


def test_every_write_is_synchronous(store):
    (mode,) = store._connection.execute("PRAGMA journal_mode").fetchone()
    (level,) = store._connection.execute("PRAGMA synchronous").fetchone()
    assert (mode, level) == ("wal", 2)


WRITER = """
import sys
from pathlib import Path
from trustvlm.serve.feedback import Answer, FeedbackStore
store = FeedbackStore(Path(sys.argv[1]))
while True:
    print(store.record(Answer("0" * 64, "m", "correct", "red", "red", "blue")), flush=True)
"""


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path):
    path, acknowledged = tmp_path / "m.feedback.sqlite", set()
    for round_ in range(4):
        with running(WRITER, path) as process:
            for _ in range(5 + 7 * round_):
                acknowledged.add(int(next_line(process)))
            process.kill()
            acknowledged.update(int(line) for line in process.stdout if line.endswith("\n"))
    with closing(sqlite3.connect(path)) as connection, connection:
        stored = {n for (n,) in connection.execute("SELECT id FROM answers")}
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert len(acknowledged) > 50
    assert acknowledged <= stored


def test_many_threads_lose_nothing(store):
    def work():
        for _ in range(20):
            store.record(said(DIGESTS[0]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (n,) = store._connection.execute("SELECT count(*) FROM answers").fetchone()
    assert n == 80


@pytest.fixture
def reviewed(client, tmp_path):
    """The client with a database of its own, and the verdicts on four images that it keeps."""
    state, shared = client.app.state, client.context
    client.context = state.context = replace(shared, feedback=FeedbackStore(tmp_path / "f.sqlite"))
    files = [("images", (f"{i}.png", png(name, 50 + i))) for i, name in enumerate(COLOURS_)]
    yield client, client.post("/v1/predict?keep=true", files=files).json()["verdicts"]
    client.context.feedback.close()
    client.context = state.context = shared


COLOURS_ = ["red", "green", "blue", "red"]


def test_kept_images_wait_are_answered_and_come_back_when_undone(reviewed):
    client, verdicts = reviewed
    assert all(v["kept"] for v in verdicts)
    waiting = client.get("/v1/queue").json()
    assert waiting["open"] == 4
    doubts = [v["verdict"]["p_correct"] for v in waiting["images"]]
    assert doubts == sorted(doubts)
    first = waiting["images"][0]
    body = {"image": first["image"], "action": "correct", "label": " green\u00a0"}
    answer = client.post("/v1/feedback", json=body).json()
    assert answer["open"] == 3
    rows = list(csv.DictReader(io.StringIO(client.get("/v1/feedback.csv").text)))
    assert [(r["image"], r["label"], r["action"]) for r in rows] == [
        (first["image"], "green", "correct")
    ]
    assert rows[0]["predicted"] == first["verdict"]["label"]
    assert client.delete(f"/v1/feedback/{answer['id']}").json() == {"undone": answer["id"]}
    assert client.delete(f"/v1/feedback/{answer['id']}").status_code == 404
    assert client.get("/v1/queue").json() == waiting


def test_the_images_of_one_predicted_label_can_be_asked_for(reviewed):
    client, verdicts = reviewed
    labels = [one["label"] for one in verdicts]
    counts = client.get("/v1/queue/labels").json()
    assert {one["label"]: one["open"] for one in counts} == {n: labels.count(n) for n in labels}
    assert [one["open"] for one in counts] == sorted(map(labels.count, set(labels)), reverse=True)
    for label in set(labels):
        waiting = client.get("/v1/queue", params={"label": label}).json()
        assert waiting["open"] == 4
        assert {one["image"] for one in waiting["images"]} == {
            one["image"] for one in verdicts if one["label"] == label
        }
    assert client.get("/v1/queue", params={"label": "no class"}).json()["images"] == []


def test_the_candidates_begin_with_the_label_and_hold_the_prediction_set(
    reviewed, colours, tmp_path
):
    client, verdicts = reviewed
    content = [png(name, 50 + i) for i, name in enumerate(COLOURS_)]
    files = [tmp_path / f"{i}.png" for i in range(len(content))]
    for file, one in zip(files, content, strict=True):
        file.write_bytes(one)
    sets = TrustVLM.load(colours).predict(files, prediction_sets=0.9)
    for verdict_, row in zip(verdicts, sets, strict=True):
        candidates = verdict_["candidates"]
        assert candidates[:2] == [verdict_["label"], verdict_["runner_up"]]
        assert len(candidates) == len(set(candidates)) == 3  # there are no more classes
        assert set(row.prediction_set) <= set(candidates)
    waiting = client.get("/v1/queue").json()["images"]
    assert {tuple(one["verdict"]["candidates"]) for one in waiting} == {
        tuple(one["candidates"]) for one in verdicts
    }
    plain = client.post("/v1/predict", files={"images": ("a.png", content[0])}).json()
    assert plain["verdicts"][0]["candidates"] == []


def test_answers_on_many_images_are_records_of_their_own(reviewed):
    client, verdicts = reviewed
    one, two, three, four = (verdict["image"] for verdict in verdicts)
    client.post("/v1/feedback", json={"image": three, "action": "skip"})
    answers = [
        {"image": one, "action": "accept", "key": "a"},
        {"image": two, "action": "correct", "label": "no class", "key": "b"},
        {"image": three, "action": "accept", "if_unanswered": True, "key": "c"},
        {"image": four, "action": "correct", "label": "green", "key": "d"},
    ]
    done = client.post("/v1/feedback/batch", json={"answers": answers}).json()
    errors = [item["error"] and item["error"]["kind"] for item in done["answers"]]
    assert errors == [None, "no_such_class", "answered", None]
    assert [item["id"] is None for item in done["answers"]] == [False, True, True, False]
    assert done["open"] == 1
    rows = list(csv.DictReader(io.StringIO(client.get("/v1/feedback.csv").text)))
    assert [(r["image"], r["action"], r["label"]) for r in rows] == [
        (three, "skip", ""),
        (one, "accept", verdicts[0]["label"]),
        (four, "correct", "green"),
    ]
    # Sent again, since the answer of the service was lost on its way: nothing is stored twice.
    again = client.post("/v1/feedback/batch", json={"answers": answers}).json()
    assert [item["id"] for item in again["answers"]] == [item["id"] for item in done["answers"]]
    assert len(client.get("/v1/feedback.csv").text.splitlines()) == 4


@pytest.mark.parametrize("n", [0, 101])
def test_a_batch_has_bounds(client, n):
    body = {"answers": [{"image": "0" * 64, "action": "skip"}] * n}
    assert client.post("/v1/feedback/batch", json=body).status_code == 422


def test_a_key_stands_for_one_answer_on_one_image(store):
    first = Submission(said(DIGESTS[0]), key="k")
    (one,) = store.record_all([first])
    (again,) = store.record_all([Submission(said(DIGESTS[0], "skip"), key="k")])
    assert (again.number, again.earlier) == (one.number, None)
    (other,) = store.record_all([Submission(said(DIGESTS[1]), key="k")])
    assert other.number != one.number
    # An answer that was undone does not come back because it is sent again.
    assert store.undo(one.number)
    assert store.record_all([first])[0].number == one.number
    assert [row["id"] for row in store.answers()] == [other.number]
    (anew,) = store.record_all([Submission(said(DIGESTS[0]), key="new", if_unanswered=True)])
    assert anew.number is not None


def test_answers_are_stored_together_or_not_at_all(store):
    broken = replace(said(DIGESTS[1]), label=None)
    with pytest.raises(StorageError):
        store.record_all([Submission(said(DIGESTS[0]), key="k"), Submission(broken)])
    assert store.answers() == []
    assert store.record_all([Submission(said(DIGESTS[0]), key="k")])[0].number is not None


def test_a_database_of_an_earlier_version_is_read_and_goes_on(tmp_path):
    path = tmp_path / "f.sqlite"
    store = FeedbackStore(path)
    number = store.record(said(DIGESTS[0]))
    store.keep(KeptImage(DIGESTS[1], "m", "a", verdict(), b"x"))
    for added in ("TABLE answer_keys", "INDEX images_by_label"):
        store._connection.execute(f"DROP {added}")
    store.close()
    store = FeedbackStore(path)
    assert [row["id"] for row in store.answers()] == [number]
    assert store.n_open_by_label("m") == {"red": 1}
    assert store.record_all([Submission(said(DIGESTS[2]), key="k")])[0].number == number + 1
    store.close()


def test_a_second_answer_counts_and_tells_of_the_first(reviewed):
    client, (first, *_) = reviewed

    def answer(label):
        body = {"image": first["image"], "action": "correct", "label": label}
        return client.post("/v1/feedback", json=body).json()

    def counts():
        rows = csv.DictReader(io.StringIO(client.get("/v1/feedback.csv").text))
        return [row["label"] for row in rows]

    one = answer("green")
    assert one["earlier"] is None
    two = answer("blue")
    assert two["earlier"] == {"id": one["id"], "action": "correct", "label": "green"}
    assert counts() == ["blue"]
    client.delete(f"/v1/feedback/{two['id']}")
    assert counts() == ["green"]
    assert answer("red")["earlier"]["id"] == one["id"]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"action": "correct", "label": "purple"}, 404, "no_such_class"),
        ({"action": "correct"}, 422, "invalid"),
        ({"action": "accept"}, 404, "no_such_image"),
        ({"action": "praise"}, 422, "invalid"),
        ({"action": "skip", "image": "../../etc/passwd"}, 422, "invalid"),
        ({"action": "skip", "more": 1}, 422, "invalid"),
        ({"action": "skip", "model": "other"}, 404, "no_such_model"),
    ],
)
def test_answers_that_make_no_sense_are_refused(client, body, status, kind):
    answer = client.post("/v1/feedback", json={"image": "0" * 64, **body})
    assert answer.status_code == status
    assert answer.json()["error"]["kind"] == kind


def test_accepting_another_label_than_the_predicted_one_is_refused(reviewed):
    client, (first, *_) = reviewed
    body = {"image": first["image"], "action": "accept", "label": first["runner_up"]}
    assert client.post("/v1/feedback", json=body).status_code == 409


def test_what_was_not_kept_can_be_corrected_too(client):
    body = {"image": "0" * 64, "action": "correct", "label": "red"}
    assert client.post("/v1/feedback", json=body).status_code == 200


def test_pictures_are_encoded_anew(reviewed, shots):
    client, (first, *_) = reviewed
    answer = client.get(f"/v1/images/{first['image']}?side=16")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content.startswith(b"\xff\xd8")
    assert client.get(f"/v1/images/{'0' * 64}").status_code == 404
    example = first["label_example"]
    assert -1 <= example["similarity"] <= 1
    assert client.get(f"/v1/examples/{example['shot']}").content.startswith(b"\xff\xd8")
    assert client.get("/v1/examples/999").status_code == 404


def test_the_nearest_example_is_the_nearest(reviewed, colours):
    import numpy as np

    _, verdicts = reviewed
    model = TrustVLM.load(colours)
    unit = model.support_features_ / np.linalg.norm(model.support_features_, axis=1)[:, None]
    for verdict_, (i, name) in zip(verdicts, enumerate(COLOURS_), strict=True):
        from trustvlm.images import InMemoryImage
        from trustvlm.pipeline.predict import Predictor

        features = Predictor(model).encode([InMemoryImage("a", png(name, 50 + i))]).features[0]
        cosines = unit @ (features / np.linalg.norm(features))
        for role in ("label", "runner_up"):
            c = model.classes_.labels.index(verdict_[role])
            best = max(np.flatnonzero(model.support_labels_ == c), key=lambda s: cosines[s])
            assert verdict_[f"{role}_example"]["shot"] == best
            similarity = verdict_[f"{role}_example"]["similarity"]
            assert similarity == pytest.approx(cosines[best], abs=1e-5)


def test_a_forgotten_image_is_gone_from_the_file_as_well(reviewed):
    client, (first, *_) = reviewed
    path = f"/v1/images/{first['image']}"
    files = [client.context.feedback.path]
    files.append(files[0].with_name(files[0].name + "-wal"))
    content = client.context.feedback.kept(first["image"], "colours").content
    assert client.delete(path).json() == {"forgotten": first["image"]}
    assert client.get(path).status_code == 404
    assert client.delete(path).status_code == 404
    assert client.get("/v1/queue").json()["open"] == 3
    client.context.feedback._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert not any(content[40:90] in file.read_bytes() for file in files if file.exists())


def test_an_example_whose_file_changed_is_not_shown(tmp_path, shots, colours):
    (tmp_path / "blue").mkdir()
    (tmp_path / "blue" / "00.png").write_bytes(png("red", 3))
    with client_of(colours, shots=str(tmp_path)) as client:
        assert client.get("/v1/examples/0").status_code == 404


def test_answers_become_examples_and_calibration_data(
    colours, shots, tmp_path, trustvlm, monkeypatch
):
    database = tmp_path / "colours.feedback.sqlite"
    with client_of(colours, feedback=str(database)) as client:
        files = [("images", (f"../{i}.png", png(n, 70 + i))) for i, n in enumerate([*COLOURS_] * 3)]
        verdicts = client.post("/v1/predict?keep=true", files=files).json()["verdicts"]
        ordered = sorted(v["image"] for v in verdicts)
        truth = {v["image"]: name for v, name in zip(verdicts, [*COLOURS_] * 3, strict=True)}
        for image in ordered[:5] + ordered[6:9]:
            body = {"image": image, "action": "correct", "label": truth[image]}
            assert client.post("/v1/feedback", json=body).status_code == 200
    done = trustvlm("corrections", database, "-o", tmp_path / "new", "--shots", shots)
    assert done.code == 0, done.err
    assert "8 answered images and 12 examples" in done.err
    model = TrustVLM(vlm="offline", vision="offline").fit(tmp_path / "new" / "labels.csv")
    assert model.classes_.labels == ("blue", "green", "red")
    assert len(model.shots_) == 20
    done = trustvlm("corrections", database, "-o", tmp_path / "sample", "--as", "calibration")
    assert done.code == 0, done.err
    rows = list(csv.DictReader(io.StringIO((tmp_path / "sample" / "labels.csv").read_text())))
    assert [(r["path"], r["label"]) for r in rows] == [
        (f"images/{image}.png", truth[image]) for image in ordered[:5]
    ]
    done = trustvlm("corrections", database, "-o", tmp_path / "sample")
    assert done.code == 1
    assert "exists already" in done.err


def test_a_database_that_is_missing_is_not_made(tmp_path, trustvlm):
    done = trustvlm("corrections", tmp_path / "none.sqlite", "-o", tmp_path / "out")
    assert done.code == 1
    assert list(tmp_path.iterdir()) == []


def test_the_curve_is_that_of_the_calibration(client, colours):
    from trustvlm import metrics

    calibration = TrustVLM.load(colours).calibration_
    curve = client.get("/v1/curve").json()
    assert curve["images"] == 36
    confidence, correct = calibration.result.confidence, calibration.correct
    for point in curve["points"]:
        accepted = confidence >= point["threshold"]
        assert point["accepted"] == accepted.sum()
        assert point["wrong"] == (accepted & ~correct).sum()
        assert point["coverage"] == pytest.approx(accepted.mean())
    expected = metrics.risk_coverage(confidence, correct)
    assert len(curve["points"]) == len(expected.coverage)


ASKED = [
    ("GET", "/v1/queue"),
    ("GET", "/v1/feedback.csv"),
    ("POST", "/v1/feedback"),
    ("DELETE", "/v1/feedback/1"),
    ("GET", f"/v1/images/{'0' * 64}"),
    ("DELETE", f"/v1/images/{'0' * 64}"),
]
SKIP = {"image": "0" * 64, "action": "skip"}


def statuses(client, asked=ASKED):
    return [
        client.request(method, path, json=SKIP if method == "POST" else None).status_code
        for method, path in asked
    ]


def not_kept(client):
    """Ask for a verdict on an image that shall be kept, and expect the verdict all the same."""
    answer = client.post("/v1/predict?keep=true", files={"images": ("a.png", png("red", 77))})
    assert answer.status_code == 200
    (verdict,) = answer.json()["verdicts"]
    return verdict["decision"] in ("accept", "review") and not verdict["kept"]


def test_a_full_disk_is_said_and_it_goes_on_when_there_is_room(reviewed):
    client, verdicts = reviewed
    connection = client.context.feedback._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    assert not_kept(client)
    body = {"image": verdicts[0]["image"], "action": "correct", "label": "green"}
    for _ in range(1000):  # until the last page has no room left
        refused = client.post("/v1/feedback", json=body)
        if refused.status_code != 200:
            break
    assert (refused.status_code, refused.json()["error"]["kind"]) == (507, "storage_full")
    stored = len(connection.execute("SELECT * FROM answers").fetchall())
    assert client.get("/v1/queue").json()["open"] == 3
    connection.execute(f"PRAGMA max_page_count = {pages + 100}")
    assert client.post("/v1/feedback", json=body).status_code == 200
    assert len(connection.execute("SELECT * FROM answers").fetchall()) == stored + 1
    assert not not_kept(client)


def test_a_folder_that_vanishes_is_said_and_it_goes_on_when_it_is_back(reviewed):
    client, _ = reviewed
    folder = client.context.feedback.path.parent
    away = folder.with_name(f"{folder.name}-away")
    folder.rename(away)
    assert statuses(client) == [503] * len(ASKED)
    assert not_kept(client)
    assert client.get("/v1/queue").json()["error"]["kind"] == "storage"
    away.rename(folder)
    assert client.get("/v1/queue").json()["open"] == 4
    assert client.post("/v1/feedback", json=SKIP).status_code == 200


def test_what_is_acknowledged_is_in_the_file_that_is_there(reviewed, tmp_path):
    client, _ = reviewed
    file = client.context.feedback.path
    for one in file.parent.glob(f"{file.name}*"):
        one.unlink()
    number = client.post("/v1/feedback", json=SKIP).json()["id"]
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT id FROM answers").fetchall() == [(number,)]
    # A backup that is put in place is read from then on.
    backup = FeedbackStore(tmp_path / "backup.sqlite")
    for digest in DIGESTS[:2]:
        backup.record(Answer(digest, "colours", "skip", "", "", "", 0.5))
    backup.close()
    for one in file.parent.glob(f"{file.name}*"):
        one.unlink()
    backup.path.rename(file)
    assert len(client.get("/v1/feedback.csv").text.splitlines()) == 3


def test_a_disk_that_cannot_be_written_to_is_said_and_read_all_the_same(reviewed):
    client, _ = reviewed
    connection = client.context.feedback._connection
    connection.execute("PRAGMA query_only = ON")
    assert statuses(client, ASKED[:4]) == [200, 200, 503, 503]
    assert not_kept(client)
    connection.execute("PRAGMA query_only = OFF")
    assert client.post("/v1/feedback", json=SKIP).status_code == 200


def test_answers_that_are_none_are_said(reviewed):
    client, _ = reviewed
    client.context.feedback.record(Answer("0" * 64, "colours", "guess", "", "", "", 0.5))
    answer = client.get("/v1/feedback.csv")
    assert (answer.status_code, answer.json()["error"]["kind"]) == (503, "storage")
