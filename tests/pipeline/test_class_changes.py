"""Other classes for a fitted model: as if fitted so, and what becomes of the calibration."""

import numpy as np
import pytest

from command import Command
from pictures import write_class_folders
from trustvlm import TrustVLM
from trustvlm.exceptions import InputError, LeakError, TrustVLMWarning
from trustvlm.images import find_labelled
from trustvlm.pipeline.artefact import read_artefact

pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")

FOUR = {
    "red": (200, 40, 40),
    "green": (40, 190, 60),
    "blue": (40, 60, 200),
    "grey": (128, 128, 128),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("classes")
    write_class_folders(root / "shots", 3, seed=1, colours=FOUR)
    write_class_folders(root / "checked", 10, seed=2, colours=FOUR)
    write_class_folders(root / "photos", 3, seed=3, colours=FOUR)
    return root


@pytest.fixture(scope="module")
def model(folders, store):
    model = TrustVLM("offline", "offline", store=store).fit(folders / "shots")
    return model.calibrate(folders / "checked", risk=0.3)


def relabelled(folder, names, leave_out=()):
    """The images of a folder, and other names for their classes."""
    rows = [(i.file, names.get(i.label, i.label)) for i in find_labelled(folder).refs]
    return tuple(zip(*[row for row in rows if row[1] not in leave_out], strict=True))


def fitted(store, shots, checked, classes=None, **settings):
    whole = TrustVLM("offline", "offline", classes=classes, store=store, **settings).fit(shots)
    return whole.calibrate(checked, risk=0.3)


def same_arrays(one, other, tmp_path):
    one.save(tmp_path / "one.trust")
    other.save(tmp_path / "other.trust")
    ours, theirs = (read_artefact(tmp_path / f"{n}.trust")[1] for n in ("one", "other"))
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def test_a_rename_that_keeps_the_prompt_changes_names_alone(model, folders, tmp_path, store):
    renamed, change = model.rename_class("grey", "stone", keep_prompt=True)
    assert (change.calibration, change.calibration_statement) == (
        "kept", model.calibration_.statement,
    )  # fmt: skip
    before, after = model.predict(folders / "photos"), renamed.predict(folders / "photos")
    for old, new in zip(before, after, strict=True):
        assert new.label == {"grey": "stone"}.get(old.label, old.label)
        assert (new.confidence, new.decision, new.p_correct) == (
            old.confidence, old.decision, old.p_correct,
        )  # fmt: skip
    same_arrays(renamed, model, tmp_path)
    # The prompt is still kept when the model is read, fitted again or updated.
    renamed.save(tmp_path / "renamed.trust")
    loaded = TrustVLM.load(tmp_path / "renamed.trust", store=store)
    assert (loaded.classes_.names[2], loaded.state.texts[2]) == ("stone", "grey")
    assert loaded.classes_.folders[2] == "grey"
    again = TrustVLM("offline", "offline", loaded.classes, class_texts=loaded.class_texts)
    again.store = store
    again.fit(folders / "shots")
    np.testing.assert_array_equal(again.text_embeddings_, model.text_embeddings_)
    back, change = loaded.rename_class("stone", "grey")
    assert change.calibration == "kept"
    assert back.state.class_texts == ()


def test_a_rename_is_fitted_with_the_new_name(model, folders, store, tmp_path):
    renamed, change = model.rename_class("grey", "stone")
    classes = {"blue": "blue", "green": "green", "grey": "stone", "red": "red"}
    whole = fitted(store, folders / "shots", folders / "checked", classes)
    assert change.calibration == "renewed"
    assert renamed.calibration_.looks == 2
    assert renamed.calibration_.certificate == whole.calibration_.certificate
    same_arrays(renamed, whole, tmp_path)


def test_merged_classes_are_fitted_as_one(model, folders, store, tmp_path):
    merged, change = model.merge_classes(["grey", "blue"], "cold", text="a cold colour")
    names = {"grey": "cold", "blue": "cold"}
    classes = ["cold", "green", "red"]
    whole = fitted(
        store,
        relabelled(folders / "shots", names),
        relabelled(folders / "checked", names),
        classes,
        class_texts={"cold": "a cold colour"},
    )
    assert merged.classes_.names == ("cold", "green", "red")
    assert change.calibration == "renewed"
    assert change.done == "merged 'blue' and 'grey' into 'cold'"
    same_arrays(merged, whole, tmp_path)
    into, _ = model.merge_classes(["grey", "blue"], "blue")
    assert into.state.classes.names == into.state.texts == ("blue", "green", "red")


def test_a_removed_class_leaves_nothing_behind(model, folders, store, tmp_path):
    left, change = model.remove_classes(["blue"])
    kept = [relabelled(folders / n, {}, leave_out=["blue"]) for n in ("shots", "checked")]
    whole = fitted(store, *kept)
    assert change.calibration == "renewed"
    assert "other classes only" in change.calibration_statement
    same_arrays(left, whole, tmp_path)
    ours, theirs = ([image["sha256"] for image in of.calibration_.images] for of in (left, whole))
    assert ours == theirs
    # Its calibration images were looked at all the same.
    assert left.state.looked_at.keys() == model.state.looked_at.keys()
    assert left.calibration_.looks == 2


def test_the_last_class_is_said_to_be_the_only_one(model):
    with pytest.warns(TrustVLMWarning, match="'grey' is the only class: every image gets"):
        model.remove_classes(["red", "green", "blue"])
    with pytest.warns(TrustVLMWarning, match="'colour' is the only class"):
        merged, _ = model.merge_classes(["red", "green", "blue", "grey"], "colour", text=" ")
    assert merged.state.texts == ("colour",)


def test_an_added_class_is_fitted_with_the_others(model, folders, store, tmp_path):
    without, _ = model.remove_classes(["red"])
    added, change = without.add_class("red", folders / "shots" / "red")
    whole = TrustVLM("offline", "offline", store=store).fit(folders / "shots")
    same_arrays(added, whole, tmp_path)
    assert change.calibration == "dropped"
    assert "trustvlm calibrate NEW.trust LABELLED --risk 0.3" in change.calibration_statement
    assert added.calibration_ is None
    texted, _ = without.add_class("red", folders / "shots" / "red", text="a red brick")
    assert texted.state.texts == ("blue", "green", "grey", "a red brick")
    assert without.add_class("red", folders / "shots" / "red", text=" ")[0].state.texts[-1] == "red"
    assert all(shot["path"].startswith("/") for shot in added.shots_[-3:])
    with pytest.raises(LeakError, match=r"the shots.*an image has one class"):
        without.add_class("sky", folders / "shots" / "blue")


def test_what_makes_no_sense_is_refused(model, folders, tmp_path):
    photos = folders / "photos" / "red"
    (tmp_path / "x.png").write_bytes(b"no image")
    for change, said in (
        (lambda: model.add_class(" Red ", photos), "no class has yet, but 'Red'"),
        (lambda: model.rename_class("xyz", "b"), "but got 'xyz': its classes are '"),
        (lambda: model.add_class("", photos), "not to be empty"),
        (lambda: model.add_class("violet", tmp_path / "x.png"), "No example of 'violet'"),
        (lambda: model.rename_class("gray", "stone"), "but got 'gray': did you mean grey"),
        (lambda: model.rename_class("grey", "red"), "but 'red' is one"),
        (lambda: model.merge_classes(["grey"], "stone"), "two classes or more"),
        (lambda: model.merge_classes(["grey", "grey"], "stone"), "two classes or more"),
        (lambda: model.merge_classes(["grey", "blue"], "red"), "but 'red' is one"),
        (lambda: model.remove_classes([]), "a class to remove"),
        (lambda: model.remove_classes(["red", "green", "blue", "grey"]), "some class to be left"),
    ):
        with pytest.raises(InputError, match=said):
            change()


@pytest.mark.filterwarnings("ignore::trustvlm.exceptions.TrustVLMWarning")
def test_texts_of_classes_count_without_examples_too(folders, store):
    plain = TrustVLM("offline", "offline", ["red", "blue"], store=store)
    other = TrustVLM(
        "offline", "offline", ["red", "azure"], class_texts={"azure": "blue"}, store=store
    )
    one, two = plain.label(folders / "photos"), other.label(folders / "photos")
    assert one.column("confidence") == two.column("confidence")
    assert {v.label for v in two} <= {"red", "azure"}
    wrong = TrustVLM("offline", "offline", ["red"], class_texts={"red": " "}, store=store)
    with pytest.raises(InputError, match="a text of the class 'red'"):
        wrong.label(folders / "photos")


def test_calibrations_that_cannot_be_renewed_are_dropped(folders, store, tmp_path):
    model = TrustVLM("offline", "offline", store=store).fit(folders / "shots")
    assert model.rename_class("grey", "stone")[1].calibration == "none"
    model.calibrate(folders / "checked", given_labels=folders / "checked", risk=0.3)
    _, change = model.remove_classes(["blue"])
    assert change.calibration == "dropped"
    assert "--risk 0.3 --given-labels LABELS" in change.calibration_statement
    model = TrustVLM("offline", "offline", store=store).fit(folders / "shots")
    model.calibrate_on_shots()
    merged, change = model.merge_classes(["grey", "blue"], "cold")
    assert change.calibration == "renewed"
    assert not merged.calibration_.certified


def test_a_model_without_a_vlm_keeps_its_calibration_with_any_name(folders, store, tmp_path):
    model = TrustVLM("none", "offline", store=store).fit(folders / "shots")
    model.calibrate(folders / "checked", given_labels=folders / "checked", risk=0.3)
    renamed, change = model.rename_class("grey", "stone")
    assert change.calibration == "kept"
    same_arrays(renamed, model, tmp_path)


def test_the_commands_do_the_same_and_say_it(model, folders, tmp_path, capsys, monkeypatch):
    trustvlm = Command(capsys, monkeypatch)
    monkeypatch.chdir(tmp_path)
    model.save("m.trust")
    for words, expected, said in (
        ("rename m.trust grey stone -o a.trust --keep-prompt", 4, "Calibration kept: accept"),
        ("rename m.trust grey stone -o b.trust", 4, "Calibration renewed: accept"),
        ("merge m.trust grey blue --into cold -o c.trust", 3, "'blue' and 'grey' into 'cold'"),
        ("remove m.trust grey blue -o d.trust", 2, "removed 'blue' and 'grey'."),
        (f"add d.trust sky {folders / 'shots' / 'blue'} -o e.trust", 3, "Calibration dropped"),
    ):
        done = trustvlm("classes", *words.split())
        assert done.code == 0, done.err
        assert said in done.out
        assert f"{expected} classes" in done.err
    done = trustvlm("classes", "remove", "m.trust", "grey", "-o", "m.trust", "--quiet")
    assert done.code == 1
    assert "--overwrite" in done.err
