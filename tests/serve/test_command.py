"""`trustvlm serve` as a process: starting, answering, stopping."""

import contextlib
import errno
import http.client
import io
import json
import logging
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import pytest

from command import Command
from pictures import COLOURS, picture
from service import client_of, events, service_of
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.serve.settings import Settings
from trustvlm.serve.telemetry import Log, logged_as_json


def flag(name):
    return f"--{name.replace('_', '-')}"


def ask(address, images):
    boundary = "----pictures"
    parts = b""
    for content in images:
        parts += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="images"; '
            'filename="a.png"\r\n\r\n'
        ).encode()
        parts += content + b"\r\n"
    body = parts + f"--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    request = urllib.request.Request(f"{address}/v1/predict", body, headers)
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)["verdicts"]


def test_a_signal_to_stop_answers_what_was_accepted(colours, tmp_path):
    file = tmp_path / "a.png"
    picture(COLOURS["red"], 1, size=300).save(file)
    answers = []
    log = tmp_path / "log"
    with service_of(colours, log=log) as (process, address):
        begun = threading.Thread(
            target=lambda: answers.extend(ask(address, [file.read_bytes()] * 64))
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(address, [bytes(40 * 2**20)])
        assert refused.value.code == 413  # and no broken connection
        refused.value.close()
        begun.start()
        # A batch is counted when it begins.
        while "trustvlm_batch_images_count 0.0" in metrics(address) and begun.is_alive():
            pass
        assert not answers
        process.send_signal(signal.SIGTERM)
        begun.join(600)
        assert process.wait(600) == 0
    assert len(answers) == 64
    assert [e["event"] for e in events(log.read_text())][-1] == "stopped"


def metrics(address):
    with urllib.request.urlopen(f"{address}/metrics", timeout=600) as answer:
        return answer.read().decode()


@pytest.fixture
def trustvlm(capsys, monkeypatch):
    return Command(capsys, monkeypatch)


def test_settings_that_make_no_sense_are_refused(trustvlm, colours):
    done = trustvlm("serve", colours, "--queue-images", "3")
    assert done.code == 1
    assert "Expected `queue_images` to be at least `max_images`" in done.err


def test_a_model_that_is_none_is_refused(trustvlm, tmp_path):
    done = trustvlm("serve", tmp_path / "none.trust")
    assert done.code == 1
    assert "is not a .trust directory" in done.err


def test_a_public_address_without_keys_is_refused(trustvlm, tmp_path, monkeypatch):
    monkeypatch.setenv("TRUSTVLM_SERVE_HOST", "0.0.0.0")
    done = trustvlm("serve", tmp_path / "none.trust")
    assert done.code == 1
    assert "`host` 0.0.0.0 is reached from other machines" in done.err
    assert "TRUSTVLM_SERVE_KEYS" in done.err
    assert "--no-auth" in done.err
    for flags, environment in (
        (["--no-auth"], {}),
        ([], {"TRUSTVLM_SERVE_NO_AUTH": "true"}),
        ([], {"TRUSTVLM_SERVE_KEYS": "a-key-of-some-length"}),
    ):
        with monkeypatch.context() as context:
            for name, value in environment.items():
                context.setenv(name, value)
            done = trustvlm("serve", tmp_path / "none.trust", *flags)
        assert "is not a .trust directory" in done.err


def test_help_has_every_setting(trustvlm):
    done = trustvlm("serve", "--help")
    assert done.code == 0
    for name in Settings.model_fields:
        assert flag(name) in done.out


def test_the_environment_sets_what_no_flag_does(trustvlm, colours, monkeypatch):
    monkeypatch.setenv("TRUSTVLM_SERVE_MAX_IMAGES", "9999")
    done = trustvlm("serve", colours)
    assert "`max_images` (9999)" in done.err
    done = trustvlm("serve", colours, "--max-images", "7777")
    assert "`max_images` (7777)" in done.err


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_has_its_variable(name, monkeypatch):
    odd = {
        "when_invalid": "keep",
        "no_auth": True,
        "cors": "http://x",
        "trusted_proxies": "10.0.0.7",
        "device": "cuda:1",
    }
    value = odd.get(name)
    value = value or ("x" if Settings.model_fields[name].annotation is str else 250)
    monkeypatch.setenv(f"TRUSTVLM_SERVE_{name.upper()}", str(value))
    others = {"queue_images": 250, "max_bodies_mib": 250}
    others.pop(name, None)
    assert getattr(Settings(**others), name) == value
    monkeypatch.setenv(f"TRUSTVLM_SERVE_{name.upper()}", "")
    assert getattr(Settings(), name) == Settings.model_fields[name].default


@pytest.mark.parametrize("module", ["fastapi", "uvicorn", "pydantic_settings"])
def test_without_the_extra_the_way_to_install_it_is_named(trustvlm, colours, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    done = trustvlm("serve", colours)
    assert done.code == 1
    assert f"trustvlm serve needs `{module}`, which is not installed." in done.err
    assert "'trustvlm[serve]'" in done.err


def test_a_choice_that_is_not_offered_is_refused_by_those_that_are(trustvlm, colours, monkeypatch):
    monkeypatch.setenv("TRUSTVLM_SERVE_WHEN_INVALID", "ignore")
    done = trustvlm("serve", colours)
    assert done.code == 1
    assert "Expected `when_invalid` to be 'review' or 'keep', but got ignore." in done.err


def test_a_variable_of_another_type_is_refused(trustvlm, colours, monkeypatch):
    monkeypatch.setenv("TRUSTVLM_SERVE_PORT", "http")
    done = trustvlm("serve", colours)
    assert done.code == 1
    assert "Expected `port` to be a whole number, but got http." in done.err


def test_the_documentation_shows_every_setting_as_it_is():
    rows = ["| flag | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default == "" else f"`{field.default}`"
        rows.append(f"| `{flag(name)}` | {default} | {field.description} |")
    page = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
    shown = page.split("<!-- settings -->\n")[1].split("<!-- /settings -->")[0]
    assert shown.splitlines() == rows


def test_what_was_acknowledged_outlives_a_killed_service(colours, tmp_path):
    database, acknowledged = tmp_path / "f.sqlite", []
    body = json.dumps({"image": "0" * 64, "action": "skip"}).encode()

    def answer(address):
        request = urllib.request.Request(
            f"{address}/v1/feedback", body, {"Content-Type": "application/json"}
        )
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                with urllib.request.urlopen(request, timeout=600) as done:
                    acknowledged.append(json.load(done)["id"])

    with service_of(colours, "--feedback", database, log=tmp_path / "log") as (process, address):
        people = [threading.Thread(target=answer, args=[address]) for _ in range(3)]
        for person in people:
            person.start()
        while len(acknowledged) < 20 and any(person.is_alive() for person in people):
            time.sleep(0.01)
        process.kill()
        for person in people:
            person.join(600)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        stored = {number for (number,) in connection.execute("SELECT id FROM answers")}
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(acknowledged) >= 20
    assert set(acknowledged) <= stored


def test_every_line_of_the_log_is_json_also_where_the_server_complains(colours, tmp_path):
    log = tmp_path / "log"
    with service_of(colours, "--feedback", tmp_path / "f", log=log) as (process, address):
        port = int(address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"\xff\r\n\r\n")
            assert b"400" in connection.makefile("rb").readline()
        words = [sys.executable, "-m", "trustvlm", "serve", colours, "--port", port]
        words += ["--feedback", tmp_path / "g"]
        second = subprocess.run(list(map(str, words)), capture_output=True, text=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(600) == 0
    assert second.returncode != 0
    assert any("already in use" in str(one.get("message")) for one in events(second.stderr))
    logged = events(log.read_text())
    assert any("Invalid HTTP request" in str(one.get("message")) for one in logged)


def test_a_traceback_is_one_line(capsys):
    stream = io.StringIO()
    own = logging.getLogger("a.library")
    own.addHandler(logging.StreamHandler())
    own.propagate = False

    def fail():
        raise ValueError("two\nlines \u2028 \x9b")

    with logged_as_json(Log(stream)):
        try:
            fail()
        except ValueError:
            own.exception("it failed: %s", "in vain")
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        warnings.simplefilter("always")
        warnings.warn("mind this", TrustVLMWarning, stacklevel=1)
    lines = stream.getvalue().splitlines()
    logged = [json.loads(line) for line in lines]
    messages = [one["message"] for one in logged]
    assert messages == ["it failed: in vain", "An exception was not caught.", "mind this"]
    assert all("in fail" in one["traceback"] for one in logged[:2])
    assert not re.search(r"[^ -~\n]", stream.getvalue())
    assert capsys.readouterr().err == ""
    assert own.handlers
    assert not own.propagate


def test_a_log_that_cannot_be_written_costs_no_answer(client, monkeypatch):
    class Full(io.StringIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(client.context.log, "_stream", Full())
    assert client.get("/v1/model").status_code == 200


def test_other_commands_import_nothing_of_it():
    program = (
        "import sys, trustvlm.cli.app, trustvlm.serve.feedback\n"
        "heavy = {'fastapi', 'uvicorn', 'starlette', 'prometheus_client', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_device_is_checked_when_the_service_starts(colours):
    with pytest.raises(InputError, match=r"`device` to be auto, cpu, cuda, cuda:1 or mps, but got"):
        Settings(device="gpu")
    refused = pytest.raises(InputError, match="with the offline models, which run on no other")
    with refused, client_of(colours, device="cuda:1"):
        pass
    with client_of(colours, device="cpu") as client:
        encoders = client.get("/v1/model").json()["models"]
        assert [encoders[role]["device"] for role in ("vlm", "vision")] == ["cpu", "cpu"]
