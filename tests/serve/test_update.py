"""The update at a button: progress, comparison, switch; the same model as the command's."""

import json
import shlex
import shutil
import time
from pathlib import Path

import pytest

from command import Command
from pictures import COLOURS, picture
from service import assert_same_model, client_of
from trustvlm import TrustVLM
from trustvlm.pipeline.artefact import read_artefact
from trustvlm.serve import update_job

pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")


@pytest.fixture
def trustvlm(capsys, monkeypatch):
    return Command(capsys, monkeypatch)


@pytest.fixture
def served(colours, tmp_path):
    """A client of a service whose model may be replaced, with twelve answers."""
    path = tmp_path / "colours.trust"
    shutil.copytree(colours, path)
    with client_of(path, feedback=str(tmp_path / "colours.feedback.sqlite")) as client:
        client.path = path
        yield client


def answer(client, n=4, wrong=False):
    """Send images, and say what they are, or something else."""
    wrongly = {"red": "green", "green": "blue", "blue": "red"}
    for c, (name, colour) in enumerate(COLOURS.items()):
        for i in range(n):
            file = f"{c}-{i}.png", png_of(colour, seed=7000 + 100 * c + i), "image/png"
            sent = client.post("/v1/predict?keep=true", files=[("images", file)])
            image = sent.json()["verdicts"][0]["image"]
            said = {"image": image, "action": "correct", "label": wrongly[name] if wrong else name}
            assert client.post("/v1/feedback", json=said).status_code == 200


def png_of(colour, seed):
    import io

    content = io.BytesIO()
    picture(colour, seed).save(content, "PNG")
    return content.getvalue()


def ended(client):
    """Wait until the update has ended."""
    for _ in range(3000):
        status = client.get("/v1/update").json()
        if status["state"] != "running":
            return status
        time.sleep(0.02)
    raise AssertionError("the update does not end")


@pytest.mark.slow
def test_the_button_and_the_command_make_the_same_model(served, trustvlm, monkeypatch):
    answer(served)
    before = served.get("/v1/update").json()
    assert (before["state"], before["result"], before["kept"]) == ("none", None, "")
    began = served.post("/v1/update")
    assert began.status_code == 202
    status = ended(served)
    assert status["state"] == "ready", status
    assert status["done"] == status["total"] > 12
    result = status["result"]
    # Two of the twelve are nearly the same as a picture that is calibrated on.
    assert (result["added"], result["shots_before"], result["shots_after"]) == (10, 12, 22)
    assert [row["of"] for row in result["comparisons"]] == ["corrections", "calibration images"]
    assert result["calibration"] == "renewed"
    assert "calibrations have used labels" in result["calibration_statement"]
    # Until the switch the old model serves.
    assert sum(served.get("/v1/model").json()["shots"]) == 12
    monkeypatch.chdir(served.path.parent)
    done = trustvlm(*shlex.split(status["command"])[1:])
    assert done.code == 0, done.err
    switched = served.post("/v1/update/switch").json()
    assert switched["state"] == "switched"
    assert sum(served.get("/v1/model").json()["shots"]) == 22
    assert_same_model(served.path, "colours-updated.trust")
    assert TrustVLM.load(switched["kept"]).shots_ != TrustVLM.load(served.path).shots_
    assert {p.name for p in served.path.parent.glob("*.trust")} == {
        "colours.trust",
        "colours-updated.trust",
        switched["kept"],
    }
    assert served.post("/v1/update/switch").json()["error"]["kind"] == "no_update"
    # The same answers once more teach nothing.
    served.post("/v1/update")
    again = ended(served)
    assert (again["state"], again["result"]) == ("failed", None)
    assert "examples already" in again["message"]


