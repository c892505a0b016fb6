"""Corrections become shots: as if fitted with them, compared before, and calibrated anew."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trustvlm.pipeline.update as module
from pictures import write_class_folders
from trustvlm import TrustVLM
from trustvlm.exceptions import InputError, LeakError, TrustVLMWarning, WorseModelError
from trustvlm.images import find_labelled
from trustvlm.pipeline.artefact import read_artefact
from trustvlm.risk_control.goals import Goal, goal_of

pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
pytestmark = pytest.mark.filterwarnings("ignore:.*may spoil more labels than it corrects")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("update")
    write_class_folders(root / "shots", 2, seed=1)
    write_class_folders(root / "corrected", 4, seed=2)
    write_class_folders(root / "checked", 12, seed=3)
    write_class_folders(root / "other", 6, seed=4)
    return root


@pytest.fixture(scope="module")
def model(folders, store):
    return TrustVLM("offline", "offline", store=store).fit(folders / "shots")


@pytest.fixture(scope="module")
def calibrated(folders, store, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("update") / "m.trust"
    model.save(path)
    return TrustVLM.load(path, store=store).calibrate(folders / "checked", risk=0.3)


def pairs(folder):
    return [(image.file, image.label) for image in find_labelled(folder).refs]


def listed(*folders):
    both = [pair for folder in folders for pair in pairs(folder)]
    return [path for path, _ in both], [label for _, label in both]


def arrays(model, path):
    model.save(path)
    return read_artefact(path)[1]


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, {}),
        ({"score": "trustvlm_star", "finetune": True}, {}),
        ({"score": "trustvlm_star"}, {"select": "loo"}),
        ({"other_classes": ["a house"], "prompt": ["{}", "a {} thing"]}, {}),
    ],
    ids=["auto_star", "finetuned", "selected", "other classes"],
)
def test_the_model_is_the_one_that_fit_gives_for_all_shots(
    settings, options, folders, store, tmp_path
):
    before = TrustVLM("offline", "offline", store=store, **settings)
    before.fit(folders / "shots", **options).save(tmp_path / "before.trust")
    before = TrustVLM.load(tmp_path / "before.trust", store=store)
    updated, report = before.update(folders / "corrected", even_if_worse=True)
    whole = TrustVLM("offline", "offline", store=store, **settings)
    whole.fit(listed(folders / "shots", folders / "corrected"), **options)
    ours, theirs = arrays(updated, tmp_path / "a.trust"), arrays(whole, tmp_path / "b.trust")
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)
    assert updated.parameters_ == whole.parameters_
    assert (report.added, report.shots_before, report.shots_after) == (12, 6, 18)
    assert len(before.shots_) == 6
    assert updated.losses_ == whole.losses_


@pytest.mark.filterwarnings("ignore:.*were calibrated on before")
def test_the_calibration_is_renewed_as_if_on_the_images_themselves(
    calibrated, folders, store, tmp_path
):
    updated, report = calibrated.update(folders / "corrected")
    assert report.calibration == "renewed"
    anew, _ = calibrated.update(folders / "corrected", calibrate_on=folders / "checked")
    ours, theirs = arrays(updated, tmp_path / "a.trust"), arrays(anew, tmp_path / "b.trust")
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)
    of, then = updated.calibration_, anew.calibration_
    assert of.certificate == then.certificate != calibrated.calibration_.certificate
    assert updated.state.looked_at == anew.state.looked_at
    assert (of.looks, then.looks) == (2, 2)
    assert report.calibration_statement.startswith(f"{of.statement}. 2 calibrations have used")
    (corrected, checked) = report.comparisons
    assert (corrected.n, checked.n) == (12, 36)
    assert not {shot["sha256"] for shot in updated.shots_} & set(updated.state.looked_at)


@pytest.mark.filterwarnings("ignore:.*were calibrated on before")
def test_each_look_at_the_labels_counts_though_nothing_is_certified(calibrated, folders, tmp_path):
    calibrated.save(tmp_path / "m.trust")
    strict = TrustVLM.load(tmp_path / "m.trust", store=calibrated.store)
    strict.calibrate(folders / "checked", risk=0.001)
    assert not strict.calibration_.certified
    updated, _ = strict.update(folders / "corrected")
    assert not updated.calibration_.certified
    assert updated.calibration_.looks == strict.calibration_.looks + 1 == 3


def test_a_calibration_from_the_shots_still_names_the_images_whose_labels_were_seen(
    calibrated, folders, tmp_path
):
    calibrated.save(tmp_path / "m.trust")
    model = TrustVLM.load(tmp_path / "m.trust", store=calibrated.store).calibrate_on_shots()
    updated, report = model.update(folders / "corrected", even_if_worse=True)
    assert report.calibration == "renewed"
    assert updated.state.looked_at == model.state.looked_at == calibrated.state.looked_at


@pytest.mark.filterwarnings("ignore:no example images of 'green'")
def test_a_calibration_from_the_shots_is_dropped_once_no_class_has_two(folders, store):
    shots = pairs(folders / "shots")
    red, blue = ([pair for pair in shots if pair[1] == name] for name in ("red", "blue"))
    model = TrustVLM("offline", "offline", classes=["red", "green", "blue"], store=store)
    model.fit(list(map(list, zip(*red, blue[0], strict=True)))).calibrate_on_shots()
    updated, report = model.update(([red[1][0]], ["green"]), even_if_worse=True)
    assert (updated.calibration_, report.calibration, report.relabelled) == (None, "dropped", 1)
    assert "no class has two examples" in report.calibration_statement


def test_images_calibrated_on_never_become_shots(calibrated, folders):
    both = listed(folders / "checked", folders / "corrected")
    updated, report = calibrated.update(both)
    assert report.added == 12
    assert any("36 corrections left out" in note for note in report.notes)
    assert not {shot["sha256"] for shot in updated.shots_} & set(calibrated.state.looked_at)
    with pytest.raises(InputError, match="corrections changes the model"):
        calibrated.update(folders / "checked")


def test_images_to_calibrate_on_are_left_out_of_the_corrections(calibrated, folders):
    both = listed(folders / "other", folders / "corrected")
    updated, report = calibrated.update(both, calibrate_on=folders / "other")
    # Two of the twelve are nearly the same as one of them, more than these are among themselves.
    assert report.added == 10
    assert any("2 corrections left out, being nearly" in note for note in report.notes)
    assert len(updated.calibration_.images) == 18
    with pytest.raises(LeakError, match="the shots"):
        calibrated.update(folders / "corrected", calibrate_on=folders / "shots")


def test_a_calibration_that_cannot_be_repeated_is_dropped_and_said(model, folders, tmp_path, store):
    model.save(tmp_path / "m.trust")
    plain = TrustVLM.load(tmp_path / "m.trust", store=store)
    _, nothing = plain.update(folders / "corrected")
    assert (nothing.calibration, nothing.calibration_statement) == ("none", "")
    with pytest.raises(InputError, match="none: calibrate the new model"):
        plain.update(folders / "corrected", calibrate_on=folders / "other")
    given = TrustVLM.load(tmp_path / "m.trust", store=store)
    given.calibrate(folders / "checked", given_labels=folders / "checked", risk=0.3)
    updated, report = given.update(folders / "corrected")
    assert updated.calibration_ is None
    # Whose labels were looked at is not dropped with it, not even by the file.
    assert set(updated.state.looked_at.values()) == {1}
    updated.save(tmp_path / "dropped.trust")
    dropped = TrustVLM.load(tmp_path / "dropped.trust", store=store)
    with pytest.warns(TrustVLMWarning, match="36 of the 36 images were calibrated on before: 2"):
        dropped.calibrate(folders / "checked", risk=0.3)
    assert dropped.calibration_.looks == 2
    assert report.calibration == "dropped"
    assert "labels from elsewhere" in report.calibration_statement
    assert report.calibration_statement.endswith("LABELLED --risk 0.3 --given-labels LABELS")
    on_shots = TrustVLM.load(tmp_path / "m.trust", store=store).calibrate_on_shots()
    updated, report = on_shots.update(folders / "corrected")
    assert report.calibration == "renewed"
    again = TrustVLM("offline", "offline", store=store)
    again.fit(listed(folders / "shots", folders / "corrected")).calibrate_on_shots()
    ours, theirs = updated.calibration_, again.calibration_
    np.testing.assert_array_equal(ours.calibrator.predict([0.3]), theirs.calibrator.predict([0.3]))


def swapped(folder):
    """The images of a folder, each with a wrong label."""
    paths, labels = listed(folder)
    wrong = {"red": "green", "green": "blue", "blue": "red"}
    return paths, [wrong[label] for label in labels]


def test_a_worse_model_is_refused_unless_it_is_asked_for(model, folders):
    with pytest.raises(WorseModelError, match=r"significantly worse.*of the labels right before"):
        model.update(swapped(folders / "corrected"), compare_on=folders / "other")
    _, report = model.update(
        swapped(folders / "corrected"), compare_on=folders / "other", even_if_worse=True
    )
    (comparison,) = report.comparisons
    assert report.worse
    assert comparison.accuracy.high < 0
    assert comparison.to_dict()["verdict"] == "worse"


def test_corrections_are_judged_by_models_without_them(model, folders, monkeypatch):
    judged, judge = [], module._apply

    def spy(state, shots):
        known, asked = ({s["sha256"] for s in images} for images in (state.shots, shots.images))
        judged.append((len(known), asked))
        assert not known & asked
        return judge(state, shots)

    monkeypatch.setattr(module, "_apply", spy)
    # Pictures of one colour are all alike, and are taken for different ones here.
    monkeypatch.setattr(module, "near_duplicate_groups", lambda rows, **_: np.arange(len(rows)))
    updated, report = model.update(folders / "corrected")
    # Of twelve in four parts: six shots before, and the nine others beside them.
    assert [known for known, _ in judged] == [6, 15] * 4
    everyone = {shot["sha256"] for shot in updated.shots_} - {s["sha256"] for s in model.shots_}
    assert set.union(*(asked for _, asked in judged)) == everyone
    assert sum(len(asked) for _, asked in judged) == 24
    assert report.comparisons[0].n == 12
    judged.clear()
    model.update(folders / "corrected", hold_out=0.5)
    assert [known for known, _ in judged] == [6, 12] * 2


def test_the_comparison_depends_on_neither_order_nor_names(model, folders):
    paths, labels = listed(folders / "corrected")
    order = np.random.default_rng(1).permutation(len(paths))
    _, one = model.update((paths, labels))
    _, other = model.update(([paths[i] for i in order], [labels[i] for i in order]))
    assert one.comparisons[0].accuracy == other.comparisons[0].accuracy


def test_a_shot_gets_the_label_that_a_correction_gives_it(model, folders, store):
    paths, labels = listed(folders / "shots")
    labels[0] = "red"  # was blue
    updated, report = model.update((paths[:1], labels[:1]), hold_out=0)
    assert (report.added, report.relabelled, report.comparisons) == (0, 1, ())
    assert updated.bank_.counts_.tolist() == [1, 2, 3]
    with pytest.raises(InputError, match="examples already"):
        model.update(folders / "shots")
    both = paths[:1] * 2
    with pytest.raises(InputError, match="is both 'red' and 'blue'"):
        model.update((both, ["red", "blue"]))


def test_a_class_that_loses_its_last_example_is_named(model, folders):
    shots = sorted((folders / "shots" / "blue").iterdir())
    moved = [(shot, "green") for shot in shots]
    _, report = model.update(moved)
    assert (report.added, report.relabelled) == (0, len(shots))
    assert any("'blue' has no example any more" in note for note in report.notes)
    _, report = model.update(moved[1:])
    assert not any("no example" in note for note in report.notes)


def test_unreadable_corrections_are_named_and_the_rest_is_learned(model, folders, tmp_path):
    (tmp_path / "x.png").write_bytes(b"no image")
    paths, labels = listed(folders / "corrected")
    _, report = model.update(([*paths, tmp_path / "x.png"], [*labels, "red"]))
    assert report.added == 12
    (failure,) = report.failures
    assert "x.png" in failure
    with pytest.raises(InputError, match=r"corrections changes the model: .*x\.png"):
        model.update(([tmp_path / "x.png"], ["red"]))


def test_unknown_classes_and_odd_shares_are_refused(model, folders, tmp_path):
    paths, _ = listed(folders / "corrected")
    with pytest.raises(InputError, match=r"violet.*trustvlm classes add"):
        model.update((paths[:1], ["violet"]))
    with pytest.raises(InputError, match=r"from 0 to 0\.5, but got 0\.7"):
        model.update(folders / "corrected", hold_out=0.7)
    with pytest.raises(LeakError, match="the corrections"):
        model.update(folders / "corrected", compare_on=folders / "corrected")


def test_steps_come_to_an_end_and_may_end_it(model, folders):
    seen = []
    model.update(folders / "corrected", steps=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]

    def stop(done, total):
        raise KeyError(done)

    with pytest.raises(KeyError):
        model.update(folders / "corrected", steps=stop)


@pytest.mark.parametrize(
    "goal",
    [
        Goal(0.1),
        Goal(0.02, 0.9, method="bonferroni"),
        Goal(0.05, other_risks=(0.1, 0.2)),
        Goal(min_coverage=0.5),
        Goal(cost_error=10.0, cost_review=1.5),
        Goal(0.2, per_class=True, class_risks=((1, 0.4),)),
        Goal(0.1, guarantee="expectation"),
    ],
    ids=lambda goal: str(goal.guarantee),
)
def test_every_goal_is_told_by_its_rules(goal):
    rng = np.random.default_rng(0)
    confidence, prediction = rng.normal(size=400), rng.integers(0, 3, 400)
    correct = rng.random(400) < 1 / (1 + np.exp(-3 * confidence))
    rules = goal.rules(confidence, correct, prediction, 3)
    assert goal_of(rules) == goal


def test_a_model_without_a_vlm_learns_without_a_comparison(folders, store):
    model = TrustVLM("none", "offline", store=store).fit(folders / "shots")
    updated, report = model.update(folders / "corrected")
    assert (report.comparisons, len(updated.shots_)) == ((), 18)
    assert any("no labels to compare" in note for note in report.notes)


def near_copies(folder, to, n=1):
    """Save pictures of a folder again, a little brighter each time: other bytes, same scenes."""
    rows = []
    for path, label in pairs(folder):
        for i in range(1, n + 1):
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB")).astype(int)
            file = to / f"{label}-{path.stem}-{i}.png"
            Image.fromarray(np.clip(pixels + i, 0, 255).astype(np.uint8)).save(file)
            rows.append((file, label))
    return [file for file, _ in rows], [label for _, label in rows]


def test_further_pictures_of_calibration_images_become_no_examples(calibrated, folders, tmp_path):
    copies = near_copies(folders / "checked", tmp_path)
    with pytest.raises(InputError, match="36 corrections left out, being nearly the same as"):
        calibrated.update(copies)
    both = ([*copies[0], *listed(folders / "corrected")[0]],)
    both += ([*copies[1], *listed(folders / "corrected")[1]],)
    updated, report = calibrated.update(both)
    assert report.added <= 12
    assert not {Path(shot["path"]).name for shot in updated.shots_} & {p.name for p in copies[0]}


def test_pictures_of_one_scene_do_not_vouch_for_each_other(model, folders, tmp_path, monkeypatch):
    judged, judge = [], module._apply

    def spy(state, shots):
        known, asked = ({Path(s["path"]).stem[:-2] for s in i} for i in (state.shots, shots.images))
        judged.append(known & asked)
        return judge(state, shots)

    monkeypatch.setattr(module, "_apply", spy)
    _, report = model.update(near_copies(folders / "corrected", tmp_path, n=3), even_if_worse=True)
    assert report.comparisons[0].n == 36
    assert judged
    assert not any(judged)


def test_further_pictures_of_corrections_are_left_out_of_a_comparison(
    model, folders, tmp_path, monkeypatch
):
    judged, judge = [], module._apply

    def spy(state, shots):
        judged.append({Path(shot["path"]).name for shot in shots.images})
        return judge(state, shots)

    monkeypatch.setattr(module, "_apply", spy)
    copies = near_copies(folders / "corrected", tmp_path)
    others = listed(folders / "other")
    both = [*others[0], *copies[0]], [*others[1], *copies[1]]
    _, report = model.update(folders / "corrected", compare_on=both, even_if_worse=True)
    # Pictures of one colour are all alike, so that some others are left out, too.
    assert 9 <= report.comparisons[0].n <= 18
    assert not {path.name for path in copies[0]} & set().union(*judged)
    assert any("left out of the comparison, being nearly the same" in n for n in report.notes)
    with pytest.raises(InputError, match="12 images to compare on is nearly the same"):
        model.update(folders / "corrected", compare_on=copies, even_if_worse=True)
