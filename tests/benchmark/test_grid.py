import json

import numpy as np
import pytest

from command import Command
from dataset_trees import plant_zhou
from pictures import write_class_folders
from tiny_models import save_tiny_clip, save_tiny_siglip
from trustvlm.benchmark.config import read_config
from trustvlm.benchmark.grid import encode_datasets, run_grid
from trustvlm.benchmark.results import read_cell, sample_keys, write_cell
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import InputError, OutputError, TrustVLMWarning
from trustvlm.models import load_vlm

STUDY = """
name = "colours"
out = "results"
shots = [1, 2]
draws = 2
scores = ["msp", "trustvlm", "knn"]
[parameters]
knn = {{ k = 3 }}
[[models]]
vlm = "offline"
vision = "offline"
[[models]]
vlm = "offline"
vision = "same"
[[datasets]]
train = "colours/train"
test = ["colours/test", "colours/other"]
{extra}
"""


@pytest.fixture
def study(tmp_path):
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    write_class_folders(tmp_path / "colours" / "train", per_class=3)
    write_class_folders(tmp_path / "colours" / "test", per_class=2, seed=5)
    write_class_folders(tmp_path / "colours" / "other", per_class=2, seed=6)
    path = tmp_path / "study.toml"
    path.write_text(STUDY.format(extra=""))
    return path


def test_every_cell_is_a_row_and_a_second_run_computes_nothing(study):
    config, store = read_config(study), EmbeddingStore.memory()
    first = run_grid(config, store=store)
    assert first.computed == config.n_cells == 2 * 2 * 2
    assert len(first.rows) == 2 * 2 * 2 * 2 * 3
    assert {row["dataset"] for row in first.rows} == {"colours/test", "colours/other"}
    assert {row["parameters"].get("k") for row in first.rows if row["score"] == "knn"} == {3}
    assert set(first.samples) == {
        (f"colours/{split}", score, ("offline", vision, "clean", ""))
        for split in ("test", "other")
        for score in ("msp", "trustvlm", "knn")
        for vision in ("offline", "same")
    }
    assert first.classes["colours/test"].names == ("blue", "green", "red")
    again = run_grid(config, store=store)
    assert again.computed == 0
    assert again.rows == first.rows


def test_scores_and_sets_are_called_as_papers_call_them(tmp_path):
    study = tmp_path / "study.toml"
    study.write_text(
        'scores = ["TrustVLM*", "MSP", "msp", "Doctor"]\n[parameters]\n"TrustVLM*" = {weight = 2}\n'
        '[[models]]\nvlm = "offline"\nvision = "offline"\n'
        '[[datasets]]\nname = "Describable Textures"\nroot = "data"\n'
    )
    config = read_config(study)
    assert config.scores == ("trustvlm_star", "msp", "doctor_alpha")
    assert config.parameters_of(config.datasets[0])["trustvlm_star"] == {"weight": 2}
    assert config.datasets[0].name == "dtd"


def test_imagenet_is_read_as_its_publishers_or_the_script_have_it(tmp_path):
    study = tmp_path / "study.toml"
    sets = ("dtd", "imagenet", "imagenet-a", "imagenet-v2")
    models = '[[models]]\nvlm = "offline"\nvision = "same"\n'
    tables = [f'[[datasets]]\nname = "{name}"\nroot = "data"\n' for name in sets]

    def splits(text):
        study.write_text(text)
        return [f"{d.name}/{split}" for d in read_config(study).datasets for split in d.splits]

    assert splits(models + "".join(tables)) == [f"{name}/test" for name in sets]
    released = 'imagenet_rules = "released"\n'
    assert splits(released + models + "".join(tables)) == [
        "dtd/test",
        "imagenet/test-shots-of-test",
        "imagenet-a/test-1000-names-shots-of-test",
        "imagenet-v2/test-text-order-shots-of-test",
    ]
    # Single rules, and a set in both ways in one study.
    both = f'{tables[2]}{tables[2]}names = "imagenet"\n{tables[3]}imagenet_rules = "as-published"\n'
    assert splits(f"{models}{both}") == [
        "imagenet-a/test",
        "imagenet-a/test-1000-names",
        "imagenet-v2/test",
    ]
    own = f'{tables[2]}{tables[3]}imagenet_rules = "as-published"\n'
    assert splits(f"{released}{models}{own}")[1] == "imagenet-v2/test"
    for wrong, message in (
        (f'{tables[0]}names = "own"\n', "`names` is for imagenet-a and imagenet-r alone"),
        (f'{tables[3]}folder_order = "name"\n', "`folder_order` among number, text"),
        (f'{tables[1]}imagenet_rules = "x"\n', "`imagenet_rules` among as-published, released"),
    ):
        with pytest.raises(InputError, match=message):
            splits(models + wrong)
    with pytest.raises(InputError, match="would select settings on what is tested"):
        splits(f'preset = "loo"\n{released}{models}{tables[1]}')


