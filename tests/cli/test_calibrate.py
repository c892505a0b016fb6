import json
import re
import shutil
import subprocess
import sys

import pytest

from pictures import write_class_folders
from trustvlm import TrustVLM


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    return write_class_folders(tmp_path_factory.mktemp("cli") / "labelled", per_class=12, seed=9)


@pytest.fixture(scope="module")
def correcting(shots, tmp_path_factory):
    """The offline text side knows no colours; the starred score corrects it."""
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    path = tmp_path_factory.mktemp("cli") / "colours.trust"
    TrustVLM(vlm="offline", vision="offline", score="trustvlm_star").fit(shots).save(path)
    return path


@pytest.fixture
def model(correcting, tmp_path):
    return shutil.copytree(correcting, tmp_path / "colours.trust")


def test_calibrate_prints_what_holds_and_predict_uses_it(
    trustvlm, model, labelled, photos, tmp_path
):
    done = trustvlm(
        *("calibrate", model, labelled, "--risk", "0.3", "--confidence", "0.9"),
        *("--json", tmp_path / "c.json"),
    )
    assert done.code == 0, done.err
    assert "36 labelled images of labelled" in done.out
    assert "accept at confidence >= " in done.out
    assert "with 90 % confidence at most 30 % of what is accepted is wrong" in done.out
    assert "drawn independently" in done.err
    said = json.loads((tmp_path / "c.json").read_text())
    assert said["certificate"]["certified"] is True
    assert said["statement"] in done.out
    predicted = trustvlm("predict", model, photos)
    assert predicted.code == 0
    assert said["statement"] in predicted.err
    assert "threshold" in predicted.out


def test_calibrate_says_loudly_that_nothing_is_certified(trustvlm, model, labelled, photos):
    done = trustvlm("calibrate", model, labelled, "--risk", "0.01")
    assert done.code == 0
    assert "none: 36 labelled images certify no threshold at a risk of 1 %" in done.out
    assert "every image goes to review" in done.err
    assert not re.search(r"(?<!not )calibrated", done.out + done.err)
    predicted = trustvlm("predict", model, photos)
    assert "15 images: 0 accept, 15 review" in predicted.err
    assert "nothing is certified, so everything is reviewed" in predicted.err
    another = ("calibrate", model, labelled, "--risk", "0.3", "--confidence", "0.9")
    refused = trustvlm(*another)
    assert refused.code == 1
    assert "holds a calibration on 36 images of labelled: none" in refused.err
    again = trustvlm(*another, "--overwrite")
    assert again.code == 0
    assert "held a calibration on 36 images of labelled: none" in again.err
    assert "36 of the 36 images were calibrated on before: 2 calibrations" in again.err
    assert again.err.rstrip().endswith("calibrated")


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        (("--per-class", "--risk", "0.45", "--confidence", "0.8"), "for all classes at once"),
        (("--min-coverage", "0.5"), "it accepts"),
        (("--cost-error", "5", "--cost-review", "1"), "on the calibration images this costs"),
    ],
)
def test_calibrate_for_another_goal(trustvlm, model, labelled, photos, goal, said):
    done = trustvlm("calibrate", model, labelled, *goal)
    assert done.code == 0, done.err
    assert said in done.out
    assert "P(correct): Brier score" in done.out
    predicted = trustvlm("predict", model, photos)
    assert predicted.code == 0
    assert " 0 accept" not in predicted.err


def test_calibrate_from_the_examples_alone_promises_nothing(trustvlm, model, photos):
    done = trustvlm("calibrate", model, "--from-shots")
    assert done.code == 0
    assert "12 examples" in done.out
    assert "optimistic where new images differ" in done.out
    predicted = trustvlm("predict", model, photos)
    assert "P(correct) is from the shots alone" in predicted.err
    assert all(line.split(",")[3] for line in predicted.out.splitlines()[1:])


def test_calibrate_can_write_elsewhere(trustvlm, model, labelled, tmp_path):
    before = (model / "manifest.json").read_bytes()
    done = trustvlm("calibrate", model, labelled, "-o", tmp_path / "other.trust", "--quiet")
    assert done.code == 0
    assert (model / "manifest.json").read_bytes() == before
    assert "calibrated" not in done.err
    assert (tmp_path / "other.trust" / "manifest.json").is_file()


