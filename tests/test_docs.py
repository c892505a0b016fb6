"""Every snippet of the documentation runs, in order, in a folder like the one it speaks of."""

import csv
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from benchmark_files import write_arrays
from command import Command
from pictures import write_class_folders
from trustvlm import TrustVLM, models, scores
from trustvlm.benchmark.config import read_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Set up by the environment that runs the tests, or run by CI as they stand.
ELSEWHERE = ("pip install", "make ")


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="the snippets use the offline models")
    write_class_folders(tmp_path / "shots")
    write_class_folders(tmp_path / "photos", per_class=3, seed=7)
    write_class_folders(tmp_path / "labelled", per_class=3, seed=8)
    write_class_folders(tmp_path / "checked", per_class=20, seed=9)
    write_arrays(tmp_path / "pets__train.npz", 0)
    write_arrays(tmp_path / "pets__test.npz", 1)
    TrustVLM(vlm="offline", vision="offline").fit(tmp_path / "shots").save(
        tmp_path / "colours.trust"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(block):
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and not line.startswith(ELSEWHERE):
            assert words[0] in ("trustvlm", "export"), f"no way to run: {line}"
            yield words[1:] if words[0] == "trustvlm" else words


# Those of docs/extend begin in an empty folder, and are followed in tests/test_extend_pages.py.
RUN_HERE = [page for page in PAGES if page.parent.name != "extend"]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_HERE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_snippets_run(page, workplace, capsys, monkeypatch, request):
    if not BLOCK.search(page.read_text()):
        return
    run, registered = Command(capsys, monkeypatch), set(scores.names())
    backends = models.backends()
    names = {"__name__": "__main__"}
    if page.name == "offline-machines.md":
        request.getfixturevalue("tiny_hub")
    for language, block in BLOCK.findall(page.read_text()):
        if language == "toml":
            file = workplace / re.match(r"# (\S+\.toml)", block)[1]
            file.write_text(block)
            if "[[datasets]]" in block:
                # What is not at hand to be run is still a study that could be.
                read_config(file)
        elif language == "python":
            exec(compile(block, str(page), "exec"), names)
        elif language == "bash":
            for arguments in commands(block):
                if arguments[0] == "export" and "=" in arguments[1]:  # the shell's
                    export(arguments[1], monkeypatch)
                    continue
                if "clip-vit-b16" in arguments and "tiny_hub" not in request.fixturenames:
                    if not tiny_presets(workplace, monkeypatch):
                        continue
                    run("cache", "clear", "--yes")
                if "ray" in arguments and not importlib.util.find_spec("ray"):
                    continue
                done = run(*arguments)
                assert done.code == 0, (arguments, done.err)
    for added in set(scores.names()) - registered:
        scores.unregister(added)
    for backend in models.backends():
        if backend not in backends:
            models.unregister_backend(backend.name)


def test_the_readmes_model_accepts_what_is_right(workplace, capsys, monkeypatch):
    """Whoever follows the four commands gets decisions, not a pile of reviews."""
    run = Command(capsys, monkeypatch)
    (block,) = [b for kind, b in BLOCK.findall((ROOT / "README.md").read_text()) if kind == "bash"]
    for arguments in commands(block):
        assert run(*arguments).code == 0
    with (workplace / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    accepted = [row for row in rows if row["decision"] == "accept"]
    assert len(accepted) >= 6
    assert all(row["label"] == row["path"].split("/")[0] for row in accepted)
    # The offline VLM alone is wrong on most of them, and the rows say what it said.
    assert "true" in {row["corrected"] for row in accepted}
    assert all((row["corrected"] == "true") == (row["label"] != row["vlm_label"]) for row in rows)


@pytest.fixture
def tiny_hub(workplace, monkeypatch):
    """A stand-in of the hub, whose repositories of two presets hold tiny random models."""
    pytest.importorskip("torch", reason="needs the extra torch")
    pytest.importorskip("transformers", reason="needs the extra torch")
    from hub_server import serve
    from tiny_models import save_tiny_clip, save_tiny_dinov2

    models_there = {
        "openai/clip-vit-base-patch16": save_tiny_clip(workplace / "hub" / "clip"),
        "facebook/dinov2-base": save_tiny_dinov2(workplace / "hub" / "dinov2"),
    }
    with serve(models_there) as hub:
        files = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
        export("HF_HOME=huggingface", monkeypatch)
        monkeypatch.delenv("TRUSTVLM_MODELS", raising=False)
        yield hub


def export(assignment, monkeypatch):
    """Set a variable of the environment, which the hub's library has read when it was imported."""
    name, value = assignment.split("=")
    monkeypatch.setenv(name, value)
    if name == "HF_HOME":
        monkeypatch.delenv("TRUSTVLM_MODELS", raising=False)  # so that the cache has to do
        cache = str(Path(value).absolute() / "hub")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", cache)
    elif name == "HF_HUB_OFFLINE":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", value == "1")


def tiny_presets(folder, monkeypatch):
    """Let two presets name tiny random models in the hub's format; False without torch."""
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError:
        return False
    from dataclasses import replace

    from tiny_models import save_tiny_clip, save_tiny_dinov2
    from trustvlm.models import registry

    sources = {"clip-vit-b16": save_tiny_clip, "dinov2-base": save_tiny_dinov2}
    for name, save in sources.items():
        if not (folder / name).exists():
            save(folder / name)
    tiny = tuple(
        replace(p, spec=f"hf:{folder / p.name}") if p.name in sources else p
        for p in registry.presets()
    )
    monkeypatch.setattr(registry, "presets", lambda: tiny)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


def test_the_readme_lists_every_page():
    """Its list is the navigation of the documentation site."""
    text = (ROOT / "README.md").read_text("utf-8")
    listed = set(re.findall(r"\]\(([^)#:]+)\)", text[text.index("\n## Read on\n") :]))
    pages = {page.relative_to(ROOT).as_posix() for page in PAGES} | {"docs/tutorial.ipynb"}
    assert sorted(pages - listed - {"README.md"}) == []


def test_no_page_names_a_preset_that_does_not_exist():
    from trustvlm.models import presets

    known = {preset.name for preset in presets()}
    for page in PAGES:
        # Not in links, whose anchors are headings.
        for name in re.findall(
            r"(?<![\w#-])((?:clip|siglip2?|dinov2|moco)-[a-z0-9-]*[a-z0-9])\b", page.read_text()
        ):
            assert name in known, (page.name, name)
