"""The commands of docs/serve.md run, in order, against a service that one of them starts."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pictures import write_class_folders
from service import free_port, until_alive
from uploads import png

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands():
    for block in BLOCK.findall(PAGE.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            if not line.startswith("pip "):
                yield line


def test_the_commands_run(colours, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl: apt-get install curl")
    shutil.copytree(colours, tmp_path / "colours.trust")
    write_class_folders(tmp_path / "shots")
    for i, name in enumerate(("a.jpg", "b.jpg")):
        (tmp_path / name).write_bytes(png("red", 40 + i))
    port, service, image = free_port(), None, ""
    outputs = {}
    with (tmp_path / "log").open("wb") as log:
        try:
            for line in commands():
                line = line.replace("8000", str(port)).replace("9f2c...", image)
                line = re.sub(r"^curl ", "curl --silent --show-error --fail-with-body ", line)
                line = re.sub(r"^trustvlm ", f"exec {sys.executable} -m trustvlm ", line)
                if " serve " in line:
                    assert service is None, "the page starts one service"
                    service = subprocess.Popen(line, shell=True, cwd=tmp_path, stderr=log)
                    until_alive(f"http://127.0.0.1:{port}", service, tmp_path / "log")
                    continue
                done = subprocess.run(
                    line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=120
                )
                assert done.returncode == 0, (line, done.stdout, done.stderr)
                outputs[line] = done.stdout
                if "keep=true" in line:
                    image = json.loads(done.stdout)["verdicts"][0]["image"]
        finally:
            if service is not None:
                service.kill()
                service.wait()
    assert len(outputs) >= 6
    reloaded = json.loads(next(out for line, out in outputs.items() if "reload" in line))
    assert sum(reloaded["shots"]) == 13