def test_labels_csv_gives_the_same_arrays(served, trustvlm, tmp_path, monkeypatch):
    answer(served)
    monkeypatch.chdir(tmp_path)
    command = "corrections colours.feedback.sqlite -o corrected"
    assert trustvlm(*command.split()).code == 0
    for source, name in (("corrected/labels.csv", "a"), ("colours.feedback.sqlite", "b")):
        done = trustvlm("update", "colours.trust", source, "-o", f"{name}.trust")
        assert done.code == 0, done.err
    (_, one), (_, other) = read_artefact("a.trust"), read_artefact("b.trust")
    assert {n: a.tobytes() for n, a in one.items()} == {n: a.tobytes() for n, a in other.items()}
    # Its examples are found where they are, whatever folder the others are relative to.
    shown = TrustVLM.load("a.trust").shots_[-1]["path"]
    assert Path(shown).is_file()


def test_a_worse_model_is_switched_to_only_on_purpose(served, trustvlm, monkeypatch):
    answer(served, n=6, wrong=True)
    served.post("/v1/update")
    status = ended(served)
    assert status["state"] == "worse"
    assert status["result"]["worse"]
    refused = served.post("/v1/update/switch")
    assert (refused.status_code, refused.json()["error"]["kind"]) == (409, "worse")
    monkeypatch.chdir(served.path.parent)
    done = trustvlm(*shlex.split(status["command"])[1:])
    assert done.code == 1
    assert "significantly worse" in done.err
    assert "% after" in done.out.replace("\xa0", " ")
    assert not Path("colours-updated.trust").exists()
    assert served.post("/v1/update/switch?even_if_worse=true").json()["state"] == "switched"
    forced = trustvlm(*shlex.split(status["command"])[1:], "--even-if-worse")
    # What is served has learned of these answers already, and the command reads what is served.
    assert forced.code == 1
    assert "examples already" in forced.err


def test_one_runs_at_a_time_and_may_be_cancelled_and_discarded(served, monkeypatch):
    assert served.post("/v1/update").json()["error"]["kind"] == "no_answers"
    answer(served, n=2)
    slow = update_job.ServedModel.read

    def wait(*arguments):
        time.sleep(0.5)
        return slow(*arguments)

    monkeypatch.setattr(update_job.ServedModel, "read", wait)
    served.post("/v1/update")
    second = served.post("/v1/update")
    assert (second.status_code, second.json()["error"]["kind"]) == (409, "update_running")
    assert served.post("/v1/update/switch").json()["error"]["kind"] == "no_update"
    assert served.delete("/v1/update").json()["state"] == "cancelled"
    served.post("/v1/update")
    assert ended(served)["state"] == "ready"
    assert served.delete("/v1/update").json()["state"] == "none"
    assert served.post("/v1/update/switch").json()["error"]["kind"] == "no_update"
    assert served.get("/v1/update?model=other").status_code == 404


def test_what_cannot_be_written_leaves_the_old_model(served, monkeypatch):
    answer(served, n=2)
    served.post("/v1/update")
    assert ended(served)["state"] == "ready"
    content = (served.path / "manifest.json").read_bytes()

    def fail(name):
        from trustvlm.exceptions import ArtefactError

        raise ArtefactError("no.")

    with monkeypatch.context() as patch:
        patch.setattr(served.context.models, "reload", fail)
        refused = served.post("/v1/update/switch")
    assert (refused.status_code, refused.json()["error"]["kind"]) == (409, "unfit")
    now = json.loads((served.path / "manifest.json").read_bytes())
    assert now == json.loads(content)
    assert not list(served.path.parent.glob("*-before-*"))
    with monkeypatch.context() as patch:
        patch.setattr(update_job.TrustVLM, "save", lambda *_, **__: fail(""))
        assert served.post("/v1/update/switch").json()["error"]["kind"] == "unfit"
    assert json.loads((served.path / "manifest.json").read_bytes()) == now
    assert not list(served.path.parent.glob("*-before-*"))
    # What cannot even be put back stays beside it, and is named.
    with monkeypatch.context() as patch:
        patch.setattr(served.context.models, "reload", fail)
        patch.setattr(update_job, "write_artefact", lambda *_, **__: fail(""))
        message = served.post("/v1/update/switch").json()["error"]["message"]
    (kept,) = served.path.parent.glob("*-before-*")
    assert kept.name in message
    update_job._put_back(kept, served.path)
    assert not kept.exists()
    assert json.loads((served.path / "manifest.json").read_bytes()) == now
    assert sum(served.get("/v1/model").json()["shots"]) == 12
    # Nothing was lost: it may be tried again, within the same second as well.
    assert update_job._beside(served.path) != update_job._beside(served.path)
    assert served.post("/v1/update/switch").json()["state"] == "switched"


