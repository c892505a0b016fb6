"""Leases of images: a plain model of them, and two reviewers of one queue; the tests' own clock."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import client_of
from trustvlm.serve.leases import MOST_HELD, Leases
from uploads import png

IMAGES = [f"image {i}" for i in range(6)]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "renew", "release"]),
        st.sampled_from("abc"),
        st.integers(1, 7),
        st.floats(0, 40),
    ),
    max_size=20,
)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@given(STEPS)
def test_nobody_is_handed_what_another_holds(steps):
    clock, held = Clock(), {}
    leases = Leases(60.0, clock)
    for act, reviewer, n, pause in steps:
        clock.now += pause
        held = {one: (who, end) for one, (who, end) in held.items() if end > clock.now}
        own = [one for one in IMAGES if held.get(one, ("",))[0] == reviewer]
        free = [one for one in IMAGES if one not in held]
        if act == "release":
            assert leases.release("m", reviewer) == len(own)
            held = {one: lease for one, lease in held.items() if lease[0] != reviewer}
            continue
        if act == "take":
            expected = (own + free)[:n]
            assert leases.take("m", reviewer, IMAGES, n) == expected
        else:
            expected = [one for one in IMAGES[:n] if one in own + free]
            assert leases.renew("m", reviewer, IMAGES[:n]) == expected
        held |= dict.fromkeys(expected, (reviewer, clock.now + 60))
        assert len(leases) == len(held)


def test_models_have_queues_of_their_own_and_nothing_stays():
    clock = Clock()
    leases = Leases(60.0, clock)
    assert leases.take("m", "a", IMAGES, 2) == leases.take("n", "b", IMAGES, 2) == IMAGES[:2]
    assert leases.take("n", "a", IMAGES, 1) == IMAGES[2:3]
    assert leases.release("n", "a") == 1
    assert len(leases) == 4
    clock.now = 60.0
    assert len(leases) == 0
    assert leases.take("m", "b", IMAGES, 2) == IMAGES[:2]


def test_one_reviewer_cannot_hold_a_whole_queue():
    leases = Leases()
    many = [str(i) for i in range(3 * MOST_HELD)]
    for _ in range(3):
        leases.take("m", "a", many, 200)
    for start in range(0, len(many), MOST_HELD):
        leases.renew("m", "a", many[start : start + MOST_HELD])
    leases.renew("n", "a", many)
    assert len(leases) == MOST_HELD
    assert leases.take("m", "b", many, 1) == [many[MOST_HELD]]


def test_one_renewal_takes_no_more_than_one_may_hold():
    many = [str(i) for i in range(2 * MOST_HELD)]
    leases = Leases()
    assert leases.renew("m", "a", many) == many[:MOST_HELD]
    assert leases.take("m", "b", many, 1) == [many[MOST_HELD]]


def test_what_is_answered_is_held_by_nobody():
    leases, many = Leases(), [str(i) for i in range(2 * MOST_HELD)]
    answered = leases.take("m", "a", many, MOST_HELD)
    assert leases.take("n", "a", many, 1) == []
    leases.end("m", answered)
    assert leases.take("m", "a", many[MOST_HELD:], 2) == many[MOST_HELD:][:2]
    leases.end("n", many)
    assert len(leases) == 2


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def reviewers(colours, clock):
    """A service with twelve images that wait, and what each of two reviewers may ask of it."""

    class Reviewer:
        def __init__(self, client, name):
            self.client, self.name = client, name

        def next(self, **query):
            query = {"reviewer": self.name, **query}
            answer = self.client.get("/v1/queue", params=query).json()
            assert answer["lease_seconds"] == 150
            return [one["image"] for one in answer["images"]]

        def still(self, images):
            body = {"reviewer": self.name, "images": images}
            return self.client.post("/v1/leases", json=body).json()["held"]

        def leave(self):
            params = {"reviewer": self.name}
            return self.client.delete("/v1/leases", params=params).json()["released"]

        def answer(self, image, label="red"):
            body = {"image": image, "action": "correct", "label": label, "if_unanswered": True}
            return self.client.post("/v1/feedback", json=body)

    with client_of(colours) as client:
        state = client.app.state
        state.context = replace(state.context, leases=Leases(clock=clock))
        files = [("images", (f"{i}.png", png("red", 200 + i))) for i in range(12)]
        client.post("/v1/predict?keep=true", files=files)
        yield Reviewer(client, "ann"), Reviewer(client, "bob")


def test_two_people_never_get_the_same_image_while_a_lease_holds(reviewers, clock):
    ann, bob = reviewers
    first, second = ann.next(), bob.next()
    assert len(first) == len(second) == 5
    assert not set(first) & set(second)
    assert ann.next() == first
    assert len(ann.next(limit=50)) == 7
    assert bob.next(limit=50) == second
    # Ann's page is open and says so; Bob's machine has gone to sleep.
    clock.now += 100
    assert ann.still(first) == first
    clock.now += 100
    assert set(second) <= set(ann.next(limit=50))
    assert bob.next() == []
    assert bob.still(second) == []


def test_what_is_given_back_is_anyones_at_once(reviewers):
    ann, bob = reviewers
    first = ann.next()
    assert ann.leave() == 5
    assert ann.leave() == 0
    assert bob.next() == first


def test_answers_end_the_leases_of_their_images(reviewers):
    ann, _ = reviewers
    one, *others = ann.next()
    leases = ann.client.app.state.context.leases
    assert len(leases) == 5
    ann.answer(one)
    assert len(leases) == 4
    labels = ["red", "green", "no class"]
    answers = [
        {"image": image, "action": "correct", "label": label}
        for image, label in zip(others[:3], labels, strict=True)
    ]
    sent = ann.client.post("/v1/feedback/batch", json={"answers": answers}).json()["answers"]
    assert [answer["error"] is None for answer in sent] == [True, True, False]
    assert len(leases) == 2


def test_a_late_answer_counts_if_it_is_the_first_and_is_refused_if_not(reviewers, clock):
    ann, bob = reviewers
    one, other, *_ = ann.next()
    clock.now += 151
    assert bob.next()[:2] == [one, other]
    # Ann is slow, and still the first to answer.
    assert ann.answer(one).status_code == 200
    assert bob.still([one, other]) == [other]
    late = bob.answer(one, "green")
    assert (late.status_code, late.json()["error"]["kind"]) == (409, "answered")
    assert "Someone else has answered this image meanwhile (red)" in late.json()["error"]["message"]
    assert bob.answer(other, "green").status_code == 200
    assert ann.answer(other).status_code == 409
    rows = ann.client.get("/v1/feedback.csv").text.splitlines()[1:]
    assert [row.split(",")[1] for row in rows] == [one, other]
    assert [row.split(",")[4] for row in rows] == ["red", "green"]


def test_an_answered_image_is_renewed_by_nobody_and_an_undone_one_is(reviewers):
    ann, _ = reviewers
    one, other, *_ = ann.next()
    number = ann.answer(one).json()["id"]
    assert ann.still([one, other, "0" * 64]) == [other]
    ann.client.delete(f"/v1/feedback/{number}")
    assert ann.still([one, other]) == [one, other]
