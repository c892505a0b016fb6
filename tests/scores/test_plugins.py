import json
import subprocess
import sys

import numpy as np
import pytest

from pictures import write_class_folders
from trustvlm import TrustVLM, plugins, scores
from trustvlm.exceptions import InputError, PluginError, TrustVLMWarning

GAP = '''
import numpy as np
from trustvlm.scores import Evidence, ScoreResult, register

@register("gap", formula="z_(1) - z_(2)", source="a test")
def gap(evidence: Evidence) -> ScoreResult:
    """Difference of the two largest logits."""
    top = np.sort(evidence.logits, axis=1)[:, -2:]
    return ScoreResult(evidence.logits.argmax(axis=1), top[:, 1] - top[:, 0])
'''


@pytest.fixture
def gap(tmp_path):
    (tmp_path / "gap.py").write_text(GAP)
    yield tmp_path / "gap.py"
    if "gap" in scores.names():
        scores.unregister("gap")


def test_a_score_in_a_file_outside_the_package_is_found(gap):
    assert plugins.load_plugin(gap) == ("gap",)
    assert scores.compute("gap", logits=[[3.0, 1.0]]).confidence.tolist() == [2.0]


def install(folder, name, content, group="trustvlm.scores"):
    """Write a package as an installer does: a module, and its entry point."""
    module = f"{name}_package"
    (folder / f"{module}.py").write_text(content)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n")
    sys.modules.pop(module, None)


def test_an_installed_score_is_found_by_its_entry_point(gap, tmp_path, monkeypatch):
    install(tmp_path, "gap", GAP)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugins.load_installed() == ("gap",)
    assert plugins.origin(scores.get("gap").function)["package"] == "gap-package 1.0"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"{GAP}\n1 / 0", "ZeroDivisionError"),
        (f"{GAP}\nraise SystemExit(3)", "SystemExit: 3"),
        (GAP.replace('"gap"', '"msp"'), "A score named `msp` is already registered"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
    ],
)
def test_an_installed_plugin_that_fails_is_named_and_takes_nothing_down(
    content, said, tmp_path, capsys, monkeypatch
):
    install(tmp_path, "gap", content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugins, "_failures", [])
    with pytest.warns(TrustVLMWarning) as caught:
        assert plugins.load_installed() == ()
    (warning,) = caught
    assert "`gap = gap_package` of gap-package 1.0, group trustvlm.scores, fails" in str(
        warning.message
    )
    assert said in str(warning.message)
    assert "gap" not in scores.names()
    assert scores.get("msp").summary.startswith("Maximum softmax")
    # Whoever needs it is told, and others go on.
    with pytest.raises(InputError, match=r"no score named `gap`.*gap-package 1\.0"):
        scores.compute("gap", logits=[[1.0, 0.0]])
    from command import Command

    monkeypatch.setattr(plugins, "_failures", [])  # as in a new process
    done = Command(capsys, monkeypatch)("scores")
    assert done.code == 0
    assert "msp" in done.out
    assert "gap-package 1.0" in done.err


@pytest.mark.parametrize(
    ("content", "message"),
    [("x = 1", "registers no score"), ("1 / 0", "ZeroDivisionError"), (None, "There is no file")],
)
def test_a_plugin_that_does_not_work_is_named(tmp_path, content, message):
    path = tmp_path / "bad.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        plugins.load_plugin(path)
    assert "bad.py" in str(caught.value)


def test_of_a_file_that_fails_nothing_stays_registered(gap):
    gap.write_text(f"{GAP}\nraise ValueError('too late')")
    with pytest.raises(InputError, match=r"gap\.py fails: ValueError: too late"):
        plugins.load_plugin(gap)
    assert "gap" not in scores.names()
    gap.write_text(GAP)
    assert plugins.load_plugin(gap) == ("gap",)


def test_a_file_that_imports_the_package_first_adds_its_own_names_alone(gap):
    program = f"from trustvlm.plugins import load_plugin; print(load_plugin({str(gap)!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "('gap',)\n", done.stderr
    gap.write_text("import trustvlm.scores")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "registers no score, metric, encoder backend or data set" in done.stderr


def test_it_appears_in_the_tables(gap, tmp_path, capsys, monkeypatch):
    from benchmark_files import write_arrays
    from command import Command

    run = Command(capsys, monkeypatch)
    train = write_arrays(tmp_path / "a__train.npz", 0)
    test = write_arrays(tmp_path / "a__test.npz", 1)
    rows = tmp_path / "rows.json"
    done = run("bench", "arrays", "--support", train, test, "--plugin", gap, "--json", rows)
    assert done.code == 0, done.err
    assert "gap" in done.out
    assert "gap" in {row["score"] for row in json.loads(rows.read_text())["rows"]}
    assert "gap" in run("scores").out


