"""Connections that say nothing, say it slowly, or are too many; over real sockets."""

import contextlib
import http.client
import json
import re
import socket
import time
import urllib.request

import pytest

from service import service_of
from uploads import png

# Heads that are to arrive in time are sent at once, which takes far less on any machine.
HEAD_SECONDS, MOST = 2.0, 6
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
PIECES = [HEALTH[:20], HEALTH[20:]]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("connections") / "log"


@pytest.fixture(scope="module")
def address(colours, log):
    folder = log.parent
    bounds = ("--head-seconds", HEAD_SECONDS, "--max-connections", MOST, "--body-seconds", 600)
    database = folder / "f.sqlite"
    with service_of(colours, "--feedback", database, *bounds, log=log) as (_, address):
        yield address


@pytest.fixture
def connect(address):
    host, port = address.removeprefix("http://").split(":")
    with contextlib.ExitStack() as opened:

        def connected(receive_bytes=0):
            one = opened.enter_context(socket.socket())
            one.settimeout(300)
            if receive_bytes:  # before it connects, or the system makes it larger as it likes
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            one.connect((host, int(port)))
            return one

        yield connected


def until_closed(connection):
    """Everything that the other side says before it closes."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(2**16):
            said += piece
    return said


def answer(connection):
    """One answer: its status, its body, and whether the connection stays."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read(), not response.will_close


def stops_listening(connection, content):
    """Send byte by byte; return whether the other side closes before the last one."""
    connection.settimeout(0.05)
    for byte in content:
        try:
            connection.send(bytes([byte]))
            if connection.recv(1) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def counted(address, kind):
    for _ in range(3000):  # what was closed a moment ago may still be counted as open
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/metrics") as metrics:
            counter = re.search(
                rf'^trustvlm_errors_total{{kind="{kind}"}} (\S+)', metrics.read().decode(), re.M
            )
            return 0 if counter is None else round(float(counter[1]))
        time.sleep(0.1)
    raise AssertionError("the service stays full")


def test_who_says_nothing_is_hung_up_on(address, connect):
    before = counted(address, "slow_head")
    assert until_closed(connect()) == b""
    assert counted(address, "slow_head") == before + 1


def test_so_is_who_never_comes_to_the_end_of_the_head(address, connect):
    before = counted(address, "slow_head")
    assert stops_listening(connect(), HEALTH[:20] + b"x" * 2000)
    assert counted(address, "slow_head") == before + 1


def test_also_on_a_connection_that_was_of_use_before(address, connect):
    before, used = counted(address, "slow_head"), connect()
    used.sendall(HEALTH)
    assert answer(used)[0] == 200
    used.sendall(PIECES[0])
    assert until_closed(used) == b""
    assert counted(address, "slow_head") == before + 1


def test_and_who_goes_on_with_a_body_that_nobody_waits_for(address, connect):
    sending = connect()
    sending.sendall(
        b"POST /v1/predict HTTP/1.1\r\nHost: example.org\r\nContent-Length: 100000\r\n\r\n"
    )
    assert answer(sending)[0] == 421  # before any of the body
    assert stops_listening(sending, b"x" * 2000)


def test_a_connection_is_used_again_and_again_and_may_rest_in_between(address, connect):
    before, used = counted(address, "slow_head"), connect()
    used.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for pause in (0, 1.5 * HEAD_SECONDS, 0):
        for piece in PIECES:
            used.sendall(piece)
        status, _, stays = answer(used)
        assert (status, stays) == (200, True)
        time.sleep(pause)
    used.sendall(HEALTH + HEALTH)  # one after the other without waiting
    whole = b""
    while whole.count(b"HTTP/1.1 200") < 2:
        whole += used.recv(2**16)
    assert counted(address, "slow_head") == before


def test_a_body_may_take_longer_than_a_head(address, connect):
    before, slow = counted(address, "slow_head"), connect()
    content = png("red", 1)
    boundary = b"----pictures"
    body = (
        b"--" + boundary + b'\r\nContent-Disposition: form-data; name="images"; filename="a.png"'
        b"\r\n\r\n" + content + b"\r\n--" + boundary + b"--\r\n"
    )
    slow.sendall(
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: multipart/form-data; boundary=" + boundary + b"\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    for part in (body[:10], body[10:20], body[20:]):
        time.sleep(0.6 * HEAD_SECONDS)
        slow.sendall(part)
    status, said, _ = answer(slow)
    assert status == 200
    assert json.loads(said)["verdicts"][0]["label"]
    assert counted(address, "slow_head") == before


def test_who_has_said_nothing_for_longest_makes_room(address, connect):
    counted(address, "slow_head")
    silent = [connect() for _ in range(2 * MOST)]
    asking = connect()
    asking.sendall(HEALTH)
    assert answer(asking)[0] == 200
    for one in silent:
        one.close()
    asking.close()


def test_beyond_the_most_there_is_a_stated_no_until_one_closes(address, connect):
    before = counted(address, "connections")
    held = []
    while len(held) < MOST:
        one = connect()
        with contextlib.suppress(ConnectionError):  # that of `counted` may still be open
            one.sendall(HEALTH)
            if answer(one)[2]:
                held.append(one)
    refused = connect()
    response = http.client.HTTPResponse(refused)
    response.begin()
    assert (response.status, response.headers["Retry-After"]) == (503, "1")
    assert json.loads(response.read())["error"]["kind"] == "connections"
    for one in held:  # those inside notice nothing
        one.sendall(HEALTH)
        assert answer(one)[0] == 200
    for one in held:
        one.close()
    assert counted(address, "connections") >= before + 1


def test_a_body_that_is_refused_is_read_so_that_the_answer_arrives(connect):
    head = (
        b"POST /v1/feedback HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 33000000\r\n\r\n"
    )
    for _ in range(3):
        sending = connect()
        # As most clients do, which do not look for an answer until all is sent.
        sending.sendall(head + bytes(33_000_000))
        status, said, stays = answer(sending)
        assert (status, json.loads(said)["error"]["kind"]) == (413, "body_too_large")
        assert not stays
        assert until_closed(sending) == b""


@pytest.mark.parametrize(
    "content",
    [
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
        HEALTH.replace(b"healthz", b"openapi.json") * 200,
        HEALTH,
    ],
    ids=["half a body", "answers that are not read", "at rest"],
)
def test_the_address_with_most_connections_makes_room(address, connect, log, content):
    counted(address, "connections")  # what was closed before is closed
    # With little room for what they do not read, or the system takes all of it from the service.
    many = [connect(receive_bytes=4096) for _ in range(MOST)]
    for one in many:
        one.sendall(content)
    until_quiet(log)  # until then, one may make room because it is just being answered
    host, port = address.removeprefix("http://").split(":")
    source = ("127.0.0.2", 0)
    # As long as all of them are at work, there is no room.
    for _ in range(300):
        with socket.create_connection((host, int(port)), 300, source_address=source) as other:
            other.sendall(HEALTH)
            if answer(other)[0] == 200:
                break
        time.sleep(0.1)
    else:
        raise AssertionError("nobody makes room")
    assert sum(map(_is_closed, many)) == 1
    for one in many:
        one.close()


def until_quiet(log):
    """Wait until a service has answered all that it can: it logs what it has answered."""
    before = -1
    while before != (now := log.stat().st_size):
        before = now
        time.sleep(0.5)


def _is_closed(connection):
    connection.settimeout(0.5)
    try:
        while connection.recv(2**16):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