def test_an_interrupted_grid_goes_on_where_it_stopped(study):
    config, store = read_config(study), EmbeddingStore.memory()

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_grid(config, store=store, on_cell=stop)
    finished = len(list((config.out / "cells").glob("*.json")))
    assert 3 <= finished < 8
    rest = run_grid(config, store=store)
    assert rest.computed == 8 - finished
    undisturbed = run_grid(read_config(study), store=store)
    assert rest.rows == undisturbed.rows
    # What a power failure left of finished cells is measured anew.
    samples = sorted((config.out / "cells").glob("*.npz"))
    others = sorted(
        {*(config.out / "cells").glob("*.json")} - {f.with_suffix(".json") for f in samples}
    )
    samples[0].unlink()
    samples[1].write_bytes(samples[1].read_bytes()[:100])
    others[0].write_text("")
    mended = run_grid(config, store=store)
    assert (mended.computed, mended.rows) == (3, undisturbed.rows)
    assert mended.samples.keys() == undisturbed.samples.keys()


def test_a_cell_that_is_damaged_anywhere_is_no_cell(tmp_path):
    row = {"dataset": "a|b/test", "score": "msp", "shots": 1, "draw": 0}
    file = tmp_path / "cell.json"
    write_cell(file, [row])
    confidence, correct = sample_keys(row)
    values = np.arange(40) % 7
    np.savez_compressed(file.with_suffix(".npz"), **{confidence: values, correct: values > 2})
    assert read_cell(file, with_samples=True) == [row]
    whole = file.with_suffix(".npz").read_bytes()
    for i in range(len(whole)):
        damaged = bytearray(whole)
        damaged[i] ^= 0x55
        file.with_suffix(".npz").write_bytes(damaged)
        assert read_cell(file, with_samples=True) in (None, [row])
    # Samples of something else, and rows of something else.
    np.savez_compressed(file.with_suffix(".npz"), **{confidence: values})
    assert read_cell(file, with_samples=True) is None
    for text in ("[1]", "[{}]", "[null]", "{}", "[NaN]"):
        file.write_text(text)
        assert read_cell(file) is None


def test_a_folder_that_takes_no_cell_ends_the_study(study):
    config = read_config(study)
    config.out.mkdir()
    (config.out / "cells").touch()
    with pytest.raises(OutputError, match=r"cells.* cannot be written"):
        run_grid(config, store=EmbeddingStore.memory())


def test_classes_with_fewer_images_than_shots_are_counted(study):
    study.write_text(study.read_text().replace("shots = [1, 2]", "shots = [3, 4]"))
    notes = []
    next(encode_datasets(read_config(study), EmbeddingStore.memory(), notes=notes))
    assert "colours: 3 of 3 classes have fewer than 4 images: all of theirs are used" in notes
    assert not any("fewer than 3 images" in note for note in notes)


def test_changed_images_make_new_cells(study):
    config, store = read_config(study), EmbeddingStore.memory()
    run_grid(config, store=store)
    write_class_folders(study.parent / "colours" / "other", per_class=2, seed=9)
    assert run_grid(config, store=store).computed == 8


def test_a_failed_set_is_rows_with_its_error_and_the_rest_goes_on(study):
    train = study.parent / "colours" / "train"
    leaking = study.parent / "leaking"
    write_class_folders(leaking, per_class=3)  # the same pictures as train
    study.write_text(
        STUDY.format(extra=f'[[datasets]]\nname = "leak"\ntrain = "{train}"\ntest = "{leaking}"')
    )
    grid = run_grid(read_config(study), store=EmbeddingStore.memory())
    failed = [row for row in grid.rows if row.get("error")]
    assert {row["dataset"] for row in failed} == {"leak/leaking"}
    assert len(failed) == 2 * 2 * 2
    assert all("also training images" in row["error"] for row in failed)
    assert len([row for row in grid.rows if not row.get("error")]) == 48