def test_a_model_needs_the_plugin_of_its_score(gap, tmp_path, monkeypatch, recwarn):
    folder = write_class_folders(tmp_path / "shots", per_class=2)
    plugins.load_plugin(gap)
    model = TrustVLM(vlm="offline", vision="offline", score="gap").fit(folder)
    model.save(tmp_path / "gap.trust")
    recorded = json.loads((tmp_path / "gap.trust" / "manifest.json").read_text())["score"]
    assert recorded["plugin"]["name"] == "gap.py"
    scores.unregister("gap")
    with pytest.raises(
        InputError, match=r"needs the score `gap`, which gap\.py registers: load gap"
    ):
        TrustVLM.load(tmp_path / "gap.trust")
    # The same from an installed package is loaded without a word from the user.
    install(tmp_path, "gap", GAP)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.warns(TrustVLMWarning, match=r"`gap` is not the version of gap\.py"):
        loaded = TrustVLM.load(tmp_path / "gap.trust")
    loaded.save(tmp_path / "package.trust")
    scores.unregister("gap")
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"install the package gap-package 1\.0, which brings the"):
        TrustVLM.load(tmp_path / "package.trust")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("1 / 0", r"score `gap` of gap\.py fails: ZeroDivisionError"),
        ("([0], [1.0])", r"score `gap` of gap\.py to return a ScoreResult, but got a tuple"),
        ("ScoreResult(np.zeros(1, int), np.ones(1))", r"to return 2 class indices .* shape \(1,\)"),
        ("ScoreResult(np.zeros(2), np.ones(2))", "class indices as `prediction`.* dtype float64"),
        ("ScoreResult(np.full(2, 7), np.ones(2))", r"classes in 0\.\.1, but got 7 to 7"),
        ("ScoreResult(np.zeros(2, int), np.array([1, np.nan]))", "1 of 2 are NaN .* image 1"),
        ("ScoreResult(np.zeros(2, int), np.ones((2, 2)))", r"real numbers .* shape \(2, 2\)"),
        ("evidence.logits.sort()", r"gap\.py fails: ValueError: .* read-only"),
    ],
)
def test_what_it_returns_is_checked_and_it_is_named(body, said, gap):
    head = GAP[: GAP.index("    top =")]
    gap.write_text(f"{head}    return {body}\n")
    plugins.load_plugin(gap)
    with pytest.raises((InputError, PluginError), match=said):
        scores.compute("gap", logits=[[1.0, 0.0], [0.0, 1.0]])


def test_what_it_learns_from_cannot_be_written_to():
    def learn(evidence):
        evidence.support_features[:] = 0.0

    needs = ("logits", "support_features")

    @scores.register("mine", formula="none", source="ours", needs=needs, fit=learn)
    def mine(evidence, learned):
        raise AssertionError

    shots = {"support_features": np.ones((2, 3)), "support_labels": [0, 1]}
    try:
        with pytest.raises(PluginError, match=r"score `mine` .* fails: ValueError: .* read-only"):
            scores.compute("mine", logits=[[1.0, 0.0]], features=np.ones((1, 3)), **shots)
    finally:
        scores.unregister("mine")
    assert shots["support_features"].all()


def test_an_installed_score_is_loaded_when_it_is_named(gap, tmp_path, monkeypatch):
    install(tmp_path, "gap", GAP)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert scores.compute("gap", logits=[[3.0, 1.0]]).confidence.tolist() == [2.0]


def test_a_study_computes_anew_what_a_changed_plugin_computed(gap, tmp_path):
    from benchmark_files import write_arrays
    from trustvlm.benchmark import load_arrays
    from trustvlm.benchmark.dataset import EncodedDataset

    train, test = (load_arrays(write_arrays(tmp_path / f"{i}.npz", i)) for i in range(2))
    encoded = EncodedDataset.from_arrays(train, [test], [1], 1)
    cells = {"gap": set(), "msp": {encoded.cell_file(tmp_path, ["msp"])}}
    for i, content in enumerate((GAP, GAP + "# changed\n")):
        file = tmp_path / f"gap_{i}.py"
        file.write_text(content)
        plugins.load_plugin(file)
        for name, files in cells.items():
            files.add(encoded.cell_file(tmp_path, [name]))
        scores.unregister("gap")
    assert (len(cells["gap"]), len(cells["msp"])) == (2, 1)
