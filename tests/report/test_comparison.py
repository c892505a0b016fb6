"""Two evaluations compared: pairing, tests against independent versions, page and table."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from evaluations import make_evaluation
from trustvlm import metrics
from trustvlm.exceptions import InputError
from trustvlm.pipeline.evaluate import evaluation_json
from trustvlm.report import compare_runs, comparison_table, read_run, render_comparison

HASHES = tuple(f"{i:064x}" for i in range(80))
HOSTILE = "<script>alert('1')</script>\"'&<b>"


def write(path, **settings):
    evaluation = make_evaluation(**{"n": 80, "hashes": HASHES, **settings})
    path.write_text(evaluation_json(evaluation), "utf-8")
    return path


@pytest.fixture
def files(tmp_path):
    return (
        write(tmp_path / "old.json", score="msp", noise=2.5),
        write(tmp_path / "new.json", noise=1.0),
    )


@pytest.fixture
def comparison(files):
    return compare_runs(*map(read_run, files), n_resamples=400)


def changed(file, change):
    told = json.loads(file.read_text("utf-8"))
    change(told)
    file.write_text(json.dumps(told), "utf-8")
    return file


def own(told):
    return told["images"]["scores"]["trustvlm"]


class TestReading:
    def test_a_run_is_what_the_score_said(self, files):
        evaluation = make_evaluation(n=80, noise=1.0)
        run = read_run(files[1])
        assert (run.name, run.score, run.dataset, len(run)) == ("new", "trustvlm", "photos", 80)
        np.testing.assert_array_equal(run.confidence, evaluation.results["trustvlm"].confidence)
        np.testing.assert_array_equal(run.correct, evaluation.correct())
        names = evaluation.class_names
        assert run.truths == tuple(names[i] for i in evaluation.labels)
        other = read_run(files[1], "msp")
        np.testing.assert_array_equal(other.confidence, evaluation.results["msp"].confidence)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda told: told.pop("images"), "evaluate again, with --json"),
            (lambda told: told["images"]["label"].pop(), "80 images"),
            (lambda told: told["images"]["label"].append(0), "81 images"),
            (lambda told: told["images"]["label"].__setitem__(0, 99), "IndexError"),
            (lambda told: told["images"]["label"].__setitem__(0, -1), "negative"),
            (lambda told: told["images"].pop("path"), "path"),
            (
                lambda told: told["images"]["scores"]["trustvlm"]["confidence"].__setitem__(
                    0, 1e999
                ),
                "not finite",
            ),
            (lambda told: told["images"]["scores"].pop("trustvlm"), "trustvlm_star"),
        ],
    )
    def test_a_damaged_file_is_one_message(self, files, change, message):
        with pytest.raises(InputError, match=re.escape(message.replace("80 images", "79 images"))):
            read_run(changed(files[1], change))

    @pytest.mark.parametrize("content", ["", "[1]", "{", '{"rows": []}'])
    def test_other_files_are_refused(self, tmp_path, content):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(InputError, match=r"evaluate --json"):
            read_run(tmp_path / "x.json")

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda file: None, "there is no such file: check the path."),
            (lambda file: file.mkdir(), "it is a folder: name the file inside it."),
            (lambda file: file.write_text("no"), "its content is no JSON: evaluate again"),
            (lambda file: file.write_bytes(b"\xff"), "its content is no JSON: evaluate again"),
            (lambda file: file.write_text("[" * 99_999), "its content is no JSON: evaluate again"),
            (lambda file: file.write_text('"no"'), "but it does not: evaluate again, with --json."),
        ],
    )
    def test_each_says_what_to_do(self, tmp_path, make, message):
        file = tmp_path / "x.json"
        make(file)
        with pytest.raises(InputError) as caught:
            read_run(file)
        assert f"Expected {file} to " in str(caught.value)
        assert message in str(caught.value)
        assert "Errno" not in str(caught.value)


class TestPairing:
    def test_content_beats_order_and_names(self, files):
        a = read_run(files[0])
        order = np.random.default_rng(0).permutation(80)

        def shuffle(told):
            images = told["images"]
            for column in ("sha256", "label"):
                images[column] = [images[column][i] for i in order]
            images["path"] = [f"elsewhere/{i}.png" for i in range(80)]
            for said in images["scores"].values():
                for name, column in said.items():
                    said[name] = [column[i] for i in order]

        b = read_run(changed(files[1], shuffle))
        comparison = compare_runs(a, b, n_resamples=10)
        assert (comparison.n, comparison.pairing.by) == (80, "content")
        assert [a.hashes[i] for i in comparison.pairing.a] == [
            b.hashes[j] for j in comparison.pairing.b
        ]
        plain = compare_runs(a, read_run(write(files[1], noise=1.0)), n_resamples=10)
        assert [d.difference for d in comparison.differences] == pytest.approx(
            [d.difference for d in plain.differences]
        )

    def test_paths_serve_where_contents_are_not_known(self, files):
        def forget(told):
            told["images"]["sha256"] = [None] * 80
            told["images"]["path"][3] = "other.png"
            told["images"]["label"][5] = (told["images"]["label"][5] + 1) % 5

        comparison = compare_runs(
            read_run(changed(files[0], forget)), read_run(files[1]), n_resamples=10
        )
        assert (comparison.n, comparison.pairing.by, comparison.pairing.relabelled) == (
            79,
            "path",
            1,
        )
        assert (comparison.pairing.only_a, comparison.pairing.only_b) == (1, 1)
        text = render_comparison(comparison)
        assert "Left out: 1 image of old and 1 image of new" in text
        assert "paired by path" in text
        assert "1 image of both runs have another true label" in text

    def test_copies_are_paired_one_to_one(self, files):
        def copy(told):
            told["images"]["sha256"][1] = told["images"]["sha256"][0]

        comparison = compare_runs(
            read_run(changed(files[0], copy)), read_run(changed(files[1], copy)), n_resamples=10
        )
        assert comparison.n == 80
        assert comparison.pairing.b.tolist() == list(range(80))

    def test_nothing_in_common_is_an_error(self, files):
        def replace(told):
            told["images"]["sha256"] = [f"{i:064x}" for i in range(100, 180)]

        with pytest.raises(InputError, match="none in common, by content"):
            compare_runs(read_run(files[0]), read_run(changed(files[1], replace)))


class TestNumbers:
    def test_metrics_and_tests_are_those_of_the_metrics(self, comparison):
        for one in comparison.differences:
            metric = getattr(metrics, one.metric)
            a = metric(comparison.a.confidence, comparison.a.correct)
            b = metric(comparison.b.confidence, comparison.b.correct)
            assert (one.a, one.b) == (pytest.approx(a), pytest.approx(b))
            assert one.difference == pytest.approx(b - a)
            assert one.low <= one.difference <= one.high
        paired = metrics.paired_bootstrap(
            comparison.b.confidence,
            comparison.a.confidence,
            comparison.b.correct,
            comparison.a.correct,
            "auroc",
            n_resamples=400,
        )
        assert comparison.of("auroc").p_value == paired.p_value

    def test_the_leading_metric_keeps_its_p_and_the_others_share(self, comparison):
        assert comparison.of("aurc").p_adjusted == comparison.of("aurc").p_value
        others = [one for one in comparison.differences if one.metric != "aurc"]
        smallest = min(others, key=lambda one: one.p_value)
        assert smallest.p_adjusted == pytest.approx(min(1, 7 * smallest.p_value))
        assert all(one.p_adjusted >= one.p_value for one in others)

    def test_switched_labels_against_a_plain_count(self, comparison):
        pairs = list(zip(comparison.a.correct.tolist(), comparison.b.correct.tolist(), strict=True))
        switched = comparison.switched
        assert switched.both == pairs.count((True, True))
        assert switched.only_a == pairs.count((True, False))
        assert switched.only_b == pairs.count((False, True))
        assert switched.neither == pairs.count((False, False))
        # The exact binomial tail, written out.
        from math import comb

        n, k = switched.only_a + switched.only_b, min(switched.only_a, switched.only_b)
        tail = sum(comb(n, i) for i in range(k + 1)) / 2**n
        assert switched.p_value == pytest.approx(min(1, 2 * tail))

    def test_a_run_against_itself_differs_in_nothing(self, files):
        run = read_run(files[1])
        comparison = compare_runs(run, run, n_resamples=50)
        assert all(one.difference == 0 and not one.significant for one in comparison.differences)
        assert (comparison.a.name, comparison.b.name) == ("A (new)", "B (new)")
        text = render_comparison(comparison)
        assert "The AURC is the same" in text
        assert "by both runs or by neither" in text

    def test_no_difference_is_rarely_called_one(self, tmp_path):
        # Two scores of equal worth on the same images: the p-value of AURC is near uniform.
        rng = np.random.default_rng(5)
        base = read_run(write(tmp_path / "a.json"))
        called = 0
        for _ in range(100):
            noise = rng.normal(size=(3, 80))
            correct = rng.random(80) < 0.7
            runs = [
                type(base)(**{**vars(base), "confidence": noise[0] + noise[k], "correct": correct})
                for k in (1, 2)
            ]
            called += compare_runs(*runs, n_resamples=100).of("aurc").significant
        assert called <= 14

    def test_undefined_metrics_are_said_to_be(self, tmp_path):
        files = [write(tmp_path / f"{name}.json", right=True, seed=name) for name in (0, 1)]
        comparison = compare_runs(*map(read_run, files), n_resamples=20)
        assert np.isnan(comparison.of("auroc").difference)
        assert comparison.to_dict()["differences"][4]["p_value"] is None
        json.dumps(comparison.to_dict(), allow_nan=False)
        assert not re.search(r"\bnan\b", render_comparison(comparison))


def printed(comparison):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(comparison_table(comparison))
    return console.export_text()


def test_the_table_fits_a_terminal_and_tells_who_is_better(comparison):
    text = printed(comparison)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    line = next(line for line in text.splitlines() if line.strip().startswith("AURC"))
    assert line.split()[-1] == "new"
    assert f"{1000 * comparison.of('aurc').a:.2f}" in line


def test_the_page_says_the_same_and_is_the_same_every_time(comparison):
    text = render_comparison(comparison)
    assert render_comparison(comparison) == text
    assert "By AURC new is better" in text
    assert f"{1000 * comparison.of('aurc').difference:.2f}" in text
    assert len(re.findall(r"<tr><th scope=\"row\" class=\"path\">", text)) == (
        comparison.switched.only_a + comparison.switched.only_b
    )
    assert set(re.findall(r"https?://[^\"'<> ]+", text)) == {
        "https://arxiv.org/abs/2505.23745",
        "http://www.w3.org/2000/svg",
    }


def test_names_from_data_stay_text(tmp_path):
    names = (HOSTILE, "{{ 7 * 7 }}", "</style>")
    settings = {"class_names": names, "dataset": HOSTILE}
    files = [write(tmp_path / f"{i}.json", seed=i, noise=2.5, **settings) for i in (0, 1)]

    def hostile(told):
        told["model"]["models"] = {HOSTILE: {"spec": HOSTILE}, "vlm": HOSTILE}
        told["images"]["path"] = [HOSTILE] * 80

    comparison = compare_runs(*[read_run(changed(f, hostile)) for f in files], n_resamples=20)
    text = render_comparison(comparison)
    assert text.count("<script>") == 1
    assert "<b>" not in text
    assert "{{ 7 * 7 }}" in text
