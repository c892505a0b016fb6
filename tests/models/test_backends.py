"""Encoders of one's own: a backend in a file, named, saved, loaded and used like any other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import Command, Finished
from pictures import write_class_folders
from trustvlm import TrustVLM, models, plugins
from trustvlm.embeddings import EmbeddingStore
from trustvlm.embeddings.store import NullStore
from trustvlm.exceptions import InputError, TrustVLMError, TrustVLMWarning
from trustvlm.models import LoadOptions, backends, register_backend, unregister_backend

PIXELS = '''
"""Mean colours of a grid of cells; texts are colours, too."""

import hashlib

import numpy as np

from trustvlm.models import ModelIdentity, Preprocessing, register_backend

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}


class Pixels:
    note = ""
    logit_scale = 50.0
    prompt = "a photo of a {}."

    def __init__(self, cells):
        self.preprocessing = Preprocessing(size=(8, 8), resize=8)
        self.cells, self.dim = cells, 3 * cells * cells
        weights = hashlib.sha256(str(cells).encode()).hexdigest()
        self.identity = ModelIdentity("", "pixels.py", "", weights, {"cells": cells})

    def encode_pixels(self, pixels):
        n, side = len(pixels), 8 // self.cells
        parts = pixels.reshape(n, self.cells, side, self.cells, side, 3).mean(axis=(2, 4)) / 255
        return parts.reshape(n, self.dim).astype(np.float32)

    def encode_texts(self, texts):
        colours = [sum(np.array(c) for w, c in COLOURS.items() if w in text) for text in texts]
        return np.tile(np.array(colours, dtype=np.float32), (1, self.cells**2))


@register_backend("pixels", roles=("vlm", "vision"), form="<cells>")
def load(name, options):
    """Mean colours of a grid of cells."""
    return Pixels(int(name))
'''


@pytest.fixture
def pixels(tmp_path: Path) -> Iterator[Path]:
    """A file that registers the backend `pixels`, not loaded yet."""
    file = tmp_path / "pixels.py"
    file.write_text(PIXELS)
    yield file
    if "pixels" in {backend.name for backend in backends()}:
        unregister_backend("pixels")


@pytest.fixture
def trustvlm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command line in this process."""
    return Command(capsys, monkeypatch)


@pytest.fixture
def fitted(pixels: Path, trustvlm: Command, tmp_path: Path) -> Path:
    """A model of two such encoders, fitted on the command line; the backend is gone again."""
    shots = write_class_folders(tmp_path / "shots")
    path = tmp_path / "colours.trust"
    named = ("--vlm", "pixels:1", "--vision", "pixels:2", "--plugin", pixels)
    done = trustvlm("fit", shots, "-o", path, *named)
    assert done.code == 0, done.err
    unregister_backend("pixels")
    return path


