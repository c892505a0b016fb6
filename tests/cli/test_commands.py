import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import trustvlm as package
from broken_images import write_broken_images
from pictures import COLOURS, picture, write_class_folders
from trustvlm.cli.app import app
from trustvlm.images import Limits
from trustvlm.scores import names

COMMANDS = [
    "demo",
    "label",
    "fit",
    "predict",
    "evaluate",
    "crossvalidate",
    "serve",
    "corrections",
    "update",
    "models",
    "scores",
    "metrics",
    "cache",
]


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_help_shows_every_command_and_where_to_start(trustvlm):
    done = trustvlm("--help")
    assert done.code == 0
    for command in COMMANDS:
        assert command in done.out
    assert "trustvlm demo" in done.out
    assert "3 done but some inputs failed" in done.out


@pytest.mark.parametrize("command", [*COMMANDS[:-1], "cache show", "cache prune", "cache clear"])
def test_every_help_has_an_example_and_explains_its_options(trustvlm, command):
    done = trustvlm(*command.split(), "--help")
    assert done.code == 0
    assert f"trustvlm {command}" in re.split(r"Example:", done.out, maxsplit=1)[1]


def test_every_argument_has_a_readable_name_and_an_explanation(trustvlm):
    def leaves(command, path):
        for name, sub in getattr(command, "commands", {}).items():
            yield from leaves(sub, [*path, name])
        if not hasattr(command, "commands"):
            yield path, command

    listed = list(leaves(typer.main.get_command(app), []))
    assert len(listed) > 15
    for path, command in listed:
        usage = " ".join(trustvlm(*path, "--help").out.split())
        assert not re.search(r"<bool>|list\[| range>", usage), path
        for one in command.params:
            if one.param_type_name == "argument":
                many = "..." if one.nargs != 1 else ""
                shown = f"{{{one.metavar}}}" if one.required else f"[{one.metavar}]"
                assert f" {shown}{many}" in usage, path
                assert not re.search(r"\.\.\.|[][{}]", one.metavar), path  # they are added
                assert one.metavar != one.metavar.lower(), path
                assert one.help, path


def test_version(trustvlm):
    assert trustvlm("--version").out == f"trustvlm {package.__version__}\n"


def test_label_needs_a_folder_and_names_alone(trustvlm, photos, tmp_path):
    done = trustvlm(
        "label", photos, "--classes", "red,green,blue", "--vlm", "offline", "-o", tmp_path / "o.csv"
    )
    assert done.code == 0, done.err
    listed = rows((tmp_path / "o.csv").read_text())
    assert len(listed) == 15
    assert {row["label"] for row in listed} <= {"red", "green", "blue"}
    assert "uncalibrated" in done.err
    assert "not CLIP" in done.err


NO_GATE = "there is no out-of-distribution gate"


@pytest.mark.slow
def test_the_offline_models_are_called_stand_ins_where_they_are_chosen(
    trustvlm, shots, photos, tmp_path
):
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    said = "note: offline is a small stand-in"
    model = tmp_path / "m.trust"
    label = ("label", photos, "--classes", "red,green,blue", "--vlm", "offline")
    for command in (label, ("fit", shots, "--vlm", "offline", "-o", model)):
        done = trustvlm(*command)
        assert said in done.err
    page = tmp_path / "report"
    for command in (
        ("predict", model, photos),
        ("predict", model, photos, "-o", f"{tmp_path}/bulk/"),
        ("evaluate", model, photos, "--report", page),
        ("calibrate", model, photos, "--risk", "0.5"),
        ("monitor", model, photos),
        ("advise", model),
    ):
        done = trustvlm(*command)
        assert done.code in (0, 4), done.err
        assert "stand-in" not in done.err + done.out, command
    assert "offline is a small stand-in" in (page / "index.html").read_text("utf-8")


