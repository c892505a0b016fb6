"""Bodies that are too large, too slow, too many at a time, or never finished."""

import asyncio
import json
import threading

import pytest

from trustvlm.serve import middleware
from trustvlm.serve.middleware import BodyLimitMiddleware

LONG = 60


class Exchange:
    """One request to the middleware, piece by piece, and what came back."""

    def __init__(self, *pieces, headers=(), pause=0.0, ends=True):
        self.scope = {"type": "http", "headers": [*headers], "method": "POST", "path": "/"}
        self.todo = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        if ends:
            self.todo.append({"type": "http.request", "body": b"", "more_body": False})
        self.pause, self.sent = pause, []

    async def receive(self):
        await asyncio.sleep(self.pause)
        return self.todo.pop(0) if self.todo else {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    @property
    def status(self):
        return self.sent[0]["status"] if self.sent else None

    @property
    def kind(self):
        return json.loads(self.sent[1]["body"])["error"]["kind"]


class Service:
    """An application that notes the bodies it is given, behind the middleware."""

    def __init__(self, **bounds):
        self.bodies, self.failures = [], []
        self.gate = asyncio.Event()
        self.gate.set()
        bounds = {"max_bytes": 10, "max_total": 15, "seconds": 300.0, **bounds}
        self.middleware = BodyLimitMiddleware(self.app, failed=self.failures.append, **bounds)

    async def app(self, scope, receive, send):
        message = await receive()
        assert message["more_body"] is False
        self.bodies.append(message["body"])
        await self.gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def serve(self, exchange):
        await self.middleware(exchange.scope, exchange.receive, exchange.send)
        return exchange


def test_a_body_arrives_whole_and_is_forgotten_afterwards():
    async def work():
        service = Service()
        exchange = await service.serve(Exchange(b"abc", b"", b"defghij"))
        assert (exchange.status, service.bodies) == (200, [b"abcdefghij"])
        assert service.middleware.held == 0
        assert service.failures == []

    asyncio.run(work())


@pytest.mark.parametrize(
    "exchange",
    [
        lambda: Exchange(b"x" * 11),
        lambda: Exchange(b"x" * 6, b"x" * 6),
        lambda: Exchange(headers=[(b"content-length", b"11")]),
        lambda: Exchange(headers=[(b"content-length", b"9" * 5000)]),
    ],
)
def test_too_large_a_body_is_refused_whether_announced_or_not(exchange):
    async def work():
        service = Service()
        done = await service.serve(exchange())
        assert (done.status, done.kind) == (413, "body_too_large")
        assert (service.bodies, service.failures) == ([], ["body_too_large"])
        assert service.middleware.held == 0

    asyncio.run(work())


def test_a_slow_body_is_not_waited_for():
    async def work():
        service = Service(seconds=0.05)
        done = await service.serve(Exchange(b"x", pause=300))
        assert (done.status, done.kind) == (408, "slow_body")
        assert (service.bodies, service.middleware.held) == ([], 0)

    asyncio.run(work())


def test_all_bodies_together_are_bounded():
    async def work():
        service = Service()
        service.gate.clear()
        first = asyncio.create_task(service.serve(Exchange(b"x" * 9)))
        while not service.bodies:
            await asyncio.sleep(0)
        refused = await service.serve(Exchange(b"y" * 9))
        assert (refused.status, refused.kind) == (429, "memory")
        assert dict(refused.sent[0]["headers"])[b"retry-after"] == b"1"
        service.gate.set()
        assert (await first).status == 200
        assert (await service.serve(Exchange(b"y" * 9))).status == 200
        assert service.middleware.held == 0

    asyncio.run(work())


def test_who_leaves_before_the_end_gets_no_answer_and_holds_nothing():
    async def work():
        service = Service()
        done = await service.serve(Exchange(b"abc", ends=False))
        assert (done.status, service.bodies, service.middleware.held) == (None, [], 0)

    asyncio.run(work())


def test_memory_is_given_back_once_enough_was_let_go_of(monkeypatch):
    given_back = threading.Semaphore(0)
    monkeypatch.setattr(middleware, "give_back_memory", given_back.release)
    monkeypatch.setattr(middleware, "_KEPT_FREE", 25)
    monkeypatch.setattr(middleware, "_GIVE_BACK_SECONDS", 0.0)

    async def work():
        service = Service()
        for expected in (False, False, True, False, False, True):
            await service.serve(Exchange(b"x" * 10))
            await asyncio.sleep(0)
            assert await asyncio.to_thread(given_back.acquire, timeout=LONG * expected) == expected

    asyncio.run(work())


def test_the_answer_goes_out_before_the_rest_is_thrown_away():
    async def work():
        service = Service()
        exchange = Exchange(*[b"x" * 11] * 5)
        receive, left = exchange.receive, []

        async def noted():
            left.append((len(exchange.todo), exchange.status))
            return await receive()

        exchange.receive = noted
        await service.serve(exchange)
        # The first piece was too much; by the second the answer was there, but not its end.
        assert left == [(6, None), (5, 413), (4, 413), (3, 413), (2, 413), (1, 413)]
        assert [message.get("more_body") for message in exchange.sent] == [None, True, None]

    asyncio.run(work())


def test_what_comes_after_an_answer_is_not_thrown_away_for_ever(monkeypatch):
    monkeypatch.setattr(middleware, "_DRAIN_BYTES", 1000)
    monkeypatch.setattr(middleware, "_DRAIN_STEP_BYTES", 100)
    monkeypatch.setattr(middleware, "_DRAIN_STEP_SECONDS", 1.0)

    async def work():
        service = Service()
        exchange = await service.serve(Exchange(*[b"x" * 11] * 500))
        assert (exchange.status, len(exchange.sent)) == (413, 3)
        assert len(exchange.todo) > 300
        slow = Exchange(*[b"x" * 11] * 500, pause=0.4)
        await asyncio.wait_for(service.serve(slow), LONG)
        assert len(slow.todo) > 490

    asyncio.run(work())
