"""What a user gives is heeded, or refused in words that name what the user gave."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from pictures import write_class_folders
from trustvlm import TrustVLM
from trustvlm.cli import advise, calibrate, evaluate, monitor, options


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    table = tmp_path_factory.mktemp("verdicts") / "out.csv"
    table.write_text(
        "path,label,confidence,decision\na.png,red,0.5,review\nb.png,blue,0.9,accept\n"
    )
    return table


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("predict", "-o", "o.csv", "--part-size", "4"), "--part-size is for a folder as output"),
        (("predict", "-o", "o/", "--actors", "1:2"), "--actors is for workers of Ray"),
        (("predict", "--set-method", "aps"), "--set-method goes with --prediction-sets"),
        (("predict", "-o", "o/", "--symlink"), "--sort-into and --symlink need all rows at once"),
        (("predict", "-o", "o/", "--sort-into", "s"), "for a part of the images at a time"),
        (("verify", "--label-column", "a", "--label-column", "a"), "--label-column a is given 2"),
        (("verify", "--vlm", "offline"), "--vlm goes with --cross-validate"),
        (("verify", "--folds", "3"), "--folds goes with --cross-validate"),
        (("verify", "--probabilities", "--label-column", "a"), "--label-column does not go with"),
        (("verify", "--label-column", "a", "--label-column", "b", "-o", "o.csv",
          "--confidence-column", "p"), "of NAME it is NAME_confidence"),
        (("calibrate", "--unknown-labels", "error"), "name these with --given-labels"),
        (("evaluate", "--given-column", "ann"), "name these with --given-labels"),
        (("advise", "--synonyms", "s.csv"), "name these with --given-labels"),
        (("monitor", "--probabilities"), "name these with --given-labels"),
        (("evaluate", "--given-labels", "x.csv", "--probabilities", "--given-column", "ann"),
         "do not go with --probabilities"),
    ],
)  # fmt: skip
def test_options_that_would_not_be_heeded_are_wrong_usage(
    trustvlm, fitted, photos, words, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = trustvlm(words[0], fitted, photos, *words[1:])
    assert done.code == 2, done.err
    assert said in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--risk", "0.1"), "--risk does not go with --cross-validate"),
        (("--when-invalid", "keep"), "--when-invalid does not go with --cross-validate"),
        (("--unknown-labels", "error"), "--unknown-labels does not go with --cross-validate"),
    ],
)
def test_a_data_set_that_checks_itself_has_fewer_options(trustvlm, photos, words, said):
    done = trustvlm("verify", "--cross-validate", photos, *words)
    assert (done.code, said in done.err) == (2, True), done.err


def test_a_model_has_encoders_of_its_own(trustvlm, fitted, photos):
    done = trustvlm("verify", fitted, "--cross-validate", photos, "--vision", "offline")
    assert done.code == 2
    assert "--vision does not go with MODEL.trust" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "cvat", "-o", "a.xml", "--url-prefix", "u"), "--url-prefix is for --format"),
        (("--format", "coco", "-o", "a.json", "--to-name", "u"), "--to-name is for --format"),
        (("--format", "label-studio", "-o", "a.json", "--image-root", "."), "name --url-prefix"),
        (("--format", "coco", "-o", "a.json", "--seed", "3"), "--seed goes with --sample"),
    ],
)
def test_a_tool_takes_its_own_options(trustvlm, verdicts, words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = trustvlm("export", verdicts, *words)
    assert (done.code, said in done.err) == (2, True), done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["cvat", "coco", "fiftyone"])
def test_images_are_not_exported_from_where_no_folder_is(trustvlm, verdicts, kind, tmp_path):
    output = tmp_path / {"cvat": "a.xml", "coco": "a.json", "fiftyone": "a"}[kind]
    words = ("export", verdicts, "--format", kind, "-o", output)
    done = trustvlm(*words, "--image-root", tmp_path / "photo")
    assert (done.code, "--image-root" in done.err, "not there" in done.err) == (1, True, True)
    assert not output.exists()


def test_hints_name_the_option_that_was_given(trustvlm, fitted, photos, tmp_path):
    table = tmp_path / "labels.csv"
    rows = "".join(f"{path},90 %,0.1,0.1\n" for path in photos.rglob("*.png"))
    table.write_text(f"path,red,green,blue\n{rows}")
    given = ("calibrate", fitted, photos, "--given-labels", table, "-o", tmp_path / "m.trust")
    done = trustvlm(*given)
    assert (done.code, "--given-column" in done.err, "--label-column" in done.err) == (
        1, True, False
    ), done.err  # fmt: skip
    done = trustvlm(*given, "--probabilities")
    assert (done.code, "--confidence-column" in done.err) == (1, False)
    assert "Columns that are called as the classes hold their probabilities" in done.err
    table.write_text(f"path,bob_confidence,ann,bob\n{rows}")
    words = ("--label-column", "ann", "--label-column", "bob", "-o", tmp_path / "o.csv")
    done = trustvlm("verify", fitted, table, *words)
    assert (done.code, "--confidence-column" in done.err) == (1, False)
    assert "Rename the column 'bob_confidence'" in done.err


def test_rows_are_not_printed_where_pictures_are_sorted(trustvlm, fitted, photos, tmp_path):
    done = trustvlm("predict", fitted, photos, "--sort-into", tmp_path / "sorted")
    assert (done.code, done.out) == (0, "")
    done = trustvlm("predict", fitted, photos, "--sort-into", tmp_path / "other", "-o", "-")
    assert done.out.startswith("path,label")


def test_the_model_that_is_changed_is_replaced_on_purpose_only(trustvlm, fitted, shots, tmp_path):
    path = tmp_path / "m.trust"
    TrustVLM.load(fitted).save(path)
    corrected = write_class_folders(tmp_path / "corrected", 2, seed=23)
    stamp = (path / "manifest.json").read_bytes()
    for words in (
        ("update", path, corrected),
        ("classes", "rename", path, "red", "crimson"),
        ("classes", "remove", path, "red"),
        ("classes", "merge", path, "red", "blue", "--into", "red"),
        ("classes", "add", path, "sky", corrected / "blue"),
    ):
        refused = trustvlm(*words, "-o", Path(f"{path}/"))
        assert (refused.code, "say --overwrite" in refused.err) == (1, True), words
        assert (path / "manifest.json").read_bytes() == stamp
    done = trustvlm("classes", "rename", path, "red", "crimson", "-o", path, "--overwrite")
    assert done.code == 0, done.err
    assert "crimson" in TrustVLM.load(path).classes_.labels
    again = trustvlm("classes", "rename", path, "crimson", "crimson", "-o", tmp_path / "n.trust")
    assert (again.code, "it is called so" in again.err) == (1, True), again.err
    # Of two faults the one of what is read comes first.
    gone = trustvlm("classes", "rename", tmp_path / "gone.trust", "a", "b", "-o", path)
    assert (gone.code, "gone.trust" in gone.err) == (1, True)


def test_examples_of_a_class_are_read_as_elsewhere(trustvlm, fitted, tmp_path):
    blue = write_class_folders(tmp_path / "new", 3, seed=29) / "blue"
    table = blue / "table.csv"
    table.write_text("file\n" + "".join(f"{path.name}\n" for path in sorted(blue.glob("*.png"))))
    words = ("classes", "add", fitted, "sky", table, "-o", tmp_path / "n.trust")
    # Before the store has what their pixels came to.
    small = trustvlm(*words, "--path-column", "file", "--max-pixels", "64")
    assert (small.code, "No example of 'sky' can be read" in small.err) == (1, True), small.err
    done = trustvlm(*words, "--path-column", "file")
    assert (done.code, "3 examples" in done.out) == (0, True), done.err


@pytest.mark.parametrize("module", [advise, calibrate, evaluate, monitor])
def test_options_of_given_labels_are_the_same_everywhere(module):
    command = getattr(module, module.__name__.rpartition(".")[2])
    own = inspect.signature(options.with_groups(command)).parameters
    group = inspect.signature(options.GivenLabelOptions, eval_str=True).parameters
    assert {name: own[name].default for name in group} == {
        name: one.default for name, one in group.items()
    }


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("evaluate", "MODEL", "PHOTOS", "--report", "MODEL"), 1, "it is a model"),
        (("verify", "MODEL", "words.csv", "-o", "o.csv"), 0,
         "5 labels are no class of the model, such as 'rot': --synonyms"),
        (("verify", "MODEL", "gone.csv", "-o", "o.csv"), 3, "None could be judged: "),
        (("predict", "MODEL", "gone.csv", "-o", "o.csv"), 3, "None could be judged: "),
        (("advise", "MODEL", "gone.csv"), 1, "No labelled image is left to try as an example"),
        (("monitor", "MODEL", "PHOTOS", "--state", "gone.csv"), 1, "Name another file"),
        (("corrections", "words.json", "-o", "c.csv"), 1, "words.json has no images with answers"),
        (("export", "VERDICTS", "--format", "fiftyone", "-o", "PHOTOS"), 1, "or one that was"),
        (("calibrate", "MODEL", "PHOTOS", "--class-risk", "red=0.1", "-o", "n.trust"), 1,
         "need --per-class"),
        (("serve", "MODEL", "--port", "99999"), 1, "`port` to be at most 65535"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_what_to_do(
    trustvlm, fitted, photos, verdicts, words, code, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    rows = [(path, path.parent.name) for path in sorted(photos.rglob("*.png"))]
    table = "".join(f"{path},{'rot' if label == 'red' else label}\n" for path, label in rows)
    Path("words.csv").write_text(f"path,label\n{table}")
    Path("words.json").write_text("[]")
    Path("gone.csv").write_text("path,label\nnowhere/1.png,red\nnowhere/2.png,blue\n")
    names = {"MODEL": fitted, "PHOTOS": photos, "VERDICTS": verdicts}
    before = sorted(fitted.iterdir()), sorted(photos.iterdir())
    done = trustvlm(*(names.get(word, word) for word in words))
    assert done.code == code, done.err
    assert said in " ".join(done.err.split())
    assert (sorted(fitted.iterdir()), sorted(photos.iterdir())) == before


def test_a_risk_of_the_model_s_own_labels_is_none_of_others(trustvlm, fitted, photos, tmp_path):
    path = tmp_path / "own.trust"
    TrustVLM.load(fitted).calibrate(photos, risk=0.5).save(path)
    done = trustvlm("verify", path, photos, "-o", tmp_path / "o.csv", "--risk", "0.5")
    assert (done.code, "calibrated for its own labels" in done.err) == (1, True), done.err
    done = trustvlm("verify", path, photos, "-o", tmp_path / "o.csv")
    assert "the calibration is for the model's own labels" in done.err