def test_where_no_gate_is_a_user_hears_of_it_once_a_command(trustvlm, shots, photos, tmp_path):
    model = tmp_path / "m.trust"
    fit = trustvlm("fit", shots, "-o", model, "--vlm", "offline")
    assert "m.trust: 3 classes, 12 example images" in fit.err
    assert fit.err.count(NO_GATE) == 1
    assert trustvlm("predict", model, photos).err.count(NO_GATE) == 1
    assert trustvlm("calibrate", model, photos, "--no-gate").code == 0
    assert NO_GATE not in trustvlm("predict", model, photos).err  # as it was asked for
    # Of 15 photographs and 12 others enough are given for one.
    enough = tmp_path / "enough"
    for source in (shots, photos):
        for file in source.rglob("*.png"):
            (enough / file.parent.name).mkdir(parents=True, exist_ok=True)
            copy = enough / file.parent.name / f"{source.name}-{file.name}"
            copy.write_bytes(file.read_bytes())
    done = trustvlm("fit", enough, "-o", tmp_path / "n.trust", "--vlm", "offline")
    assert (done.code, NO_GATE in done.err) == (0, False)


def test_label_passes_on_how_to_compute(trustvlm, photos):
    asked = ("label", photos, "--classes", "red,green", "--vlm", "offline")
    assert trustvlm(*asked, "--draft").out == trustvlm(*asked).out  # these are small PNGs
    done = trustvlm(*asked, "--precision", "bfloat16")
    assert (done.code, "Expected `precision` to be float32" in done.err) == (1, True)


def score_of(model):
    return json.loads((model / "manifest.json").read_text())["score"]["name"]


@pytest.mark.parametrize(
    ("options", "score"),
    [
        ((), "auto_star"),
        (("--no-correct",), "auto"),
        (("--adapt",), "auto_adapted_star"),
        (("--adapt", "--no-correct"), "auto_adapted"),
        (("--adapt", "--score", "auto"), "auto_adapted"),
        (("--score", "trustvlm_star"), "trustvlm_star"),
        (("--score", "trustvlm_star", "--no-correct"), "trustvlm"),
        (("--score", "msp", "--no-correct"), "msp"),
    ],
)
def test_which_score_the_options_of_fit_name(trustvlm, shots, photos, tmp_path, options, score):
    model = tmp_path / "m.trust"
    done = trustvlm("fit", shots, "-o", model, "--vlm", "offline", *options)
    assert done.code == 0, done.err
    assert f"score {score}." in done.err
    assert score_of(model) == score
    done = trustvlm("predict", model, photos, "--quiet")
    assert done.code == 0
    listed = rows(done.out)
    assert len(listed) == 15
    if not score.endswith("_star"):
        assert {row["corrected"] for row in listed} == {"false"}
        assert all(row["vlm_label"] == row["label"] for row in listed)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--adapt", "--score", "trustvlm"), 2, "leave --score out"),
        (("--no-correct", "--score", "gda"), 2, "the score gda corrects them: choose auto"),
        (("--no-correct", "--score", "trustvlm_star_f"), 2, "choose auto or trustvlm"),
        (("--select", "loo"), 1, "it weighs text and examples by itself"),
        (("--set", "weight=2"), 1, "Choose one of the scores that do: trustvlm, trustvlm_star"),
    ],
)
def test_options_of_fit_that_do_not_go_together(trustvlm, shots, tmp_path, options, code, message):
    done = trustvlm("fit", shots, "-o", tmp_path / "m.trust", "--vlm", "offline", *options)
    assert done.code == code
    assert message in " ".join(done.err.split())
    assert not (tmp_path / "m.trust").exists()


def test_evaluate_names_a_better_score_and_warns_of_choosing_by_it(
    trustvlm, shots, photos, tmp_path
):
    model, report = tmp_path / "m.trust", tmp_path / "report"
    trustvlm("fit", shots, "-o", model, "--vlm", "offline", "--score", "trustvlm")
    done = trustvlm("evaluate", model, photos, "--json", tmp_path / "e.json", "--report", report)
    assert done.code == 0, done.err
    better = json.loads((tmp_path / "e.json").read_text())["better_score"]
    assert better["score"] == "auto_star"
    assert better["own"] == "trustvlm"
    assert better["high"] < 0
    assert better["p_value"] <= 0.05
    said = " ".join(done.err.split())
    assert "the score auto_star would serve better here than trustvlm: AURC x1000" in said
    assert "Choose on one labelled set and report on another" in said
    assert "The score auto_star would serve better here" in (report / "index.html").read_text()
    trustvlm("fit", shots, "-o", model, "--vlm", "offline")
    done = trustvlm("evaluate", model, photos, "--json", tmp_path / "e.json")
    assert "would serve better" not in done.err
    assert json.loads((tmp_path / "e.json").read_text())["better_score"] is None