def test_a_model_that_was_replaced_meanwhile_is_not_overwritten(served, shots):
    answer(served, n=2)
    served.post("/v1/update")
    assert ended(served)["state"] == "ready"
    TrustVLM.load(served.path).calibrate_on_shots().save(served.path, overwrite=True)
    refused = served.post("/v1/update/switch")
    assert (refused.status_code, refused.json()["error"]["kind"]) == (409, "model_changed")


def test_answers_of_former_classes_are_left_out_and_counted(served, trustvlm, monkeypatch):
    answer(served, n=2)
    monkeypatch.chdir(served.path.parent)
    fewer, _ = TrustVLM.load(served.path).merge_classes(["red", "blue"], "warm or cold")
    fewer.save(served.path, overwrite=True)
    assert served.post("/v1/reload").status_code == 200
    done = trustvlm("update", "colours.trust", "colours.feedback.sqlite", "-o", "new.trust")
    assert done.code == 0, done.err
    assert "2 corrections added" in done.out
    assert "4 answers left out: 'red', for one, is no class" in done.err
    served.post("/v1/update")
    status = ended(served)
    assert status["result"]["added"] == 2
    assert any("4 answers left out" in note for note in status["result"]["notes"])


def test_status_is_told_while_models_change(served):
    """Whoever asks for the status never waits for a disk, on the thread of all connections."""
    with served.context.updates._changing:
        assert served.get("/v1/update").json()["state"] == "none"


def test_what_goes_wrong_unforeseen_is_said_and_logged(served, monkeypatch, caplog):
    answer(served, n=1)
    monkeypatch.setattr(update_job.ServedModel, "read", lambda *_: 1 / 0)
    served.post("/v1/update")
    status = ended(served)
    assert status["state"] == "failed"
    assert "ZeroDivisionError" in status["message"]
    assert "The update of colours failed." in caplog.text
    monkeypatch.undo()
    served.post("/v1/update")
    assert ended(served)["state"] == "ready"


def test_shutting_down_ends_an_update(served, monkeypatch):
    answer(served, n=2)
    served.post("/v1/update")
    began = time.monotonic()
    served.context.updates.close()
    assert time.monotonic() - began < 30
    assert ended(served)["state"] in ("cancelled", "ready")


def test_an_update_needs_a_key_where_there_are_keys(colours):
    with client_of(colours, keys=["a key of some length"]) as client:
        for method, address in (
            ("POST", "/v1/update"),
            ("GET", "/v1/update"),
            ("DELETE", "/v1/update"),
            ("POST", "/v1/update/switch"),
        ):
            assert client.request(method, address).status_code == 401
        offered = {"X-API-Key": "a key of some length", "Origin": "http://elsewhere.example"}
        assert client.post("/v1/update", headers=offered).status_code == 403


def test_a_model_at_a_url_is_updated_by_the_command_that_is_named(
    colours, trustvlm, tmp_path, monkeypatch
):
    pytest.importorskip("fsspec")
    url = "memory://models/colours.trust"
    TrustVLM.load(colours).save(url)
    with client_of(Path(url), feedback=str(tmp_path / "colours.feedback.sqlite")) as client:
        answer(client)
        refused = client.post("/v1/update")
        error = refused.json()["error"]
        assert (refused.status_code, error["kind"]) == (409, "remote_model")
        command = client.get("/v1/update").json()["command"]
        assert f"Run: {command} -- and then serve the new model" in error["message"]
    monkeypatch.chdir(tmp_path)
    done = trustvlm(*shlex.split(command)[1:])
    assert done.code == 0, done.err
    updated = TrustVLM.load("memory://models/colours-updated.trust")
    assert len(updated.shots_) == len(TrustVLM.load(colours).shots_) + 10
