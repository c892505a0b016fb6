"""Tables in three formats: the numbers, the marks, and what no name can break."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest

from bench_results import QUALITY, make_results
from trustvlm.benchmark.analysis import analyse, class_gains
from trustvlm.benchmark.results import Results
from trustvlm.benchmark.score_tables import (
    dataset_table,
    difference_table,
    failure_table,
    gain_table,
    metric_table,
    overview_table,
    rank_table,
    shots_table,
    tally_table,
)
from trustvlm.benchmark.statistics import holm
from trustvlm.exceptions import InputError
from trustvlm.metrics import METRICS, paired_bootstrap
from trustvlm.tables import markup
from trustvlm.tables.latex import Paper, escape_latex, render_latex
from trustvlm.tables.metrics import METRIC_COLUMNS, columns_of
from trustvlm.tables.scores import SIGNS, signs_of
from trustvlm.tables.table import Cell, Head, Line, Marking, Table, slug

HOSTILE = r"""<b>&amp; a|b *c* _d_ `e` \f{g} $h$ #i %j ^k ~l "m" [n] é花"""
RESAMPLES = 200


class Cells(HTMLParser):
    """The cells of a table by row, as text."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.open = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag != "wbr":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def markdown_rows(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def latex_rows(text):
    lines = [line for line in text.splitlines() if line.endswith(r"\\") and "caption" not in line]
    return [re.split(r"(?<!\\)&", line[:-2]) for line in lines]


@pytest.fixture(scope="module")
def results():
    return make_results()


@pytest.fixture(scope="module")
def analysis(results):
    return analyse(results, n_resamples=RESAMPLES)


def cell_of(table, label, title):
    column = [head.title for head in table.heads].index(title)
    (line,) = [line for line in table.lines if line.label == label]
    return line.cells[column - 1]


@pytest.mark.parametrize("metric", METRICS)
def test_cells_are_means_over_draws_in_the_papers_units(results, analysis, metric):
    table = metric_table(analysis, metric)
    scale = 1000 if metric in ("aurc", "eaurc", "augrc") else 100
    for dataset in results.datasets:
        for score in results.scores:
            values = [
                scale * row[metric]
                for row in results.rows
                if (row["dataset"], row["score"], row["shots"]) == (dataset, score, 16)
            ]
            cell = cell_of(table, score, dataset)
            assert cell.text == f"{np.mean(values):.2f}"
            sd = np.std(values, ddof=1)
            assert cell.aside == (f"± {sd:.2f}" if sd else "")
    assert ("×1000" in table.caption) == (scale == 1000)
    assert ("in percent" in table.caption) == (scale == 100)


def test_means_and_ranks_are_over_the_data_sets(results, analysis):
    table = metric_table(analysis, "aurc")
    means = {
        score: np.mean(
            [r["aurc"] for r in results.rows if r["score"] == score and r["shots"] == 16]
        )
        for score in results.scores
    }
    for score, mean in means.items():
        assert cell_of(table, score, "Mean").text == f"{1000 * mean:.2f}"
        ranks = []
        for dataset in results.datasets:
            values = {s: analysis.spread("aurc", dataset, s).mean for s in results.scores}
            ranks.append(1 + sum(value < values[score] for value in values.values()))
        assert cell_of(table, score, "Rank").text == f"{np.mean(ranks):.2f}"


def test_the_overview_has_means_of_every_metric_and_one_rank(results, analysis):
    table = overview_table(analysis, "auroc")
    assert [head.title for head in table.heads][-2:] == ["AUPR-error", "Rank"]
    for score in results.scores:
        cell = cell_of(table, score, "AURC")
        values = [
            np.mean([r["aurc"] for r in results.rows if (r["score"], r["draw"], r["shots"])
                     == (score, draw, 16)])
            for draw in (0, 1)
        ]  # fmt: skip
        assert cell.text == f"{1000 * np.mean(values):.2f}"
        rank = analysis.ranks["auroc"].rank_of(score)
        assert cell_of(table, score, "Rank").text == f"{rank:.2f}"
    assert "Rank by AUROC" in table.caption
    assert not any(cell.mark for line in table.lines for cell in line.cells)


def test_captions_and_notes_name_units_convention_shots_draws_and_test(analysis):
    table = metric_table(analysis, "aurc")
    caption = table.caption_with("Bold", "italics")
    for words in (
        "AURC ×1000, lower is better",
        "16 shots a class",
        "± SD over 2 draws",
        "Bold: significantly better than every other score",
        "italics: than all but one (paired bootstrap, 95 %)",
        "▸ reference",
        "† may change labels",
    ):
        assert words in caption
    for words in (
        "standard deviation over 2 draws",
        "Convention exact",
        f"{RESAMPLES:,} resamples",
        "nothing is corrected",
        "†: may change the predicted label.",
    ):
        assert words in table.notes
    judged = (
        "by E-AURC, AUROC, FPR95, AUPR-success and AUPR-error it is then judged on other labels"
    )
    assert judged in dataset_table(analysis, "pets").notes


def every_table(analysis, results):
    gains = class_gains(
        *(results.of(results.settings[0]).samples_of("pets")[s] for s in ("msp", "trustvlm")),
        *results.classes["pets"],
    )
    return [
        *(metric_table(analysis, metric) for metric in analysis.metrics),
        *(difference_table(analysis, metric) for metric in analysis.metrics),
        *(shots_table(analysis, metric) for metric in analysis.metrics),
        *(dataset_table(analysis, dataset) for dataset in results.datasets),
        overview_table(analysis, "aurc"),
        tally_table(analysis),
        rank_table(analysis),
        gain_table(gains, "pets", "msp", "trustvlm", 0.8),
        failure_table([{**results.rows[0], "score": None, "error": "no folder"}]),
    ]


def test_captions_have_at_most_forty_words_and_the_rest_is_in_the_text(analysis, results):
    for table in every_table(analysis, results):
        caption = table.caption_with("Bold", "underlined")
        assert len(caption.split()) <= 40, caption
        latex, markdown = render_latex(table), markup.render_markdown(table)
        assert escape_latex(caption) in latex
        if table.notes:
            assert rf"\tabletext{{Table~\ref{{tab:{table.name}" in latex
            assert markdown.endswith(f"{markup.escape_markdown(table.notes)}\n")
            assert table.notes in html_text(markup.render_html(table))


def html_text(html):
    parser = HTMLParser()
    texts = []
    parser.handle_data = texts.append
    parser.feed(str(html))
    return "".join(texts)


def test_the_reference_is_marked_otherwise_than_by_test(analysis):
    table = metric_table(analysis, "aurc")
    (own,) = [line for line in table.lines if line.own]
    assert own.label == "trustvlm"
    assert "\n| ▸ trustvlm |" in markup.render_markdown(table)
    assert "\n$\\triangleright$~trustvlm &" in render_latex(table)
    assert '<span class="mark" title="reference">▸</span> trustvlm<' in markup.render_html(table)


def test_marks_follow_the_paired_bootstrap(results, analysis):
    table, checked = metric_table(analysis, "auroc"), 0
    for dataset in results.datasets:
        shown = {s: analysis.spread("auroc", dataset, s).mean for s in results.scores}
        samples = results.of(results.settings[0]).samples_of(dataset)
        for score in results.scores:
            beaten = 0
            for other in set(results.scores) - {score}:
                a, b = samples[score], samples[other]
                test = paired_bootstrap(a[0], b[0], a[1], b[1], "auroc", n_resamples=1000, seed=9)
                # Another seed moves the ends of the interval a little.
                clear = test.low > 0.01 and shown[score] > shown[other]
                near = abs(test.low) <= 0.01
                beaten += clear
                if near:
                    break
            else:
                expected = "best" if beaten == 4 else "second" if beaten == 3 else ""
                assert cell_of(table, score, dataset).mark == expected
                checked += 1
    assert checked > len(results.datasets)


def test_without_samples_nothing_is_marked_or_compared():
    analysis = analyse(make_results(with_samples=False), ["aurc"])
    table = metric_table(analysis, "aurc")
    assert table.marking is None
    assert not any(cell.mark for line in table.lines for cell in line.cells)
    assert "Bold" not in markup.render_markdown(table)
    assert analysis.comparisons == ()


def test_one_draw_has_no_spread_and_says_so():
    table = metric_table(analyse(make_results(draws=1), ["aurc"], n_resamples=50), "aurc")
    assert not any(cell.aside for line in table.lines for cell in line.cells)
    assert "One draw" in table.notes
    assert "SD" not in table.caption


def test_one_data_set_has_no_mean_and_no_rank():
    analysis = analyse(make_results(["pets"]), ["aurc"], n_resamples=50)
    assert [head.title for head in metric_table(analysis, "aurc").heads] == ["Score", "pets"]


def test_one_score_is_a_table_without_marks():
    analysis = analyse(make_results(scores=["trustvlm"]), ["aurc"], n_resamples=50)
    (line,) = metric_table(analysis, "aurc").lines
    assert line.own
    assert not any(cell.mark for cell in line.cells)
    assert not tally_table(analysis).lines


def test_undefined_is_a_dash_in_every_format():
    analysis = analyse(make_results(accuracy=1.1), ["aurc", "auroc"], n_resamples=50)
    table = metric_table(analysis, "auroc")
    assert {cell.text for line in table.lines for cell in line.cells} == {"–"}
    assert "–: undefined" in table.notes
    assert markdown_rows(markup.render_markdown(table))[2][1] == "–"
    assert latex_rows(render_latex(table))[1][1].strip() == "--"
    assert "undefined" in Cells(str(markup.render_html(table))).rows[1][1]
    assert "Without these" in table.notes


def test_a_metric_undefined_in_some_draws_says_in_how_many():
    results = make_results(draws=3)
    rows = [
        {**row, "auroc": None} if (row["dataset"], row["draw"]) == ("pets", 1) else row
        for row in results.rows
    ]
    table = metric_table(analyse(Results(rows), ["auroc"]), "auroc")
    assert cell_of(table, "msp", "pets").aside.endswith("(2/3)")
    assert "(k/n)" in table.notes


def test_failed_cells_are_listed_and_not_dropped():
    results = make_results(draws=1)
    rows = [
        {k: row[k] for k in ("dataset", "score", "shots", "draw")} | {"error": "no | memory"}
        if (row["dataset"], row["score"]) == ("pets", "noise")
        else row
        for row in results.rows
    ]
    results = Results(rows)
    table = metric_table(analyse(results, ["aurc"]), "aurc")
    assert cell_of(table, "noise", "pets").text == "failed"
    assert "2 cells failed" in table.notes
    failures = failure_table(results.failures)
    (line,) = failures.lines
    assert [cell.text for cell in line.cells] == ["noise", "–", "2", "no | memory"]
    assert markdown_rows(markup.render_markdown(failures))[2][4] == r"no \| memory"
    whole = failure_table([{**rows[0], "score": None, "error": "no folder"}])
    assert whole.lines[0].cells[0].text == "all"


def test_dataset_tables_hold_the_same_cells(analysis):
    table = dataset_table(analysis, "pets")
    for metric in analysis.metrics:
        title = METRIC_COLUMNS[metric].title
        for score in QUALITY:
            expected = cell_of(metric_table(analysis, metric), score, "pets")
            assert cell_of(table, score, title) == expected
    assert "120 images" in table.caption


def test_shots_tables_have_a_column_for_each_number(results, analysis):
    table = shots_table(analysis, "aurc")
    assert [head.title for head in table.heads] == ["Score", "1", "16"]
    assert cell_of(table, "msp", "16") == cell_of(metric_table(analysis, "aurc"), "msp", "Mean")


def test_tallies_count_corrected_tests(results, analysis):
    table = tally_table(analysis)
    assert "trustvlm" not in {line.label for line in table.lines}
    counts = dict.fromkeys(("better", "even", "worse"), 0)
    for dataset in results.datasets:
        own = results.of(results.settings[0]).samples_of(dataset)
        tests = {
            score: paired_bootstrap(
                own["trustvlm"][0],
                own[score][0],
                own["trustvlm"][1],
                own[score][1],
                "aurc",
                n_resamples=RESAMPLES,
            )
            for score in QUALITY
            if score != "trustvlm"
        }
        p = dict(zip(tests, holm([f.p_value for f in tests.values()]), strict=True))
        # AURC of trustvlm less that of noise: negative says that noise is worse.
        verdict = (
            "even" if p["noise"] > 0.05 else "worse" if tests["noise"].difference < 0 else "better"
        )
        counts[verdict] += 1
    assert cell_of(table, "noise", "AURC").text == " / ".join(map(str, counts.values()))


def test_differences_have_sign_interval_and_star(results, analysis):
    table = difference_table(analysis, "auroc")
    cell = cell_of(table, "noise", "pets")
    samples = results.of(results.settings[0]).samples_of("pets")
    test = paired_bootstrap(
        samples["trustvlm"][0],
        samples["noise"][0],
        samples["trustvlm"][1],
        metric="auroc",
        n_resamples=RESAMPLES,
    )
    assert cell.value == pytest.approx(-100 * test.difference)
    assert cell.text == f"−{100 * test.difference:.2f}*"
    assert cell.aside == f"[−{100 * test.high:.2f}, −{100 * test.low:.2f}]"
    assert "positive says that the score is better" in table.caption


def test_rank_tables_say_each_test_once(analysis):
    caption = rank_table(analysis).notes
    assert caption.count("Friedman's test") <= len(analysis.metrics)
    assert "independent" in caption


def test_gain_tables_count_images(results):
    samples = results.of(results.settings[0]).samples_of("pets")
    labels, names = results.classes["pets"]
    gains = class_gains(samples["trustvlm"], samples["trustvlm_star"], labels, names)
    table = gain_table(gains, "pets", "trustvlm", "trustvlm_star")
    assert len(table.lines) == 4
    total = sum(line.cells[5].value for line in table.lines)
    assert total == sum(samples["trustvlm_star"][1]) - sum(samples["trustvlm"][1])
    assert "80 %" in gain_table(gains, "pets", "msp", "trustvlm", 0.8).notes


def hostile_table(columns=2, lines=3):
    return Table(
        name="hostile",
        title=HOSTILE,
        caption=HOSTILE,
        heads=(Head(HOSTILE), *(Head(HOSTILE, "%") for _ in range(columns))),
        lines=tuple(
            Line(HOSTILE, tuple(Cell("1.00", "± 0.10", "best", 1.0) for _ in range(columns)))
            for _ in range(lines)
        ),
        marking=Marking(HOSTILE, HOSTILE),
        breaks=(1,),
        notes=HOSTILE,
    )


def test_no_name_breaks_markdown():
    text = markup.render_markdown(hostile_table())
    assert {len(row) for row in markdown_rows(text)} == {3}
    assert not re.search(r"(?<!\\)[<`_#$~]", text.replace("### ", "", 1).replace("|:--|--:|", ""))


def test_no_name_breaks_html():
    text = str(markup.render_html(hostile_table()))
    rows = Cells(text).rows
    assert {len(row) for row in rows} == {3}
    assert rows[1][0] == HOSTILE
    assert rows[1][1] == "1.00 ± 0.10 (best)"
    assert "<b>" not in text


def test_no_name_breaks_latex():
    text = render_latex(hostile_table()).partition("#1\\par}\n")[2]
    assert {len(row) for row in latex_rows(text)} == {3}
    bare = re.sub(r"\\[\\{}$&#%_]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert "#" not in bare
    assert text.count(r"\midrule") == 2
    for rule in (r"\toprule", r"\bottomrule", r"\textbf{1.00} {\scriptsize $\pm$ 0.10}"):
        assert rule in text


def test_latex_rows_that_begin_like_arguments_are_guarded():
    lines = tuple(Line(label, (Cell("1"),)) for label in ("[a]", "*b"))
    text = render_latex(Table("t", "T", "C.", (Head("x"), Head("y")), lines))
    assert "{}[a] & 1" in text
    assert "{}*b & 1" in text


def wide_table(columns, lines=12, name="wide"):
    rng = np.random.default_rng(0)
    return Table(
        name=name,
        title="Wide",
        caption="Many columns.",
        heads=(Head("Score"), *(Head(f"office_caltech10/test_{i}", "%") for i in range(columns))),
        lines=tuple(
            Line(
                f"a_score_{row}",
                tuple(Cell(f"{v:.2f}", "± 10.25", "best") for v in rng.uniform(10, 999, columns)),
                own=row == 1,
                signs="†‡",
            )
            for row in range(lines)
        ),
    )


def test_latex_tables_take_one_column_both_or_come_in_parts():
    narrow, both, parts = (render_latex(wide_table(n)) for n in (2, 5, 20))
    assert narrow.count(r"\begin{table}[t]") == 1
    assert both.count(r"\begin{table*}[t]") == 1
    assert parts.count(r"\begin{table*}[t]") == 4
    heads = [row for row in latex_rows(parts) if "Score" in row[0]]
    assert [len(row) - 1 for row in heads] == [5, 5, 5, 5]
    assert re.findall(r"\\label\{(.*?)\}", parts) == [f"tab:wide-{i}" for i in (1, 2, 3, 4)]
    assert parts.count(r"continued from Table~\ref{tab:wide-1}.") == 3
    assert parts.count("Many columns.") == 1
    long = render_latex(wide_table(2, lines=100))
    assert long.count(r"\begin{table}[t]") == 3
    assert len([row for row in latex_rows(long) if "score" in row[0]]) == 100
    room = Paper(column=300, text=1000)
    assert render_latex(wide_table(10), room).count(r"\begin{table*}[t]") == 1


def test_long_texts_are_broken_and_rules_stay_at_their_lines():
    words = "a long message about a failure " * 12
    lines = tuple(Line(f"set {i}", (Cell(words, value=words), Cell("1"))) for i in range(20))
    heads = (Head("Data set"), Head("Error", text=True), Head("Cells"))
    text = render_latex(Table("t", "T", "C.", heads, lines, breaks=(3, 15)))
    assert text.count("tabular}[t]{@{}l@{}}") == 20
    assert text.count(r"\end{table") >= 2
    assert text.count(words.split()[0]) >= 20 * 12
    rules = [i for i, row in enumerate(text.splitlines()) if row == r"\midrule"]
    before = [text.splitlines()[i + 1] for i in rules]
    assert [row[:7].strip(" &") for row in before if row[:6] in ("set 3 ", "set 15")] == [
        "set 3",
        "set 15",
    ]


NARROWEST = r"\documentclass[twocolumn,a4paper]{article}"
OTHERS = {
    "IEEEtran": r"\documentclass[conference]{IEEEtran}",
    # The page of CVPR and ICCV, whose style is not on CTAN.
    "article": r"\documentclass[10pt,twocolumn,letterpaper]{article}"
    r"\setlength\textwidth{6.875in}\setlength\columnsep{0.3125in}",
}


def compiled(folder, tables, document_class=NARROWEST):
    """Compile tables in a class; return the log, with the width of every table and its line."""
    packages = "".join(rf"\usepackage{{{p}}}" for p in ("booktabs", "graphicx"))
    shrinking = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    body = "\n\\clearpage\n".join(tables).replace(shrinking, r"\measured{%")
    command = (
        r"\newsavebox{\measuredbox}\newcommand{\measured}[1]{\sbox{\measuredbox}{#1}"
        r"\typeout{measured \the\wd\measuredbox\space of \the\linewidth}\usebox{\measuredbox}}"
    )
    text = rf"{document_class}{packages}{command}\begin{{document}}Text.{body}\end{{document}}"
    (folder / "t.tex").write_text(text, encoding="utf-8")
    run = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(run, cwd=folder, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout.decode("utf-8", "replace")[-2000:]
    return (folder / "t.log").read_text("utf-8", "replace")


needs_latex = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed"
)


@needs_latex
def test_latex_compiles_and_fits_the_columns_of_a_paper(tmp_path, analysis, results):
    hostile = [render_latex(hostile_table(n, k)).replace("花", "") for n, k in ((2, 3), (3, 60))]
    tables = [*map(render_latex, every_table(analysis, results)), *hostile]
    tables += [render_latex(wide_table(n, name=f"wide-{n}")) for n in (2, 3, 5, 6, 20)]
    log = compiled(tmp_path, tables)
    widths = re.findall(r"measured ([\d.]+)pt of ([\d.]+)pt", log)
    assert len(widths) == "".join(tables).count(r"\resizebox") > 30
    assert {float(line) for _, line in widths} == {221.0, 452.0}
    # Nothing is shrunk, and what spans the page would not fit one column.
    assert [(w, line) for w, line in widths if float(w) > float(line)] == []
    assert not re.findall(r"Overfull \\hbox.*alignment", log)


@needs_latex
@pytest.mark.parametrize("name", OTHERS)
def test_other_classes_have_room_for_what_fits_the_narrowest(tmp_path, analysis, name):
    if not subprocess.run(["kpsewhich", f"{name}.cls"], capture_output=True, check=False).stdout:
        pytest.skip(f"{name} is not installed")
    tables = [render_latex(wide_table(20)), render_latex(metric_table(analysis, "aurc"))]
    widths = re.findall(
        r"measured ([\d.]+)pt of ([\d.]+)pt", compiled(tmp_path, tables, OTHERS[name])
    )
    assert widths
    assert all(float(width) <= float(line) for width, line in widths)


def test_formats_mark_the_same_cells(analysis):
    table = metric_table(analysis, "auroc")
    marks = [[cell.mark for cell in line.cells] for line in table.lines]
    assert any("best" in row for row in marks)
    by_format = {
        "markdown": [
            [
                "best" if c.startswith("**") else "second" if c.startswith("*") else ""
                for c in row[1:]
            ]
            for row in markdown_rows(markup.render_markdown(table))[2:]
        ],
        "latex": [
            ["best" if "textbf" in c else "second" if "underline" in c else "" for c in row[1:]]
            for row in latex_rows(render_latex(table))[1:]
        ],
        "html": [
            ["second" if "(second" in c else "best" if "(best)" in c else "" for c in row[1:]]
            for row in Cells(str(markup.render_html(table))).rows[1:]
        ],
    }
    assert by_format["markdown"] == by_format["html"] == marks
    assert by_format["latex"] == marks


def test_the_same_results_make_the_same_tables(results):
    first, second = (
        [
            render(metric_table(analyse(results, ["aurc"], n_resamples=60), "aurc"))
            for render in (markup.render_markdown, render_latex, markup.render_html)
        ]
        for _ in range(2)
    )
    assert first == second


def test_the_convention_of_the_rows_is_named():
    results = make_results(convention="trustvlm")
    notes = metric_table(analyse(results, ["aurc"], n_resamples=50), "aurc").notes
    assert "Convention trustvlm" in notes
    assert "in convention exact" in notes


def test_progress_and_refusals():
    seen = []
    analyse(make_results(), ["aurc"], n_resamples=20, progress=lambda a, b: seen.append((a, b)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(InputError, match="`metrics` to be among"):
        columns_of(["ece"])
    bad = make_results(["pets"], ["msp"], draws=1)
    key = next(iter(bad.samples))
    with pytest.raises(InputError, match="confidence of msp"):
        analyse(Results(bad.rows, {key: ([math.nan] * 120, bad.samples[key][1])}), ["aurc"])


def test_paired_tests_agree_with_a_permutation_test():
    # Under the null hypothesis the two scores of an image may be swapped.
    rng = np.random.default_rng(11)
    right = rng.random(150) < 0.6
    a, b = (quality * right + rng.normal(size=150) for quality in (1.5, 1.1))
    ranks = [np.argsort(np.argsort(x)) for x in (a, b)]

    def auroc(confidence):
        order = np.argsort(np.argsort(confidence)) + 1
        n = right.sum()
        return (order[right].sum() - n * (n + 1) / 2) / (n * (len(right) - n))

    observed = auroc(ranks[0]) - auroc(ranks[1])
    swapped = []
    for _ in range(2000):
        swap = rng.random(150) < 0.5
        x, y = np.where(swap, ranks[1], ranks[0]), np.where(swap, ranks[0], ranks[1])
        noise = rng.random((2, 150)) * 1e-6
        swapped.append(auroc(x + noise[0]) - auroc(y + noise[1]))
    p_permutation = np.mean(np.abs(swapped) >= abs(observed))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = paired_bootstrap(a, b, right, metric="auroc").p_value
    assert p == pytest.approx(p_permutation, abs=0.06)


def test_slugs_are_safe_names():
    assert slug("../../etc/passwd") == "etc-passwd"
    assert slug(HOSTILE).isascii()


def test_scores_that_change_labels_or_see_the_whole_batch_are_marked():
    lines = tuple(Line(s, (Cell("1"),), signs=signs_of(s)) for s in ("msp", "auto", "conf_ot"))
    lines += tuple(Line(s, (Cell("1"),), signs=signs_of(s)) for s in ("gda", "auto_unlabelled"))
    table = Table("t", "T", "C.", (Head("Score"), Head("x")), lines)
    markdown = [row.split(" | ")[0] for row in markup.render_markdown(table).splitlines()[6:]]
    names = ["| msp", "| auto", r"| conf\_ot †‡", "| gda †", r"| auto\_unlabelled ‡"]
    assert markdown == names
    assert r"conf\_ot\textsuperscript{\textdagger{}\textdaggerdbl{}}" in render_latex(table)
    for sign, meaning in SIGNS.items():
        assert markup.render_html(table).count(f'<sup title="{meaning}">{sign}</sup>') == 2
    assert signs_of("of nobody") == ""
