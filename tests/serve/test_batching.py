"""Batches across clients, bounded queues, and an end that loses nothing."""

import threading
import time
import weakref

import pytest

from trustvlm.serve.batching import Batcher
from trustvlm.serve.responses import ServiceError

# Seconds after which a test is given up; none of them takes as long on any machine.
LONG = 300


class Recorder:
    """Doubles numbers; keeps the batches, and waits on request."""

    def __init__(self):
        self.batches, self.may_go = [], threading.Event()
        self.may_go.set()
        self.busy = threading.Event()

    def __call__(self, requests):
        self.batches.append([list(items) for items in requests])
        self.busy.set()
        assert self.may_go.wait(LONG)
        return [[2 * item for item in items] for items in requests]


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def batcher(recorder):
    made = Batcher(recorder, size=4, seconds=0.0, capacity=10)
    yield made
    recorder.may_go.set()
    made.close()


def occupied(batcher, recorder):
    """Keep the thread busy until `may_go` is set."""
    recorder.may_go.clear()
    first = batcher.submit([0], timeout=LONG)
    assert recorder.busy.wait(LONG)
    return first


def test_what_arrives_meanwhile_is_one_batch_and_no_request_is_split(batcher, recorder):
    first = occupied(batcher, recorder)
    answers = [batcher.submit(items, timeout=LONG) for items in ([1, 2], [3], [4, 5], [6])]
    recorder.may_go.set()
    assert [a.result(LONG) for a in (first, *answers)] == [[0], [2, 4], [6], [8, 10], [12]]
    assert recorder.batches == [[[0]], [[1, 2], [3]], [[4, 5], [6]]]


def test_a_request_larger_than_a_batch_goes_alone(batcher, recorder):
    assert batcher.submit(list(range(9)), timeout=LONG).result(LONG) == [2 * i for i in range(9)]


def test_a_batch_waits_for_others_no_longer_than_it_should(recorder):
    batcher = Batcher(recorder, size=3, seconds=LONG, capacity=10)
    answers = [batcher.submit([i], timeout=LONG) for i in range(3)]
    # It is full, so it does not wait for those seconds, which would fail below.
    assert [a.result(LONG / 2) for a in answers] == [[0], [2], [4]]
    batcher.close()
    assert sum(map(len, recorder.batches)) == 3


def test_a_full_queue_refuses_and_says_when_to_come_back(batcher, recorder):
    occupied(batcher, recorder)
    accepted = batcher.submit(list(range(10)), timeout=LONG)
    with pytest.raises(ServiceError) as refused:
        batcher.submit([1], timeout=LONG)
    assert (refused.value.status, refused.value.kind) == (429, "queue_full")
    assert int(refused.value.headers["Retry-After"]) >= 1
    recorder.may_go.set()
    assert len(accepted.result(LONG)) == 10
    assert batcher.submit([1], timeout=LONG).result(LONG) == [2]


def test_who_waits_too_long_or_went_away_is_not_computed(batcher, recorder):
    occupied(batcher, recorder)
    late = batcher.submit([1], timeout=0)
    gone = batcher.submit([2], timeout=LONG)
    kept = batcher.submit([3], timeout=LONG)
    assert gone.cancel()
    time.sleep(0.01)
    recorder.may_go.set()
    assert kept.result(LONG) == [6]
    with pytest.raises(ServiceError) as refused:
        late.result(LONG)
    assert (refused.value.status, refused.value.kind) == (503, "timeout")
    assert recorder.batches == [[[0]], [[3]]]


def test_closing_finishes_what_was_accepted_and_accepts_no_more(batcher, recorder):
    occupied(batcher, recorder)
    accepted = [batcher.submit([i], timeout=LONG) for i in range(8)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while not batcher._closing:
        time.sleep(0.001)
    with pytest.raises(ServiceError) as refused:
        batcher.submit([1], timeout=LONG)
    assert refused.value.status == 503
    recorder.may_go.set()
    closing.join(30)
    assert [a.result(0) for a in accepted] == [[2 * i] for i in range(8)]


def test_an_error_is_that_of_the_request_which_makes_its_batch_fail(recorder):
    def fails_on_one(requests):
        doubled = recorder(requests)
        if any(1 in items for items in requests):
            raise ZeroDivisionError("one")
        return doubled

    batcher = Batcher(fails_on_one, size=10, seconds=0, capacity=10)
    first = occupied(batcher, recorder)
    answers = [batcher.submit(items, timeout=LONG) for items in ([2, 3], [1], [4])]
    recorder.may_go.set()
    assert (first.result(LONG), answers[0].result(LONG), answers[2].result(LONG)) == (
        [0], [4, 6], [8]
    )  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        answers[1].result(LONG)
    # Once together, and then each by itself.
    assert recorder.batches[1:] == [[[2, 3], [1], [4]], [[2, 3]], [[1]], [[4]]]
    assert batcher.submit([2], timeout=LONG).result(LONG) == [4]
    batcher.close()


def test_what_was_computed_is_let_go_of(batcher):
    class Image:
        pass

    batcher._compute = lambda requests: [[None] * len(items) for items in requests]
    image = Image()
    alive = weakref.ref(image)
    batcher.submit([image], timeout=LONG).result(LONG)
    del image
    for _ in range(1000):
        if alive() is None:
            return
        time.sleep(0.01)
    raise AssertionError("it is kept until the next batch")


def test_clients_take_turns_and_the_one_with_most_makes_room(batcher, recorder):
    first = occupied(batcher, recorder)
    many = [batcher.submit([i, i, i], timeout=LONG, client="many") for i in range(3)]
    one = batcher.submit([7, 8], timeout=LONG, client="one")
    with pytest.raises(ServiceError) as refused:
        many[2].result(LONG)
    assert (refused.value.status, refused.value.kind) == (429, "queue_full")
    recorder.may_go.set()
    assert one.result(LONG) == [14, 16]
    assert [a.result(LONG) for a in (first, *many[:2])] == [[0], [0, 0, 0], [2, 2, 2]]
    assert recorder.batches == [[[0]], [[0, 0, 0]], [[7, 8]], [[1, 1, 1]]]


def test_large_requests_of_many_clients_do_not_come_before_a_small_one(batcher, recorder):
    first = occupied(batcher, recorder)
    large = [batcher.submit([i] * 3, timeout=LONG, client=f"large {i}") for i in (1, 2)]
    small = [batcher.submit([7], timeout=LONG, client="small") for _ in range(2)]
    recorder.may_go.set()
    for answer in (first, *large, *small):
        answer.result(LONG)
    recorder.busy.clear()
    again = occupied(batcher, recorder)
    large = [batcher.submit([i] * 3, timeout=LONG, client=f"large {i}") for i in (1, 2)]
    small = batcher.submit([8], timeout=LONG, client="small")
    recorder.may_go.set()
    for answer in (again, *large, small):
        answer.result(LONG)
    # It has had fewer items, so that it comes first although it came last.
    assert recorder.batches[-2:] == [[[8], [1, 1, 1]], [[2, 2, 2]]]
