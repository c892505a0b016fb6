"""What can be said of the container, the unit and the Kubernetes example without running them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

from trustvlm.cli.app import app
from trustvlm.exceptions import InputError
from trustvlm.serve.settings import Keys, Settings

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "operate.md").read_text("utf-8")
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if "==" in line and not line.startswith("#")
)
VARIABLES = {f"TRUSTVLM_SERVE_{name.upper()}" for name in (*Settings.model_fields, "keys")}


def block(language):
    return re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]


def instructions():
    text = (ROOT / "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def last(name):
    return [rest for word, rest in instructions() if word == name][-1]


def final_stage():
    starts = [i for i, (word, _) in enumerate(instructions()) if word == "FROM"]
    return instructions()[starts[-1] :]


def settings_named(text):
    return set(re.findall(r"TRUSTVLM_SERVE_\w+", text))


class TestContainer:
    def test_it_installs_what_is_pinned(self):
        lines = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
        assert lines
        assert all("-c constraints.txt" in line for line in lines)
        named = re.findall(r"\btorch(\S*)", (ROOT / "Dockerfile").read_text() + PAGE)
        versions = [text.strip("`.") for text in named if text.startswith("=")]
        assert versions
        assert set(versions) == {f"=={PINS['torch']}"}
        # Whoever asks for the extra torch pins torch on the same line.
        for text in ((ROOT / "Dockerfile").read_text(), PAGE):
            for line in text.splitlines():
                assert "serve,torch" not in line or "torch==" in line

    def test_its_extras_exist(self):
        extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M))
        for chosen in re.findall(r"EXTRAS=([\w,]+)", (ROOT / "Dockerfile").read_text() + PAGE):
            assert set(chosen.split(",")) <= extras

    def test_it_needs_no_root_and_writes_to_two_places(self):
        user = last("USER")
        assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
        words = [word for word, _ in final_stage()]
        assert words.index("USER") < words.index("ENTRYPOINT")
        # As a number, so that Kubernetes can see that it is not root.
        made = next(rest for word, rest in final_stage() if word == "RUN")
        for folder in ("/var/cache/trustvlm", "/var/lib/trustvlm"):
            assert folder in made.split(f"chown {user}")[1]
            assert folder in last("VOLUME")
        environment = dict(
            pair.split("=", 1) for pair in shlex.split(" ".join(last("ENV").split()))
        )
        for name in ("TRUSTVLM_CACHE", "HOME", "TRUSTVLM_SERVE_FEEDBACK"):
            assert environment[name].startswith(("/var/cache/trustvlm", "/var/lib/trustvlm"))

    def test_all_it_copies_is_there_and_not_ignored(self):
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        for word, rest in instructions():
            if word == "COPY" and "--from" not in rest:
                for name in rest.split()[:-1]:
                    assert (ROOT / name).exists()
                    assert f"!{name}" in ignored

    def test_it_names_no_host(self):
        text = (ROOT / "Dockerfile").read_text()
        assert set(re.findall(r"https?://([^/'\" ]+)", text)) == {"127.0.0.1:8000"}
        images = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
        assert all("/" not in image and image.count(":") == 1 for image in images)

    def test_its_python_is_one_that_is_supported(self):
        for version in re.findall(r"python:(3\.\d+)-slim", (ROOT / "Dockerfile").read_text()):
            assert f"Python :: {version}" in (ROOT / "pyproject.toml").read_text()


class TestUnit:
    def test_systemd_understands_it(self, tmp_path):
        verify = shutil.which("systemd-analyze")
        if verify is None:
            pytest.skip("no systemd-analyze")
        # The command need not be installed here; the rest has to be right.
        unit = block("ini").replace("/opt/trustvlm/bin/trustvlm", shutil.which("true"))
        (tmp_path / "trustvlm.service").write_text(unit)
        done = subprocess.run(
            [verify, "verify", "--man=no", str(tmp_path / "trustvlm.service")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "trustvlm.service" not in done.stderr, done.stderr
        assert done.returncode == 0, done.stderr

    def test_it_confines_the_service(self):
        unit = ConfigParser(strict=False, interpolation=None)
        unit.optionxform = str
        unit.read_string(block("ini"))
        service = unit["Service"]
        assert service["DynamicUser"] == service["NoNewPrivileges"] == "yes"
        assert service["ProtectSystem"] == "strict"
        assert service["CapabilityBoundingSet"] == ""
        stop = Settings.model_fields["shutdown_seconds"].default
        assert int(service["TimeoutStopSec"]) > stop


class TestKubernetes:
    def test_it_is_one_deployment_and_its_service(self):
        deployment, service = yaml.safe_load_all(block("yaml"))
        pod = deployment["spec"]["template"]
        labels = pod["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels
        assert service["spec"]["selector"] == labels
        (container,) = pod["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
        probes = {
            container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("readiness", "liveness")
        }
        assert probes == {"/readyz", "/healthz"}

    def test_it_is_confined_and_writes_where_the_image_does(self):
        deployment, _ = yaml.safe_load_all(block("yaml"))
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        user, group = map(int, last("USER").split(":"))
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == user
        assert pod["securityContext"]["runAsGroup"] == group
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
        assert writable == {"/var/lib/trustvlm", "/var/cache/trustvlm", "/tmp"}
        stop = Settings.model_fields["shutdown_seconds"].default
        assert pod["terminationGracePeriodSeconds"] > stop


def settings_of(text):
    """The settings that a page gives, as `NAME=value` or as `NAME, value: ...`."""
    pairs = re.findall(r"TRUSTVLM_SERVE_(\w+)(?:=|, value: )\"?([^\s\"}]+)", text)
    return {name.lower(): value for name, value in pairs}


@pytest.mark.parametrize("language", ["", "ini", "yaml"])
def test_wherever_others_reach_it_the_service_has_keys_and_names(language):
    shown = settings_of(block(language))
    assert "keys" in shown.pop("keys_file")
    image = settings_of((ROOT / "Dockerfile").read_text())
    settings = Settings(**({} if language == "ini" else image), **shown)
    if language:
        assert settings.hosts
    else:
        with pytest.raises(InputError, match="--no-auth"):
            settings.require_keys(Keys([]))


def test_every_setting_and_command_exists():
    named = settings_named(PAGE) | settings_named((ROOT / "Dockerfile").read_text())
    assert named
    assert named <= VARIABLES
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert {"serve", "monitor"} <= commands
    for flag in re.findall(r"`--([\w-]+?)(?: \d+)?`", PAGE):
        assert f"TRUSTVLM_SERVE_{flag.replace('-', '_').upper()}" in VARIABLES, flag


def test_the_lock_of_the_demo_is_complete_hashed_and_as_tested():
    text = (ROOT / "requirements-demo.txt").read_text()
    assert "://" not in text
    locked = {}
    for entry in re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines():
        requirement, *hashes = entry.split("--hash=")
        name, version = re.fullmatch(r"([a-z0-9-]+)==([^ ;]+)( ; .*)?", requirement.strip()).group(
            1, 2
        )
        assert hashes, name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one.strip()) for one in hashes), name
        locked.setdefault(name, set()).add(version)
    for name, version in PINS.items():
        assert locked.get(name.lower().replace("_", "-"), {version}) == {version}, "make lock"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = project["project"]["dependencies"] + extras["offline"] + extras["demo"]
    names = {re.match(r"[A-Za-z0-9_-]+", one)[0].lower() for one in wanted} - {"trustvlm"}
    assert names | {"hatchling", "hatch-fancy-pypi-readme", "editables"} <= locked.keys(), (
        "make lock"
    )
    assert "torch" not in locked