def in_a_fresh_process(*arguments: object) -> Finished:
    done = subprocess.run(
        [sys.executable, "-m", "trustvlm", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def test_a_saved_model_is_loaded_in_a_fresh_process(
    fitted: Path, pixels: Path, tmp_path: Path
) -> None:
    photos = write_class_folders(tmp_path / "photos", per_class=2, seed=7)
    done = in_a_fresh_process("predict", fitted, photos, "--plugin", pixels, "--quiet")
    assert done.code == 0, done.err
    rows = [line.split(",") for line in done.out.splitlines()[1:]]
    assert [Path(path).parent.name for path, *_ in rows] == [label for _, label, *_ in rows]
    assert len(rows) == 6


def test_the_artefact_names_the_spec_the_weights_and_the_plugin(fitted: Path, pixels: Path) -> None:
    saved = json.loads((fitted / "manifest.json").read_text())["models"]
    assert [saved[role]["spec"] for role in ("vlm", "vision")] == ["pixels:1", "pixels:2"]
    plugins.load_plugin(pixels)
    for stored in saved.values():
        assert stored["plugin"]["name"] == "pixels.py"
        assert len(stored["plugin"]["sha256"]) == 64
        assert stored["weights"] == models.load_vision(stored["spec"]).identity.weights


def test_without_the_plugin_the_error_says_what_is_missing(fitted: Path, trustvlm: Command) -> None:
    done = trustvlm("predict", fitted, fitted)
    assert done.code == 1
    assert "needs the encoder backend `pixels`, which pixels.py registers" in done.err
    assert "--plugin FILE.py" in done.err
    with pytest.raises(InputError, match="needs the encoder backend `pixels`"):
        TrustVLM.load(fitted)


def test_another_version_of_the_plugin_is_told(fitted: Path, pixels: Path) -> None:
    other = pixels.with_name("newer.py")
    other.write_text(PIXELS + "# changed\n")
    plugins.load_plugin(other)
    with pytest.warns(TrustVLMWarning, match=r"`pixels` is not the version of pixels\.py"):
        TrustVLM.load(fitted)


def test_workers_of_a_bulk_run_load_the_plugin_too(
    fitted: Path, pixels: Path, trustvlm: Command, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    photos = write_class_folders(tmp_path / "photos", per_class=2, seed=7)
    done = trustvlm("predict", fitted, photos, "-o", f"{tmp_path / 'out'}/", "--plugin", pixels)
    assert done.code == 0, done.err
    table = parquet.read_table(tmp_path / "out", columns=["path", "label"]).to_pylist()
    assert len(table) == 6
    assert all(Path(row["path"]).parent.name == row["label"] for row in table)
    # What a changed plugin computes does not go into the same folder.
    unregister_backend("pixels")
    other = pixels.with_name("newer.py")
    other.write_text(PIXELS + "# changed\n")
    again = trustvlm("predict", fitted, photos, "-o", f"{tmp_path / 'out'}/", "--plugin", other)
    assert again.code == 1
    assert "was begun with another model (plugins: " in again.err


def test_a_study_compares_it_with_others(pixels: Path, trustvlm: Command, tmp_path: Path) -> None:
    write_class_folders(tmp_path / "colours" / "train")
    write_class_folders(tmp_path / "colours" / "test", per_class=3, seed=7)
    study = tmp_path / "study.toml"
    study.write_text(
        'shots = [1, 2]\nscores = ["msp", "trustvlm"]\nstudies = []\n'
        '[[models]]\nvlm = "pixels:1"\nvision = "pixels:2"\n'
        '[[models]]\nvlm = "pixels:1"\nvision = "same"\n'
        '[[datasets]]\nname = "colours"\ntrain = "colours/train"\ntest = "colours/test"\n'
    )
    done = trustvlm("bench", "run", study, "--plugin", pixels, "--jobs", "1")
    assert done.code == 0, done.err
    lines = (tmp_path / "study-results" / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 2 * 2 * 2
    assert {(row["vlm"], row["vision"]) for row in rows} == {
        ("pixels:1", "pixels:2"),
        ("pixels:1", "same"),
    }


def test_it_is_listed(pixels: Path, trustvlm: Command) -> None:
    before = trustvlm("models").out
    listed = trustvlm("models", "--plugin", pixels).out
    assert "pixels" not in before
    assert "pixels:<cells>" in listed
    assert "Mean colours" in listed
    assert listed.splitlines()[-1] == before.splitlines()[-1]


def test_an_installed_backend_is_loaded_when_it_is_named(
    pixels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(pixels, tmp_path / "pixels_package.py")
    info = tmp_path / "pixels_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pixels-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[trustvlm.backends]\npixels = pixels_package\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    encoder = models.load_vlm("pixels:2")
    assert (encoder.identity.spec, encoder.dim) == ("pixels:2", 12)
    assert plugins.origin(type(encoder).encode_texts)["name"] == "pixels_package"


def test_one_name_stands_for_one_backend(pixels: Path, tmp_path: Path) -> None:
    assert plugins.load_plugin(pixels) == ("pixels",)
    assert plugins.load_plugin(pixels) == ("pixels",)  # it is not run again
    other = tmp_path / "other.py"
    other.write_text(PIXELS)
    with pytest.raises(InputError, match=r"other\.py fails.* An encoder backend named `pixels` is"):
        plugins.load_plugin(other)
    with pytest.raises(InputError, match=r"There is no file .*nowhere\.py"):
        plugins.load_plugin(tmp_path / "nowhere.py")


@pytest.mark.parametrize("name", ["timm", "offline", "dinov2-base", "same"])
def test_names_of_the_package_are_taken_before_its_own_are_imported(name: str) -> None:
    program = (
        "from trustvlm.exceptions import InputError\n"
        "from trustvlm.models import register_backend\n"
        f"try:\n    register_backend({name!r}, form='<name>')(lambda name, options: None)\n"
        "except InputError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert f"named `{name}` is already registered" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("name", "roles"), [("", ("vlm",)), ("a:b", ("vlm",)), ("a#b", ("vlm",)), ("a", ("text",))]
)
def test_what_cannot_be_a_backend(name: str, roles: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="Expected a backend to have a name without : and #"):
        register_backend(name, roles=roles)


def test_a_name_spelt_almost_right_is_answered_with_the_right_one(pixels: Path) -> None:
    plugins.load_plugin(pixels)
    for spec in ("pixel:2", "pixles:2", "pixls"):
        with pytest.raises(InputError, match=r"Did you mean pixels\?.*pixels:<cells>"):
            models.load_vision(spec)


def test_a_backend_that_nobody_registered(pixels: Path) -> None:
    with pytest.raises(InputError, match=r"A backend `pixels` of your own .*--plugin FILE\.py"):
        models.load_vlm("pixels:2")
    with pytest.raises(InputError) as raised:
        models.load_vlm("timm:resnet18")  # it is registered, for the other role
    assert "--plugin" not in str(raised.value)


def test_options_that_a_backend_does_not_offer(pixels: Path) -> None:
    plugins.load_plugin(pixels)
    with pytest.raises(InputError, match="'v1', but the model 'pixels:2' has none"):
        models.load_vision("pixels:2", revision="v1")
    with pytest.raises(InputError, match="#cls is for models that transformers runs"):
        models.load_vision("pixels:2#cls")


def test_what_it_loads_must_be_an_encoder() -> None:
    seen: list[tuple[str, LoadOptions]] = []

    @register_backend("nothing", roles=("vlm",))
    def load(name: str, options: LoadOptions) -> object:
        seen.append((name, options))
        return object()

    try:
        with pytest.raises(
            InputError, match="`nothing` to load a VisionLanguageModel for 'nothing'"
        ):
            models.load_vlm("nothing", device="cpu", precision="bfloat16")
        with pytest.raises(InputError, match="no vision encoder named 'nothing'"):
            models.load_vision("nothing")
    finally:
        unregister_backend("nothing")
    assert seen == [("", LoadOptions("vlm", "cpu", "bfloat16"))]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('"pixels.py", "", weights', '"pixels.py", "", ""', "ModelIdentity with a SHA-256 of its"),
        ("3 * cells * cells", "0", "`dim` is a whole number of at least 1, but got 0"),
        ("Preprocessing(size=(8, 8), resize=8)", "None", "`preprocessing` is a Preprocessing"),
        ("logit_scale = 50.0", "logit_scale = 0.0", "`logit_scale` is above 0, but got 0"),
        ('prompt = "a photo of a {}."', 'prompt = "{} {}"', "a prompt template to hold {} once"),
        ("return Pixels(int(name))", "return int('x')", "fails to load 'pixels:2': ValueError"),
    ],
)
def test_what_an_encoder_says_of_itself_is_checked(
    pixels: Path, before: str, after: str, said: str
) -> None:
    assert before in PIXELS
    pixels.write_text(PIXELS.replace(before, after))
    plugins.load_plugin(pixels)
    with pytest.raises(TrustVLMError, match=said) as raised:
        models.load_vlm("pixels:2")
    assert "pixels.py" in str(raised.value) or "prompt" in said


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (
            "parts.reshape(-1)",
            r"'pixels:2' of pixels\.py to return shape \(3, 12\), but got \(36,\)",
        ),
        ("parts.astype(complex)", r"'pixels:2' of pixels\.py to return real numbers"),
        ("[[1.0], [1.0, 2.0]]", r"'pixels:2' of pixels\.py fails: ValueError"),
        ("1 / 0", r"'pixels:2' of pixels\.py fails: ZeroDivisionError"),
    ],
)
def test_what_an_encoder_returns_is_checked(
    pixels: Path, tmp_path: Path, returned: str, said: str
) -> None:
    wanted = "parts.reshape(n, self.dim).astype(np.float32)"
    pixels.write_text(PIXELS.replace(wanted, returned))
    plugins.load_plugin(pixels)
    photos = write_class_folders(tmp_path / "photos", per_class=1)
    model = TrustVLM(vlm="pixels:2", vision="same", store=NullStore())
    with pytest.raises(TrustVLMError, match=said):
        model.fit(photos)


def test_a_changed_file_computes_its_embeddings_anew(pixels: Path, tmp_path: Path) -> None:
    photos = write_class_folders(tmp_path / "photos", per_class=1)
    store = EmbeddingStore(tmp_path / "store")
    features = []
    for content in (PIXELS, PIXELS.replace("/ 255", "/ 255 + 1")):
        pixels.write_text(content)
        other = shutil.copy(pixels, tmp_path / f"pixels_{len(features)}.py")
        plugins.load_plugin(other)
        model = TrustVLM(vlm="pixels:1", vision="pixels:2", store=store).fit(photos)
        features.append(model.support_features_)
        unregister_backend("pixels")
    assert abs(features[1] - features[0] - 1).max() < 1e-6


def test_it_serves(fitted: Path, pixels: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="needs the extra serve")
    from service import client_of

    plugins.load_plugin(pixels)
    photos = write_class_folders(tmp_path / "photos", per_class=1, seed=7)
    with client_of(fitted) as client:
        for colour in ("red", "green", "blue"):
            (file,) = (photos / colour).iterdir()
            answer = client.post("/v1/predict", files={"images": file.read_bytes()})
            assert [v["label"] for v in answer.json()["verdicts"]] == [colour]


def test_a_backend_of_a_program_itself_is_told_how_to_be_elsewhere() -> None:
    with pytest.raises(InputError, match="a program registered it itself: move that into a file"):
        models.registry.check_plugin("mine:2", {"name": "__main__", "sha256": "0"})


def test_two_files_of_one_name_are_told_apart(pixels: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "pixels.py"
    other.write_text(PIXELS.replace('"pixels", roles', '"dots", roles') + "# another\n")
    try:
        plugins.load_plugin(pixels)
        plugins.load_plugin(other)
        first, second = models.load_vlm("pixels:2"), models.load_vlm("dots:2")
        assert plugins.origin(type(first)) != plugins.origin(type(second))
        assert plugins.origin(type(first)) == plugins.origin(type(first).encode_pixels)
    finally:
        unregister_backend("dots")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timm:resnet50", "`timm` has no VLMs, only vision encoders"),
        ("hf:", "Write hf:<repo or directory>"),
        ("openclip", "Write openclip:<arch>/<weights>"),
    ],
)
def test_a_backend_that_is_named_amiss_is_explained(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        models.load_vlm(spec)