def test_the_command_writes_rows(study, capsys, monkeypatch):
    run = Command(capsys, monkeypatch)
    done = run("bench", study)
    assert done.code == 0, done.err
    assert "offline verified by same" in done.out
    assert "not CLIP" in done.err
    page = (study.parent / "results" / "index.html").read_text()
    assert "not CLIP" in page
    assert list((study.parent / "results" / "tables").glob("*.tex"))
    assert list((study.parent / "results" / "figures").glob("*.pdf"))
    lines = (study.parent / "results" / "rows.jsonl").read_text().splitlines()
    assert len(lines) == 48
    assert json.loads(lines[0])["vlm"] == "offline"
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    assert parquet.read_table(study.parent / "results" / "rows.parquet").num_rows == 48


def test_a_page_of_an_earlier_run_is_said_to_be_one(study, capsys, monkeypatch):
    write_class_folders(study.parent / "leaking", per_class=3)  # the same pictures as train
    tests = '["colours/test", "colours/other"]'
    study.write_text(study.read_text().replace(tests, '"leaking"'))
    page = study.parent / "results" / "index.html"
    page.parent.mkdir()
    page.write_text('<meta name="generator" content="trustvlm 0.2.0">')
    done = Command(capsys, monkeypatch)("bench", study)
    assert done.code == 3
    assert "index.html is of an earlier run" in done.err


def test_a_set_of_the_catalogue_is_named_and_found_below_its_root(tmp_path):
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    rows = {
        split: [[f"{name}/{split}{i}.png", c, name] for c, name in enumerate(names) for i in (0, 1)]
        for split, names in (("train", ["banded", "dotted"]), ("test", ["banded", "dotted"]))
    }
    plant_zhou(tmp_path / "data", "dtd", rows={**rows, "val": []})
    study = tmp_path / "study.toml"
    study.write_text(
        'shots = [1]\nscores = ["trustvlm"]\n[[models]]\nvlm = "offline"\nvision = "offline"\n'
        '[[datasets]]\nname = "DTD"\nroot = "data"\n'
    )
    with pytest.warns(TrustVLMWarning):  # the counts are not those of the whole set
        grid = run_grid(read_config(study), store=EmbeddingStore.memory())
    assert [(row["dataset"], row["n"]) for row in grid.rows] == [("dtd/test", 4)]


def test_the_papers_preset_is_that_of_the_set_and_the_users_word_comes_first(tmp_path):
    study = tmp_path / "study.toml"
    study.write_text(
        'preset = "paper"\n[parameters]\ntrustvlm_star = { temperature = 0.5 }\n'
        '[[models]]\nvlm = "offline"\nvision = "offline"\n'
        '[[datasets]]\nname = "pets"\nroot = "data"\n[[datasets]]\nname = "sun397"\nroot = "data"\n'
    )
    config = read_config(study)
    pets, sun = map(config.parameters_of, config.datasets)
    assert pets == {
        "trustvlm": {"weight": 0.1},
        "trustvlm_star": {"weight": 0.1, "temperature": 0.5},
        "trustvlm_star_f": {"weight": 0.1, "temperature": 0.1},
    }
    assert sun["trustvlm"] == {"weight": 1.0}
    study.write_text(study.read_text().replace('"paper"', '"untuned"'))
    config = read_config(study)
    assert config.parameters_of(config.datasets[0]) == {"trustvlm_star": {"temperature": 0.5}}


