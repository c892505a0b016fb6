"""Prompts are part of a cell: of its key, its rows, its samples, the tables, what is resumed."""

import json

import numpy as np
import pytest

from bench_results import make_results
from command import Command
from pictures import write_class_folders
from trustvlm import datasets
from trustvlm.benchmark.config import read_config
from trustvlm.benchmark.grid import encode_datasets, run_grid
from trustvlm.benchmark.results import Results, Setting
from trustvlm.benchmark.studies import STUDIES, StudySettings
from trustvlm.benchmark.studies.study import StudyRunner
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import InputError
from trustvlm.models import load_vlm

STUDY = """
out = "results"
shots = [1]
scores = ["msp", "image_similarity", "trustvlm"]
studies = []
[[models]]
vlm = "offline"
vision = "same"
[[models]]
vlm = "offline"
vision = "same"
prompt = "a photo of a {}."
[[models]]
vlm = "offline"
vision = "same"
prompt = "hues"
[prompts.hues]
colours = ["{} things.", "things in {}"]
[[datasets]]
name = "colours"
train = "colours/train"
test = ["colours/test"]
"""
LABELS = ["", "a photo of a {}.", "hues"]


@pytest.fixture
def study(tmp_path):
    """Three prompts for one pair of models: its own, the same by name, and templates of the set."""
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    write_class_folders(tmp_path / "colours" / "train", per_class=1)
    write_class_folders(tmp_path / "colours" / "test", per_class=4, seed=5)
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


def test_every_prompt_has_its_own_rows_and_samples(study):
    config, store = read_config(study), EmbeddingStore.memory()
    grid = run_grid(config, store=store)
    assert grid.computed == config.n_cells == 3
    results = Results(grid.rows, grid.samples, grid.classes)
    assert results.settings == tuple(Setting("offline", "same", "clean", p) for p in LABELS)
    own, same, hues = map(results.of, results.settings)
    assert len(own.rows) == len(same.rows) == len(hues.rows) == 3
    assert {tuple(row["templates"]) for row in own.rows} == {("a photo of a {}.",)}
    assert {tuple(row["templates"]) for row in hues.rows} == {("{} things.", "things in {}")}
    assert not [row for row in own.rows if "prompt" in row]
    # One template under two names gives the same numbers; another one others.
    for row, other in zip(own.rows, same.rows, strict=True):
        assert {**row, "prompt": "a photo of a {}."} == other
    for key, (confidence, _) in own.samples.items():
        assert np.array_equal(confidence, same.samples[key][0])
        if key[1] != "image_similarity":
            assert not np.array_equal(confidence, hues.samples[key][0])
    # What is finished is found again; under another name it would say a wrong one.
    assert run_grid(config, store=store).computed == 0
    study.write_text(STUDY.replace("hues", "shades"))
    again = run_grid(read_config(study), store=store)
    assert again.computed == 1
    assert {row.get("prompt", "") for row in again.rows} == {*LABELS[:2], "shades"}


def test_the_logits_are_those_of_the_templates(study):
    """Against the mean of the encoder's own text embeddings, by hand."""
    encoded = list(encode_datasets(read_config(study), EmbeddingStore.memory(), notes=[]))[2]
    vlm = load_vlm("offline")
    vectors = np.stack(
        [vlm.encode_texts([f"{c} things.", f"things in {c}"]) for c in ("blue", "green", "red")]
    ).astype(np.float64)
    means = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).mean(axis=1)
    means /= np.linalg.norm(means, axis=-1, keepdims=True)
    np.testing.assert_allclose(encoded.support.text_embeddings, means, atol=1e-6)
    test = encoded.tests[0]
    images = test.image_embeddings / np.linalg.norm(test.image_embeddings, axis=1, keepdims=True)
    np.testing.assert_allclose(test.logits, vlm.logit_scale * images @ means.T, atol=1e-4)


