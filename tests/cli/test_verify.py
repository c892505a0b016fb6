"""`trustvlm verify`, and what goes with it."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys

import pytest

from pictures import write_class_folders


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """A table of labels of which every fourth is wrong, and the folder of their images."""
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    folder = tmp_path_factory.mktemp("verify")
    photos = write_class_folders(folder / "checked", per_class=12, seed=9)
    files = sorted(photos.rglob("*.png"))
    names = ["blue", "green", "red"]
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "said", "label_confidence"])
        for i, file in enumerate(files):
            label = names[(names.index(file.parent.name) + (i % 4 == 0)) % 3]
            writer.writerow([file.relative_to(folder), label, 0.9])
        writer.writerow([files[0].relative_to(folder).with_name("gone.png"), "red", ""])
        writer.writerow([files[1].relative_to(folder), "lime", ""])
    return folder


def test_from_examples_to_verdicts_without_a_vlm(trustvlm, shots, labels, tmp_path) -> None:
    model, certified, out = (tmp_path / name for name in ("m.trust", "c.trust", "out.csv"))
    fitted = trustvlm("fit", shots, "-o", model, "--vlm", "none", "--vision", "offline")
    assert fitted.code == 0, fitted.err
    assert f"score auto. Next: trustvlm verify {model} LABELS" in fitted.err
    columns = ("--path-column", "file", "--label-column", "said")
    done = trustvlm("verify", model, labels / "labels.csv", *columns, "-o", out)
    assert done.code == 3, done.err  # one picture is missing
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["decision"] for row in rows[-2:]] == ["error", "review"]
    assert "no class of the model" in rows[-1]["reason"]
    wrong = [row for i, row in enumerate(rows[:-2]) if i % 4 == 0]
    assert sum(row["runner_up"] == row["path"].split("/")[-2] for row in wrong) >= 7
    assert "decisions are uncalibrated" in done.err

    (tmp_path / "words.csv").write_text("label,class\nlime,green\n")
    done = trustvlm(
        *("verify", model, labels / "labels.csv", *columns, "-o", out),
        *("--synonyms", tmp_path / "words.csv", "--unknown-labels", "error"),
    )
    assert list(csv.DictReader(out.read_text().splitlines()))[-1]["label"] == "green"

    (tmp_path / "given.csv").write_text(
        "path,label\n" + "".join(f"{labels / row['path']},{row['label']}\n" for row in rows[:-2])
    )
    done = trustvlm(
        *("calibrate", model, labels / "checked", "--given-labels", tmp_path / "given.csv"),
        *("--risk", "0.2", "--confidence", "0.8", "--no-gate", "-o", certified),
    )
    assert done.code == 0, done.err
    assert "36 labelled images of checked: 27 of the labels are right." in done.out
    done = trustvlm("verify", certified, tmp_path / "given.csv", "-o", out)
    assert done.code == 0, done.err
    assert "at most 20 % of what is accepted is wrong" in done.err
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert {row["decision"] for row in rows} == {"accept", "review"}
    # The options of these commands find the same labels in the table as it came.
    given = ("--given-labels", labels / "labels.csv", "--given-column", "said")
    paths = tmp_path / "truth.csv"
    paths.write_text(
        "file,label\n"
        + "".join(f"{labels / row['path']},{row['path'].split('/')[-2]}\n" for row in rows)
    )
    given = (*given, "--path-column", "file", "--synonyms", tmp_path / "words.csv")
    twice = trustvlm("evaluate", model, paths, *given)
    assert twice.code == 1
    assert "one labeller at a time" in twice.err
    table = (labels / "labels.csv").read_text().splitlines()
    (tmp_path / "once.csv").write_text(
        "\n".join(table[:-1]).replace("checked/", f"{labels}/checked/")
    )
    given = ("--given-labels", tmp_path / "once.csv", *given[2:])
    measured = trustvlm("evaluate", model, paths, *given, "--json", tmp_path / "e.json")
    assert measured.code == 0, measured.err
    assert "Judged are labels from elsewhere" in measured.out
    rows_of = json.loads((tmp_path / "e.json").read_text())["rows"]
    assert {(row["n"], row["accuracy"]) for row in rows_of} == {(36, 0.75)}
    advised = trustvlm("advise", model, paths, *given)
    assert advised.code == 0, advised.err
    assert "tried out on 36 labelled images" in advised.out
    watched = trustvlm("monitor", certified, paths, *given, "--json", tmp_path / "m.json")
    assert watched.code == 0, watched.err
    assert set(json.loads((tmp_path / "m.json").read_text())["streams"]) == {
        "confidence",
        "typicality",
    }
    refused = trustvlm("predict", model, labels / "checked")
    assert refused.code == 1
    assert "trustvlm verify" in refused.err


def test_what_needs_a_vlm_says_so(trustvlm, photos) -> None:
    done = trustvlm("label", photos, "--classes", "red,green", "--vlm", "none")
    assert done.code == 2
    assert "trustvlm fit --vlm none" in " ".join(done.err.split())


def test_a_data_set_is_checked_against_itself(trustvlm, labels, tmp_path) -> None:
    out, table = tmp_path / "out.csv", tmp_path / "all.csv"
    rows = list(csv.DictReader((labels / "labels.csv").read_text().splitlines()))[:-2]
    table.write_text(
        "path,label\n" + "".join(f"{labels / row['file']},{row['said']}\n" for row in rows)
    )
    done = trustvlm(
        *("verify", "--cross-validate", table, "--vision", "offline", "--folds", "4", "-o", out)
    )
    assert done.code == 0, done.err
    assert "judged by the images of other folds" in done.err
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == 36
    wrong = [i % 4 == 0 for i in range(36)]
    reviewed = [row["decision"] == "review" for row in rows]
    assert sum(r for r, w in zip(reviewed, wrong, strict=True) if w) >= 8
    assert sum(r for r, w in zip(reviewed, wrong, strict=True) if not w) <= 4
    for extra in ((tmp_path / "m.trust", table), ("--risk", "0.1")):
        refused = trustvlm("verify", *extra, "--cross-validate", table)
        assert refused.code != 0
    neither = trustvlm("verify", tmp_path / "m.trust")
    assert "--cross-validate DATA" in neither.err


def test_labellers_are_compared_and_probabilities_read(trustvlm, shots, labels, tmp_path) -> None:
    model, out, table = (tmp_path / name for name in ("m.trust", "out.csv", "two.csv"))
    trustvlm("fit", shots, "-o", model, "--vlm", "none", "--vision", "offline")
    rows = list(csv.DictReader((labels / "labels.csv").read_text().splitlines()))[:-2]
    lines = ["path,ann,bob,red,green,blue"]
    for row in rows:
        p = ["0.8" if row["said"] == name else "0.1" for name in ("red", "green", "blue")]
        right = row["file"].split("/")[-2]
        lines.append(",".join([str(labels / row["file"]), right, row["said"], *p]))
    table.write_text("\n".join(lines))
    two = ("--label-column", "ann", "--label-column", "bob")
    done = trustvlm("verify", model, table, *two, "-o", out)
    assert done.code == 0, done.err
    assert "ann and bob give the same label to 75.0\N{NO-BREAK SPACE}% of 36 images" in done.out
    assert "Estimated right" in done.out
    assert len(list(csv.DictReader(out.read_text().splitlines()))) == 72
    assert trustvlm("verify", model, table, *two).code == 2  # the rows need a file of their own
    done = trustvlm("verify", model, table, *two, "--label-column", "carl", "-o", out)
    assert (done.code, "a column 'carl' with something in it" in done.err) == (1, True)
    done = trustvlm("verify", model, table, "--probabilities", "-o", out)
    assert done.code == 0, done.err
    verdicts = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["label"] for row in verdicts] == [row["said"] for row in rows]
    measured = trustvlm(
        *("evaluate", model, labels / "checked", "--given-labels", table, "--probabilities"),
        *("--json", tmp_path / "e.json"),
    )
    assert measured.code == 0, measured.err
    assert {row["accuracy"] for row in json.loads((tmp_path / "e.json").read_text())["rows"]} == {
        0.75
    }


def test_examples_alone_need_neither_torch_nor_tokenizers(shots, labels, tmp_path) -> None:
    model, out = tmp_path / "m.trust", tmp_path / "out.csv"
    fit = ["fit", shots, "-o", model, "--vlm", "none", "--vision", "offline"]
    verify = ["verify", model, labels / "checked", "-o", out]
    blocked = ("torch", "torchvision", "transformers", "tokenizers", "pandas", "sklearn", "fsspec")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"  # their import fails
        "from trustvlm.cli import main\n"
        "main()"
    )
    for arguments in (fit, verify):
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == 36
    assert sum(row["decision"] == "accept" for row in rows) > 20


def test_wrong_usage_ends_with_2(trustvlm, fitted):
    for wrong, said in (
        ((), "Expected MODEL.trust and LABELS"),
        ((fitted, "labels.csv", "--folds", "3"), "--cross-validate"),
        ((fitted, "labels.csv", "--unknown-labels", "eror"), "'review', 'error'"),
    ):
        done = trustvlm("verify", *wrong)
        message = re.sub(r"[\s│]+", " ", done.err)  # it may be broken inside a box
        assert (done.code, said in message) == (2, True), done.err


@pytest.mark.parametrize(
    ("options", "n", "code"),
    [((), 10, 0), (("--unknown-labels", "error"), 10, 3), (("--synonyms", "words.csv"), 15, 0)],
)
def test_given_labels_are_read_as_the_options_say(
    trustvlm, fitted, photos, tmp_path, monkeypatch, options, n, code
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.csv").write_text("label,class\nrot,red\n")
    table, out = tmp_path / "given.csv", tmp_path / "out.json"
    said = {"red": "rot", "green": "green", "blue": "blue"}
    files = sorted(photos.rglob("*.png"))
    table.write_text("path,label\n" + "".join(f"{f},{said[f.parent.name]}\n" for f in files))
    given = ("--given-labels", table, *options)
    done = trustvlm("evaluate", fitted, photos, *given, "--json", out)
    assert done.code == code, done.err
    assert json.loads(out.read_text())["rows"][0]["n"] == n
    assert ("5 images whose given label is no class" in done.err) == (not options)
