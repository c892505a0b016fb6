"""Bodies that are too large, too slow, too many at a time, or never finished."""

import asyncio
import json

import pytest

from trustvlm.serve.middleware import BodyLimitMiddleware


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
