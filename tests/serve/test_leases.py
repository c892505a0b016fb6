"""Sharing a queue: a plain model of it, and a clock that the test moves."""

from hypothesis import given
from hypothesis import strategies as st

from trustvlm.serve.context import Leases

IMAGES = [f"image {i}" for i in range(6)]
STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 7), st.floats(0, 40)), max_size=20
)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@given(STEPS)
def test_what_others_were_handed_comes_last_until_the_lease_ends(steps):
    clock, handed = Clock(), {}
    leases = Leases(60.0, clock)
    for reviewer, limit, pause in steps:
        clock.now += pause
        held = {one for one, (who, when) in handed.items() if when + 60 > clock.now}
        others = {one for one in held if handed[one][0] != reviewer}
        shared = leases.share("m", reviewer, IMAGES, limit)
        assert shared == sorted(IMAGES, key=lambda one: one in others)[:limit]
        handed |= {one: (reviewer, clock.now) for one in shared if one not in others}
        assert len(leases) == len(held | set(shared))


def test_models_have_queues_of_their_own_and_nothing_stays():
    clock = Clock()
    leases = Leases(60.0, clock)
    assert leases.share("m", "a", IMAGES, 2) == leases.share("n", "b", IMAGES, 2) == IMAGES[:2]
    assert len(leases) == 4
    clock.now = 60.0
    assert len(leases) == 0
    assert leases.share("m", "b", IMAGES, 2) == IMAGES[:2]