@pytest.mark.parametrize("preset", ["loo", "validation"])
def test_settings_are_selected_for_every_cell_and_recorded(study, preset):
    write_class_folders(study.parent / "colours" / "val", per_class=4, seed=11)
    text = STUDY.format(extra='val = "colours/val"').replace("shots = [1, 2]", "shots = [1, 3]")
    text = text.replace('"msp", "trustvlm"', '"msp", "trustvlm_star", "trustvlm_star_f"')
    text = text.replace('[[models]]\nvlm = "offline"\nvision = "same"\n', "")
    study.write_text(f'preset = "{preset}"\n{text}')
    config, store = read_config(study), EmbeddingStore.memory()
    grid = run_grid(config, store=store)
    assert not [row for row in grid.rows if row.get("error")]
    selected = [row for row in grid.rows if row["score"].startswith("trustvlm")]
    assert {row["selection"]["by"] for row in selected} == {preset}
    counts = {(row["shots"], row["selection"]["n"]) for row in selected}
    assert counts == ({(1, 0), (3, 9)} if preset == "loo" else {(1, 12), (3, 12)})
    for row in selected:
        assert row["parameters"].items() >= row["selection"]["parameters"].items()
    assert not [row for row in grid.rows if row["score"] in ("msp", "knn") and "selection" in row]
    assert run_grid(config, store=store).computed == 0
    # Selecting otherwise, or on other images, makes new cells.
    study.write_text(text)
    assert run_grid(read_config(study), store=store).computed == 4
    if preset == "validation":
        write_class_folders(study.parent / "colours" / "val", per_class=4, seed=12)
        assert run_grid(config, store=store).computed == 4


def test_tests_that_settings_are_selected_on_are_refused(study):
    study.write_text('preset = "validation"\n' + STUDY.format(extra='val = "colours/test"'))
    grid = run_grid(read_config(study), store=EmbeddingStore.memory())
    assert {row["dataset"] for row in grid.rows} == {"colours/test", "colours/other"}
    assert all("are also validation images" in row["error"] for row in grid.rows)


def test_a_set_of_the_catalogue_has_its_own_validation_images(tmp_path):
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    rows = {
        split: [[f"{name}/{split}{i}.png", c, name] for c, name in enumerate(names) for i in (0, 1)]
        for split in ("train", "val", "test")
        for names in [["banded", "dotted"]]
    }
    plant_zhou(tmp_path / "data", "dtd", rows=rows)
    study = tmp_path / "study.toml"
    text = (
        'preset = "validation"\nshots = [1]\nscores = ["trustvlm"]\n'
        '[[models]]\nvlm = "offline"\nvision = "offline"\n'
        '[[datasets]]\nname = "{}"\nroot = "data"\n'
    )
    study.write_text(text.format("DTD"))
    with pytest.warns(TrustVLMWarning):  # the counts are not those of the whole set
        grid = run_grid(read_config(study), store=EmbeddingStore.memory())
    assert [row["selection"]["n"] for row in grid.rows] == [4]
    study.write_text(text.format("imagenet"))
    with pytest.raises(InputError, match="`imagenet` has none"):
        read_config(study)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("shots = [1, 2]", "shots = [0]"), "`shots`"),
        (("shots = [1, 2]", "shots = 3"), "`shots`"),
        (("draws = 2", "draws = 0"), "`draws`"),
        (('"knn"', '"knm"'), "did you mean"),
        (("k = 3", "kk = 3"), "no parameter `kk`"),
        (("knn = { k = 3 }", 'msp = { link = "sigmod" }'), "`link` to be softmax or sigmoid"),
        (('vision = "same"', 'visoin = "same"'), "does not know `visoin`"),
        (('vision = "same"', ""), r"needs `vision`"),
        (('vlm = "offline"', 'vlm = "none"'), "`vlm` to name a vision-language model"),
        (('train = "colours/train"', 'train = "nowhere"'), "nowhere"),
        (('name = "colours"', 'convention = "x"'), "`convention` among exact"),
        (('name = "colours"', 'protocols = ["x"]'), "`protocols` among clean"),
        (('name = "colours"', 'preset = "best"'), "`preset` among untuned, paper, loo, validation"),
        (('name = "colours"', 'preset = "validation"'), "needs validation images of `colours`"),
        (
            ('train = "colours/train"', 'train = "colours/train"\nval = "no"'),
            "which does not exist",
        ),
        (('name = "colours"', "colour = 1"), "does not know `colour`"),
        (('vision = "same"', 'vision = "offline"'), r"`models` to differ, but offline \+ offline"),
        (("shots = [1, 2]", 'protocols = ["clean", "clean"]'), "`protocols` to differ, but clean"),
        (
            (
                "[[models]]",
                '[[datasets]]\ntrain = "colours/train"\ntest = ["colours/test"]\n[[models]]',
            ),
            "`datasets` to differ, but colours/test is there twice",
        ),
        (('name = "colours"', "= 1"), "cannot be read as TOML"),
    ],
)
def test_a_wrong_study_is_explained_before_any_work(study, change, message):
    study.write_text(study.read_text().replace(*change))
    with pytest.raises(InputError, match=message) as caught:
        read_config(study)
    assert "study.toml" in str(caught.value)