def test_adapting_is_named_in_the_artefact(trustvlm, shots, photos, tmp_path):
    fit = ["fit", shots, "-o", tmp_path / "m.trust", "--vlm", "offline", "--adapt"]
    assert trustvlm(*fit, "--score", "auto").code == 0
    assert score_of(tmp_path / "m.trust") == "auto_adapted"
    done = trustvlm("predict", tmp_path / "m.trust", photos, "--quiet")
    assert done.code == 0
    assert len(rows(done.out)) == 15


def test_adapting_once_is_calibrated_and_used_in_bulk(trustvlm, shots, photos, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    target = write_class_folders(tmp_path / "target", per_class=5, seed=3)
    labelled = write_class_folders(tmp_path / "labelled", per_class=10, seed=5)
    model = tmp_path / "m.trust"
    fit = ["fit", shots, "-o", model, "--vlm", "offline", "--score", "auto_star"]
    both = trustvlm(*fit, "--adapt", "--adapt-to", target)
    assert (both.code, "either --adapt" in both.err) == (2, True)
    assert trustvlm(*fit, "--adapt-to", target).code == 0
    manifest = json.loads((model / "manifest.json").read_text())
    assert manifest["score"]["name"] == "auto_adapted_star"
    assert len(manifest["adaptation"]["images"]) == 15
    leaked = trustvlm("calibrate", model, target, "--risk", "0.3")
    assert (leaked.code, "among the images adapted to" in leaked.err) == (1, True)
    assert trustvlm("calibrate", model, labelled, "--risk", "0.3").code == 0
    done = trustvlm("predict", model, photos, "--quiet")
    table = rows(done.out)
    assert (len(table), {row["decision"] for row in table}) == (15, {"accept"})
    assert trustvlm("predict", model, photos, "-q", "-o", f"{tmp_path}/out/").code == 0
    bulk = parquet.read_table(tmp_path / "out").to_pylist()
    expected = {row["path"]: (row["label"], float(row["confidence"])) for row in table}
    for row in bulk:
        label, confidence = expected[row["path"]]
        assert (row["label"], row["confidence"]) == (label, pytest.approx(confidence, rel=1e-5))
    alone = trustvlm("predict", model, photos / "red" / "00.png", "--quiet")
    assert float(rows(alone.out)[0]["confidence"]) == pytest.approx(
        expected["red/00.png"][1], rel=1e-5
    )


def test_fit_then_predict_gives_one_row_per_image(trustvlm, shots, photos, tmp_path):
    done = trustvlm("fit", shots, "-o", tmp_path / "m.trust", "--vlm", "offline")
    assert done.code == 0, done.err
    assert "3 classes, 12 example images, score auto_star" in done.err
    assert "not CLIP" in done.err
    done = trustvlm("predict", tmp_path / "m.trust", photos, "-o", tmp_path / "out.csv")
    assert done.code == 0, done.err
    assert done.out == ""
    listed = rows((tmp_path / "out.csv").read_text())
    assert [row["path"] for row in listed] == [
        f"{c}/{i:02d}.png" for c in sorted(COLOURS) for i in range(5)
    ]
    assert {row["decision"] for row in listed} <= {"accept", "review"}
    assert all(row["reason"] and not row["error"] and not row["p_correct"] for row in listed)
    assert "uncalibrated" in done.err


def test_fit_says_what_it_selected_and_on_what(trustvlm, shots, photos, tmp_path):
    fit = ["fit", shots, "-o", tmp_path / "m.trust", "--vlm", "offline", "--score", "trustvlm_star"]
    done = trustvlm(*fit, "--select", "loo", "--finetune")
    assert done.code == 0, done.err
    assert "settings: weight 1, temperature 0.01, selected on 12 shots, each held out" in done.err
    done = trustvlm(*fit, "--select-on", photos)
    assert done.code == 0, done.err
    assert "selected on 15 other images" in done.err
    assert trustvlm("evaluate", tmp_path / "m.trust", photos).code == 1
    done = trustvlm(*fit, "--select-on", shots)
    assert done.code == 1
    assert "also among the shots" in done.err


def test_crossvalidate_says_whether_fine_tuning_helps(trustvlm, fitted, tmp_path):
    done = trustvlm("crossvalidate", fitted, "--folds", 2, "--json", tmp_path / "cv.json")
    assert done.code == 0, done.err
    assert "12 examples, 2 folds" in done.out
    assert "trustvlm_star_f" in done.out
    assert re.search(r"fine-tuning: \S+ points of accuracy, .* beyond chance", done.err)
    listed = json.loads((tmp_path / "cv.json").read_text())
    assert {row["score"] for row in listed["rows"]} == {
        "auto_star",
        "trustvlm_star",
        "trustvlm_star_f",
    }
    every = trustvlm("crossvalidate", fitted, "--scores", "all", "--quiet")
    assert every.code == 0
    assert every.err == ""
    for name in names():
        assert name in every.out
    assert trustvlm("crossvalidate", fitted, "--scores", "msp", "--folds", 1).code == 2


def test_predict_prints_csv_and_quiet_prints_nothing_else(trustvlm, fitted, photos):
    done = trustvlm("predict", fitted, photos, "--quiet")
    assert done.code == 0
    assert done.err == ""
    assert len(rows(done.out)) == 15


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_formats_agree(trustvlm, fitted, photos, tmp_path, ending):
    target = tmp_path / f"out.{ending}"
    assert trustvlm("predict", fitted, photos, "-o", target).code == 0
    if ending == "csv":
        labels = [row["label"] for row in rows(target.read_text())]
    elif ending == "jsonl":
        labels = [json.loads(line)["label"] for line in target.read_text().splitlines()]
    else:
        parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
        labels = parquet.read_table(target)["label"].to_pylist()
    assert labels == [row["label"] for row in rows(trustvlm("predict", fitted, photos).out)]


def test_broken_files_are_rows_and_the_exit_code_says_so(trustvlm, fitted, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    broken = write_broken_images(folder)
    assert len(broken) >= 30
    good = [f"good{i}.png" for i in range(3)]
    for i, name in enumerate(good):
        picture(COLOURS["red"], seed=i).save(folder / name)
    done = trustvlm("predict", fitted, folder)
    assert done.code == 3
    listed = {row["path"]: row for row in rows(done.out)}
    assert sorted(listed) == sorted([*broken, *good])
    for name in broken:
        assert listed[name]["decision"] == "error"
        assert name in listed[name]["error"]
    for name in good:
        assert listed[name]["decision"] != "error"
        assert listed[name]["confidence"]


def test_the_limit_on_pixels_is_an_option_wherever_images_are_read(trustvlm, fitted, tmp_path):
    commands = typer.main.get_command(app).commands
    takes = {
        name: next((p for p in command.params if p.name == "max_pixels"), None)
        for name, command in commands.items()
    }
    reading = {"label", "fit", "calibrate", "predict", "verify", "evaluate", "advise", "monitor"}
    reading |= {"update"}
    assert {name for name, option in takes.items() if option is not None} == reading
    assert {takes[name].default for name in reading} == {Limits().max_pixels}
    # What another test has put into the store is not decoded again.
    photos = write_class_folders(tmp_path / "new", per_class=1, seed=77)
    done = trustvlm("predict", fitted, photos, "--max-pixels", 100)
    assert done.code == 3
    assert all("--max-pixels" in row["error"] for row in rows(done.out))


def test_evaluate_writes_table_json_and_page(trustvlm, fitted, photos, tmp_path):
    report, numbers = tmp_path / "report", tmp_path / "numbers.json"
    done = trustvlm("evaluate", fitted, photos, "--report", report, "--json", numbers)
    assert done.code == 0, done.err
    listed = json.loads(numbers.read_text())
    assert {row["score"] for row in listed["rows"]} == set(names())
    for name in names():
        assert name in done.out
    assert set(listed["rows"][0]) == {
        "dataset",
        "score",
        "shots",
        "draw",
        "accuracy",
        "aurc",
        "eaurc",
        "augrc",
        "auroc",
        "fpr95",
        "aupr_success",
        "aupr_error",
        "n",
    }
    page = (report / "index.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "not CLIP" in page


def test_evaluate_refuses_shots_unless_told(trustvlm, fitted, shots):
    done = trustvlm("evaluate", fitted, shots)
    assert done.code == 1
    assert "12 of 12 images are also among the shots" in done.err
    assert "--exclude-shots" in done.err


def test_models_scores_and_cache_say_what_there_is(trustvlm, fitted):
    assert "clip-vit-b16" in trustvlm("models").out
    assert {p["name"] for p in json.loads(trustvlm("models", "--json").out)} >= {"offline", "same"}
    assert {s["name"] for s in json.loads(trustvlm("scores", "--json").out)} == set(names())
    assert "arXiv 2505.23745" in trustvlm("scores").out
    assert "Sees text (logits), shots, vision encoder; keeps the VLM's label." in (
        trustvlm("scores").out
    )
    assert re.search(
        r"embeddings, .*on disk\n(  .*\n)*  [0-9a-f]{12}  offline: ", trustvlm("cache", "show").out
    )


def test_cache_can_be_pruned_and_cleared(trustvlm, fitted, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("TRUSTVLM_CACHE", str(tmp_path / "own"))
    trustvlm("predict", fitted, photos)
    assert trustvlm("cache", "prune", "--older-than", "30d").out == "0 embeddings removed\n"
    assert trustvlm("cache", "clear", "--yes").out == "30 embeddings removed\n"
    assert trustvlm("cache", "prune").code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["predict", "nothing.trust", "."], 1, "nothing.trust is not a .trust directory"),
        (["predict", "{fitted}", "nowhere/"], 1, "nowhere"),
        (["predict", "{fitted}", "{photos}", "-o", "out.xlsx"], 1, "end in .csv, .jsonl"),
        (["fit", "nowhere", "-o", "x.trust", "--vlm", "offline"], 1, "nowhere"),
        (["fit", "{shots}", "-o", "x.trust", "--vlm", "clip-vit-b17"], 1, "clip-vit-b16"),
        (
            ["fit", "{shots}", "-o", "x.trust", "--vlm", "offline", "--vision", "clip-vit-b16"],
            1,
            "It is a VLM",
        ),
        (["fit", "{shots}", "-o", "x.trust", "--vlm", "offline", "--score", "msb"], 1, "mean msp"),
        (
            ["fit", "{shots}", "-o", "x.trust", "--vlm", "offline", "--set", "weight"],
            2,
            "NAME=VALUE",
        ),
        (["fit", "{shots}", "-o", "{photos}", "--vlm", "offline"], 1, "not overwritten"),
        (["fit", "{shots}"], 2, "--output"),
        (["predict"], 2, "MODEL.trust"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_errors_are_one_message_without_a_traceback(
    trustvlm, fitted, shots, photos, tmp_path, monkeypatch, arguments, code, message
):
    monkeypatch.chdir(tmp_path)
    names = {"fitted": fitted, "shots": shots, "photos": photos}
    done = trustvlm(*(a.format(**names) for a in arguments))
    assert done.code == code
    assert message in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(trustvlm):
    done = trustvlm("predict", "nothing.trust", ".", "--debug")
    assert done.code == 1
    assert "Traceback" in done.err


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["fit", "--help"]])
def test_help_needs_none_of_the_heavy_libraries(arguments):
    code = (
        f"import sys; from trustvlm.cli import main; sys.argv = ['trustvlm', *{arguments!r}]\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'onnxruntime', 'scipy', 'numpy'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == "[]\n"


def test_predict_imports_no_torch_for_models_that_need_none(fitted, photos):
    code = (
        "import sys; from trustvlm.cli import main\n"
        f"sys.argv = ['trustvlm', 'predict', {str(fitted)!r}, {str(photos)!r}, '--quiet']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == "[]\n"
    assert done.stdout.count("\n") == 16


def test_the_module_runs_and_starts_without_heavy_imports():
    code = (
        "import sys; from trustvlm.cli import main; sys.argv = ['trustvlm', '--version']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'onnxruntime', 'matplotlib', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-m", "trustvlm", "--version"], check=True, capture_output=True
    )
    assert done.stdout.decode().startswith("trustvlm ")


def test_a_file_that_is_none_is_not_compared(trustvlm, tmp_path):
    done = trustvlm("report", "compare", tmp_path / "missing.json", tmp_path / "other.json")
    assert done.code == 1
    said = " ".join(done.err.split())
    assert "missing.json" in said
    assert "there is no such file: check the path." in said
    assert "Errno" not in said


def test_two_evaluations_are_compared(trustvlm, fitted, photos, tmp_path):
    trustvlm("evaluate", fitted, photos, "--json", tmp_path / "a.json", "--quiet")
    same = [tmp_path / "a.json", tmp_path / "a.json"]
    page, numbers = tmp_path / "new" / "page.html", tmp_path / "numbers.json"
    done = trustvlm(
        "report", "compare", *same, "--score-a", "msp", "-o", page, "--json", numbers,
        "--resamples", 50, "--svg", tmp_path / "new" / "figure.svg",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "paired by content" in done.out
    assert "auto_star against msp" in page.read_text("utf-8")
    assert (tmp_path / "new" / "figure.svg").read_text("utf-8").strip() in page.read_text("utf-8")
    assert json.loads(numbers.read_text())["n"] == 15
    done = trustvlm("report", "compare", *same, "--score", "nonsense")
    assert (done.code, "nonsense" in done.err, "Traceback" in done.err) == (1, True, False)


def test_a_profile_goes_to_standard_error_and_changes_no_row(trustvlm, fitted, photos):
    plain = trustvlm("predict", fitted, photos)
    profiled = trustvlm("predict", fitted, photos, "--profile")
    assert profiled.out == plain.out
    assert "profile: 15 images" in profiled.err
    assert "writing" in profiled.err
    assert "forward passes took" in profiled.err


def test_a_profile_of_a_folder_sums_up_the_parts(trustvlm, fitted, photos, tmp_path):
    into = ("--part-size", "4", "-o", f"{tmp_path / 'parts'}/")
    done = trustvlm("predict", fitted, photos, "--profile", *into)
    assert "profile: 15 images" in done.err
    for stage in ("encoder vlm", "encoder vision", "scores", "writing", "decoding", "all else"):
        assert stage in done.err
    again = trustvlm("predict", fitted, photos, "--profile", *into)
    assert "profile: 0 images" in again.err
    done = trustvlm("predict", fitted, photos, "--profile", *into, "--engine", "ray")
    assert (done.code, "--profile is for one worker" in done.err) == (2, True)


def test_fit_says_that_a_folder_is_in_the_way_before_it_encodes(trustvlm, tmp_path):
    (tmp_path / "extension").mkdir()
    (tmp_path / "extension" / "manifest.json").write_text('{"manifest_version": 3}')
    (tmp_path / "extension" / "popup.js").write_text("precious")
    # There are no shots: were they looked for first, the message would be about them.
    done = trustvlm("fit", tmp_path / "none", "-o", tmp_path / "extension", "--vlm", "offline")
    assert done.code == 1
    assert "extension exists and is not a .trust directory: 'popup.js'" in done.err
    assert "not overwritten" in done.err
    assert sorted(p.name for p in (tmp_path / "extension").iterdir()) == [
        "manifest.json",
        "popup.js",
    ]


def test_calibrate_replaces_no_foreign_folder_either(trustvlm, fitted, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "only.jpg").write_text("precious")
    out = ("-o", tmp_path / "photos")
    done = trustvlm("calibrate", fitted, tmp_path / "none", *out)
    assert done.code == 1
    assert "photos exists and is not a .trust directory: 'only.jpg'" in done.err


def test_the_docs_table_of_what_scores_see_is_that_of_the_registry(trustvlm):
    page = (Path(__file__).parents[2] / "docs" / "compare-scores.md").read_text("utf-8")
    printed = trustvlm("scores", "--markdown").out
    table = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(names())
    assert "\n".join(["", *table, ""]) in page, (
        "put the output of `trustvlm scores --markdown` there"
    )
