"""What a terminal, a pipe or a signal does to the command line."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import odd_inputs
from pictures import write_class_folders
from trustvlm.text import UNSAFE

MESSAGE = "interrupted. What has been embedded so far is kept"
ODD = ["red\x1b[31m.png", "two\nlines.png", "gpj.\u202etxt.png", "c1\x9b31m.png", "caf\u00e9.png"]


def run(*arguments, stdout=subprocess.PIPE, **environment):
    """Run the command line as a process of its own; return it with bytes of its output."""
    return subprocess.run(
        [sys.executable, "-m", "trustvlm", *map(str, arguments)],
        env={**os.environ, **environment},
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
        timeout=300,
    )


@pytest.fixture
def restored():
    """Handlers of signals as they were, after a run that was interrupted."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


COMMANDS = {
    "fit": ["{shots}", "-o", "x.trust"],
    "predict": ["{model}", "{shots}"],
    "label": ["{shots}", "--classes", "a,b"],
    "calibrate": ["{model}", "{shots}"],
    "evaluate": ["{model}", "{shots}"],
    "crossvalidate": ["{model}"],
    "advise": ["{model}"],
    "monitor": ["{model}", "{shots}"],
    "serve": ["{model}"],
    "bench run": ["study.toml"],
    "bench arrays": ["test.npz", "--support", "train.npz"],
    "bench study": ["shots", "study.toml"],
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_ends_every_command_with_its_message(
    command, number, odd_model, tmp_path, trustvlm, restored, monkeypatch
):
    if command == "serve":
        pytest.importorskip("fastapi")
    monkeypatch.chdir(tmp_path)
    plugin = tmp_path / "plugin.py"
    # Libraries swallow an interrupt, or make another error of it.
    plugin.write_text(
        f"import os\ntry:\n    os.kill(os.getpid(), {int(number)})\n"
        "except KeyboardInterrupt as error:\n    raise RuntimeError('half imported') from error\n"
    )
    arguments = [part.format(model=odd_model[0], shots=tmp_path) for part in COMMANDS[command]]
    done = trustvlm(*command.split(), *arguments, "--plugin", plugin)
    assert done.code == 128 + number
    says = MESSAGE if number == signal.SIGINT else "stopped by the system"
    assert done.err.count("error: ") == 1
    assert says in done.err
    assert "unexpected" not in done.err


def test_an_interrupt_that_the_framework_swallows_has_its_message(trustvlm, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("trustvlm.cli.choices.print_table", interrupted)
    done = trustvlm("datasets")
    assert done.code == 130
    assert MESSAGE in done.err


@pytest.mark.parametrize("module", ["trustvlm.cli.app", "typer", "numpy", "trustvlm.pipeline"])
def test_an_interrupt_while_libraries_are_imported(module, odd_model):
    code = f"""
import os, signal, sys
class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
from trustvlm.cli import main
sys.meta_path.insert(0, Interrupter())
sys.argv = ["trustvlm", "predict", {str(odd_model[0])!r}, "."]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr.startswith(f"error: {MESSAGE}")
    assert done.stderr.count("\n") == 1


def test_an_interrupt_of_generated_code_has_its_exit_code(tmp_path):
    # As where dataclasses are made.
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: pass"
    (tmp_path / "plugin.py").write_text(f"exec({code!r})\n")
    done = run("crossvalidate", "no.trust", "--plugin", tmp_path / "plugin.py")
    assert done.returncode == 130
    assert done.stderr.startswith(f"error: {MESSAGE}".encode())


def test_a_signal_that_was_ignored_stays_so(tmp_path):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "plugin.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "trustvlm", "crossvalidate", "no.trust", "--plugin", "plugin.py"],
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"registers no score" in done.stderr


def test_names_are_shown_and_not_obeyed(odd_model, tmp_path, trustvlm, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_class_folders(tmp_path / "in", per_class=1)
    for name in ODD:
        Path("in", "red", name).write_bytes(b"no image")
        Path("in", name).write_bytes(odd_inputs.PNG)
        Path("in", f"{name}.txt").write_bytes(b"a note")
    plugin = ["--plugin", odd_model[1]]
    runs = [
        trustvlm("predict", odd_model[0], folder, *plugin),
        trustvlm(
            "predict", odd_model[0], *[folder / name for name in ODD], "gone\x1b[0m.png", *plugin
        ),
        trustvlm("predict", "no\x1b[31mmodel.trust", folder),
        trustvlm(
            "fit", folder, "-o", "o.trust", "--vlm", "squares:1", "--vision", "squares:1", *plugin
        ),
        trustvlm("evaluate", odd_model[0], folder, *plugin),
        trustvlm("predict", odd_model[0], folder, "-o", "o\x1b[31m.what"),
        trustvlm("predict", odd_model[0], folder, "--none\x1b[31m"),
    ]
    for done in runs:
        shown = done.out + done.err
        assert not UNSAFE.search(shown.replace("\n", "")), shown
        # A line break in a name begins no line of its own.
        assert not re.search(r"^lines", shown, re.MULTILINE)
    assert [done.code for done in runs] == [3, 3, 1, 3, 1, 1, 2]
    assert "are also among the shots" in runs[4].err
    assert "caf\u00e9" in runs[0].out


CONSOLES = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "cp1252"},
    {"LANG": "C"},
]


@pytest.mark.parametrize("console", CONSOLES)
def test_output_is_utf8_whatever_the_console(console, odd_model, tmp_path):
    name = "\u56fe\u7247 caf\u00e9 \U0001f600.png"
    Path(tmp_path, name).write_bytes(odd_inputs.PNG)
    arguments = ["predict", odd_model[0], tmp_path, "--plugin", odd_model[1]]
    done = run(*arguments, **console)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout.decode("utf-8")
    assert name in run("predict", f"no {name}", "x", **console).stderr.decode("utf-8")
    written = run(*arguments, "-o", tmp_path / f"{name}.csv", **console)
    assert written.returncode == 0, written.stderr
    assert name in (tmp_path / f"{name}.csv").read_text("utf-8")


def test_a_pipe_that_closes_early_is_quiet(odd_model):
    reader, writer = os.pipe()
    os.close(reader)
    done = run("scores", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_standard_output_is_stated():
    with Path("/dev/full").open("wb") as full:
        done = run("scores", stdout=full)
    assert done.returncode == 1
    assert re.fullmatch(
        rb"error: 'the output' cannot be written \(No space.*Make room.*\n", done.stderr
    )


def test_standard_output_that_is_closed_is_no_error():
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m trustvlm scores >&-"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