def test_the_command_tells_prompts_apart_everywhere(study, capsys, monkeypatch):
    first = STUDY.index("[[models]]")
    study.write_text(STUDY[:first] + STUDY[STUDY.index("[[models]]", first + 1) :])
    done = Command(capsys, monkeypatch)("bench", study)
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert 'protocol clean, prompt "a photo of a {}."' in said
    assert "protocol clean, prompt hues" in said
    out = study.parent / "results"
    page = (out / "index.html").read_text()
    assert "prompt hues" in page
    assert "prompt &#34;a photo of a {}.&#34;" in page
    tables = {file.name for file in (out / "tables").iterdir()}
    assert {
        "1-offline-same-protocol-clean-prompt-a-photo-of-a-aurc.tex",
        "2-offline-same-protocol-clean-prompt-hues-aurc.tex",
    } <= tables
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows[::3]] == LABELS[1:]
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    table = parquet.read_table(out / "rows.parquet")
    assert set(table["prompt"].to_pylist()) == {"a photo of a {}.", "hues"}
    assert json.loads(table["templates"][0].as_py()) == ["a photo of a {}."]


def test_encoders_are_compared_under_each_prompt_apart():
    settings = [
        Setting("clip", vision, "clean", prompt)
        for vision in ("same", "dinov2-base")
        for prompt in ("", "coop")
    ]
    results = make_results(["pets"], scores=("trustvlm",), settings=settings, shots=(4,), draws=1)
    section = STUDIES["encoders"].show(results.rows, StudySettings(metric="aurc"))
    lines = {line.label: [cell.value for cell in line.cells] for line in section.tables[0].lines}
    assert lines == {
        f"clip, prompt {row.get('prompt', 'of its own')} verified by {row['vision']}": [
            pytest.approx(1000 * row["aurc"])
        ]
        for row in results.rows
    }
    # Two prompts of one pair are no comparison of encoders.
    runner = StudyRunner([STUDIES["encoders"]], StudySettings())
    runner.rows["encoders"] = [row for row in results.rows if row["vision"] == "same"]
    assert runner.general() == []
    assert runner.remarks() == ["The study encoders compares pairs of models, and here is one."]


def test_results_from_before_prompts_are_read_as_they_were(study):
    """A finished cell and its samples without `prompt` and `templates`."""
    study.write_text(
        STUDY.split("[[models]]")[0]
        + "[[models]]"
        + STUDY.split("[[models]]")[1]
        + "[[datasets]]"
        + STUDY.split("[[datasets]]")[1]
    )
    config, store = read_config(study), EmbeddingStore.memory()
    first = run_grid(config, store=store)
    (file,) = (config.out / "cells").glob("*.json")
    old = [{k: v for k, v in r.items() if k != "templates"} for r in json.loads(file.read_text())]
    file.write_text(json.dumps(old))
    again = run_grid(config, store=store)
    assert (again.computed, again.rows) == (0, old)
    samples = {(d, s, tuple(setting)[:3]): pair for (d, s, setting), pair in first.samples.items()}
    results = Results(again.rows, samples)
    assert results.settings == (Setting("offline", "same", "clean"),)
    assert len(results.of(results.settings[0]).samples) == 3