def test_a_study_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(InputError, match=r"^There is no file .*none\.toml\.$"):
        read_config(tmp_path / "none.toml")


def test_a_model_that_cannot_be_loaded_is_rows_with_its_error_and_the_rest_goes_on(study):
    study.write_text(study.read_text().replace('vision = "same"', 'vision = "onnx:odd.onnx"', 1))
    (study.parent / "odd.onnx").write_text("no graph")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(study.parent)
        grid = run_grid(read_config(study), store=EmbeddingStore.memory())
    failed = [row for row in grid.rows if row.get("error")]
    assert {row["vision"] for row in failed} == {"onnx:odd.onnx"}
    assert len(failed) == 2 * 2 * 2
    assert {row["vision"] for row in grid.rows if not row.get("error")} == {"offline"}


def test_every_model_is_known_before_the_first_encodes_an_image(study):
    study.write_text(study.read_text().replace('vision = "same"', 'vision = "dinov2-bse"'))
    with pytest.raises(InputError, match="Did you mean dinov2-base"):
        next(encode_datasets(read_config(study), EmbeddingStore.memory(), notes=[]))


def test_the_sigmoid_of_a_study_is_that_of_models_with_a_bias(tmp_path):
    """Other models are rows with an error, and do not take the rest of the study with them."""
    pytest.importorskip("transformers", reason="needs the extra torch")
    save_tiny_clip(tmp_path / "clip")
    save_tiny_siglip(tmp_path / "siglip")
    write_class_folders(tmp_path / "colours" / "train", per_class=1)
    write_class_folders(tmp_path / "colours" / "test", per_class=4, seed=5)
    models = "".join(
        f'[[models]]\nvlm = "hf:{tmp_path / name}"\nvision = "same"\n'
        for name in ("clip", "siglip")
    )
    path = tmp_path / "study.toml"
    path.write_text(
        f'shots = [1]\nscores = ["msp", "margin"]\nstudies = []\n{models}'
        '[parameters]\nmsp = { link = "sigmoid" }\n[[datasets]]\nname = "colours"\n'
        'train = "colours/train"\ntest = "colours/test"\n'
    )
    config, store = read_config(path), EmbeddingStore.memory()
    grid = run_grid(config, store=store)
    failed, *good = grid.rows
    assert failed["vlm"].endswith("clip")
    assert "clip + same, protocol clean: The link `sigmoid` needs the bias" in failed["error"]
    assert [row["parameters"]["link"] for row in good] == ["sigmoid", "softmax"]
    assert (grid.computed, len(grid.samples)) == (1, 2)

    vlm = load_vlm(good[0]["vlm"], device="cpu")
    (sample,) = [pair for key, pair in grid.samples.items() if key[1] == "msp"]
    encoded = [
        e for e in encode_datasets(config, store, notes=[]) if e.setting.vlm == good[0]["vlm"]
    ]
    logits = encoded[0].tests[0].logits.astype(np.float64)
    expected = 1 / (1 + np.exp(-(logits.max(axis=1) + vlm.logit_bias)))
    np.testing.assert_allclose(sample[0], expected, rtol=1e-6)
    assert run_grid(config, store=store).computed == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('protocols = ["clean", "paper"]', "of msp: the protocol `paper` fixes the logit scale"),
        ('preset = "loo"', "of trustvlm: the preset `loo` selects for the link `softmax` alone"),
        ("", None),
    ],
)
def test_the_sigmoid_of_a_study_is_refused_where_fit_refuses_it(tmp_path, settings, message):
    (tmp_path / "shots").mkdir()
    path = tmp_path / "study.toml"
    path.write_text(
        f'{settings}\n[[models]]\nvlm = "offline"\nvision = "same"\n'
        '[parameters]\nmsp = { link = "sigmoid" }\ntrustvlm = { link = "sigmoid" }\n'
        '[[datasets]]\ntrain = "shots"\ntest = "shots"\n'
    )
    if message is None:
        assert read_config(path).parameters["msp"] == {"link": "sigmoid"}
        return
    with pytest.raises(InputError, match=message):
        read_config(path)