def test_a_calibrated_model_is_not_replaced_by_the_way(trustvlm, model, labelled, shots, tmp_path):
    other = tmp_path / "other.trust"
    assert trustvlm("calibrate", model, labelled, "--risk", "0.3", "-o", other).code == 0
    before = (other / "manifest.json").read_bytes()
    offline = ("--vlm", "offline", "--vision", "offline")
    for words in (("fit", shots, *offline), ("calibrate", model, "--from-shots")):
        refused = trustvlm(*words, "-o", other)
        assert refused.code == 1
        assert "would lose that: name another folder, or say --overwrite" in refused.err
        assert "accept at confidence >= " in refused.err
        assert (other / "manifest.json").read_bytes() == before
    done = trustvlm("fit", shots, *offline, "-o", other, "--overwrite")
    assert done.code == 0, done.err
    assert "held a calibration on 36 images of labelled: accept at" in done.err
    assert json.loads((other / "manifest.json").read_text())["calibration"] is None


def test_calibrate_exit_codes(trustvlm, model, labelled, shots, tmp_path):
    leaked = trustvlm("calibrate", model, shots)
    assert leaked.code == 1
    assert "among the shots" in leaked.err
    assert trustvlm("calibrate", model, labelled, "--risk", "5").code == 1
    assert trustvlm("calibrate", model, labelled, "--risk", "much").code == 2
    twice = ("--per-class", "--class-risk", "red=0.1", "--class-risk", "red=0.2")
    assert trustvlm("calibrate", model, labelled, *twice).code == 2
    for wrong, code in (
        ((), 2),
        ((labelled, "--from-shots"), 2),
        ((labelled, "--cost-error", 5), 1),
    ):
        assert trustvlm("calibrate", model, *wrong).code == code
    several = trustvlm("calibrate", model, labelled, "--per-class", "--min-coverage", "0.5")
    assert "choose one" in several.err
    broken = shutil.copytree(labelled, tmp_path / "broken")
    (broken / "red" / "00.png").write_bytes(b"")
    done = trustvlm("calibrate", model, broken)
    assert done.code == 3
    assert "00.png" in done.err


IMPORTED = """
import sys
from trustvlm.cli import main
try:
    main()
finally:
    heavy = {"scipy.special", "scipy.stats", "scipy.sparse", "scipy.optimize", "scipy.linalg"}
    heavy |= {"onnxruntime", "torch", "pyarrow", "pandas", "matplotlib", "joblib"}
    print("heavy:", *sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize("calibrated", [False, True])
def test_an_image_in_the_store_needs_neither_scipy_nor_the_runtime(
    trustvlm, model, labelled, photos, tmp_path, calibrated
):
    if calibrated:
        risk = ("--risk", "0.3", "--confidence", "0.9")
        assert trustvlm("calibrate", model, labelled, *risk).code == 0
    image = next(photos.rglob("*.png"))
    assert trustvlm("predict", model, image).code == 0
    arguments = ["predict", model, image, "-o", tmp_path / "out.csv"]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy:"
    assert "1 image: " in done.stderr


def test_groups_are_named_by_their_column(trustvlm, model, labelled, tmp_path):
    rows = [(file, file.parent.name) for file in sorted(labelled.glob("*/*.png"))]
    lines = [f"{file},{label},{i // 2}" for i, (file, label) in enumerate(rows)]
    table = tmp_path / "frames.csv"
    table.write_text("\n".join(["path,label,scene", *lines]) + "\n")
    asked = ("--risk", "0.3", "--confidence", "0.8", "--group-column", "scene")
    done = trustvlm("calibrate", model, table, *asked, "-o", tmp_path / "scenes.trust")
    assert done.code == 0, done.err
    assert "18 labelled images of frames" in done.out
    assert "One image of each group (scene) was used" in done.out
    missing = trustvlm("calibrate", model, table, "--group-column", "take")
    assert missing.code == 1
    assert "--group-column" in missing.err
    measured = tmp_path / "measured.json"
    measure = ("evaluate", model, table, "--group-column", "scene", "--json", measured)
    assert trustvlm(*measure).code == 0
    assert {row["n"] for row in json.loads(measured.read_text())["rows"]} == {18}
    wrong = trustvlm("verify", model, table, "--group-column", "scene")
    assert (wrong.code, "--group-column goes with --cross-validate" in wrong.err) == (2, True)