def test_templates_of_sets_are_named(tmp_path):
    """CoOp's, an own table with a default, and the model's own prompt, for several sets."""
    (tmp_path / "two.txt").write_text("# two\none {}\ntwo {name}\n")
    study = tmp_path / "study.toml"
    sets = "".join(
        f'[[datasets]]\nname = "{name}"\nroot = "data"\n'
        for name in ("dtd", "imagenet", "imagenet-r", "cifar10")
    )
    prompts = ['"coop"', '"coop-ensemble"', '"tip-adapter"', '"own"', '"two.txt"', '["{}", "{} b"]']
    models = "".join(
        f'[[models]]\nvlm = "offline"\nvision = "same"\nprompt = {prompt}\n' for prompt in prompts
    )
    default = 'default = ["a {}", "the {}"]\n'
    table = f'[prompts.own]\n"Describable Textures" = "{{}} stuff"\n{default}'
    study.write_text(f"{models}{sets}{table}".replace("Describable Textures", "DTD"))
    config = read_config(study)
    found = [
        [config.templates_of(pair, data) for data in config.datasets] for pair in config.models
    ]
    photo, seven = "a photo of a {}.", datasets.prompt_templates("coop-ensemble", "imagenet")
    assert len(seven) == 7
    assert found == [
        [("{} texture.",), (photo,), (photo,), (photo,)],
        [(*seven, "{} texture."), seven, (*seven, photo), (*seven, photo)],
        [("{} texture.",), seven, seven, (photo,)],
        [("{} stuff",), *[("a {}", "the {}")] * 3],
        [("one {}", "two {}")] * 4,
        [("{}", "{} b")] * 4,
    ]
    assert [pair.prompt_label for pair in config.models[3:]] == ["own", "two.txt", "{} | {} b"]
    study.write_text(study.read_text().replace(default, ""))
    config = read_config(study)
    assert config.templates_of(config.models[3], config.datasets[3]) is None


def test_built_in_templates_stand_in_a_table(study):
    """A study's own templates for one set, and CoOp's for the others."""
    study.write_text(
        STUDY.replace("colours = [", 'default = "coop"\ncolours = [')
        + '[[datasets]]\nname = "dtd"\nroot = "data"\n'
    )
    config = read_config(study)
    assert [config.templates_of(config.models[2], data) for data in config.datasets] == [
        ("{} things.", "things in {}"),
        ("{} texture.",),
    ]


def test_long_ensembles_have_different_names(tmp_path):
    study = tmp_path / "study.toml"
    lists = [[f"a photo number {i} of a {{}}{end}" for i in range(9)] for end in (".", "!")]
    models = "".join(
        f'[[models]]\nvlm = "offline"\nvision = "same"\nprompt = {json.dumps(texts)}\n'
        for texts in lists
    )
    study.write_text(f'{models}[[datasets]]\nname = "dtd"\nroot = "data"\n')
    one, other = (pair.prompt_label for pair in read_config(study).models)
    assert one.startswith("9 templates (")
    assert other.startswith("9 templates (")
    assert one != other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ('prompt = "hues"', 'prompt = "a photo of a {}."'),
            r"differ, but offline \+ same \+ a pho",
        ),
        (('prompt = "hues"', 'prompt = "coup"'), "but got 'coup'. Did you mean coop"),
        (('prompt = "hues"', 'prompt = "{} {}"'), "hold {} once"),
        (('prompt = "hues"', 'prompt = ["{}", 1]'), "`prompt` of entry 3 of `models`"),
        (('prompt = "hues"', "prompt = []"), "at least one prompt template"),
        (("colours = [", "colour = ["), "for 'colour', which is no data set; did you mean colours"),
        (('"things in {}"]', '"things"]'), "hold {} once"),
        (('prompt = "hues"', 'prompt = "CoOp"'), "but got 'CoOp'. Did you mean coop"),
        (('prompt = "hues"', 'prompt = "b {}"'), 'no model says prompt = "hues"'),
        (('"hues"\n[prompts.hues]', '"coop"\n[prompts.coop]'), "templates that are built in"),
        (('colours = ["{} things.", "things in {}"]', ""), "`hues` of `prompts` is empty"),
        (
            ("colours = [", 'dtd = "a {}"\nDTD = "the {}"\ncolours = ['),
            "two prompts for dtd, as 'dtd' and 'DTD'",
        ),
    ],
)
def test_a_wrong_prompt_is_explained_before_any_work(study, change, message):
    assert change[0] in STUDY
    study.write_text(STUDY.replace(*change))
    with pytest.raises(InputError, match=message) as caught:
        read_config(study)
    assert "study.toml" in str(caught.value)
