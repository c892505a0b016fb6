"""A model fitted like another one has all of its settings, whichever there are."""

import dataclasses
import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import typer

from command import Command
from pictures import write_class_folders
from trustvlm import TrustVLM
from trustvlm.cli.app import app
from trustvlm.exceptions import InputError, LeakError
from trustvlm.pipeline import settings_of
from trustvlm.pipeline.state import ModelState

pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
pytestmark = pytest.mark.filterwarnings("ignore::trustvlm.exceptions.TrustVLMWarning")

# Of the machine, the run or the images: no settings of a model.
OF_THE_MACHINE = {"device", "store", "batch_size", "workers", "limits"}
OF_THE_RUN = {"shots", "progress", "columns", "path_column", "label_column", "image_column"}
OF_THE_COMMAND = {
    "output", "plugins", "overwrite", "quiet", "settings_from",
    "max_pixels", "max_archive_bytes", "max_archive_members",
    "revision",  # a part of the VLM's name
}  # fmt: skip
# What the command line calls otherwise, or says of the score.
WORDS = {"settings": "score_parameters", "per_class": "shots_per_class"}
OF_THE_SCORE = {"no_correct": "score", "adapt": "score", "link": "score_parameters"}
# What was learned from images, and when.
LEARNED = {
    "text_embeddings", "bank", "support_features", "support_image_embeddings", "support_labels",
    "shots", "shots_folder", "unreadable_shots", "created_by", "created_at", "losses",
    "selection_images", "calibration", "learned", "_of_shots",
}  # fmt: skip

CASES = {
    "prompts and the paper": (
        {
            "score": "trustvlm_star",
            "score_parameters": {"temperature": 0.03, "weight": 2.0},
            "prompt": ["{}", "a {} thing"],
            "classes": {"blue": "the sea", "green": "a lawn", "red": "a brick"},
            "other_classes": ["a house"],
            "class_texts": {"blue": "deep water"},
            "protocol": "paper",
            "finetune": True,
            "draft": True,
        },
        {"shots_per_class": 2, "draw": 3},
    ),
    "selected by holding out": ({"score": "trustvlm_star"}, {"select": "loo"}),
    "selected on images": ({"score": "trustvlm_star"}, {"select_on": "other"}),
    "adapted": ({"score": "auto_adapted"}, {"adapt_to": "other"}),
    "one encoder": ({"vision": "same"}, {}),
    "without a VLM": ({"vlm": "none"}, {}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("settings")
    write_class_folders(root / "shots", 3, seed=1)
    write_class_folders(root / "other", 3, seed=2)
    return root


@pytest.fixture(scope="module")
def fitted(folders, store, tmp_path_factory):
    """The models of all cases, saved."""
    root, paths = tmp_path_factory.mktemp("models"), {}
    for i, (name, (settings, options)) in enumerate(CASES.items()):
        options = {
            k: folders / v if k in ("select_on", "adapt_to") else v for k, v in options.items()
        }
        model = TrustVLM(**{"vlm": "offline", "vision": "offline", "store": store, **settings})
        paths[name] = root / f"{i}.trust"
        model.fit(folders / "shots", **options).save(paths[name])
    return paths


def parameters(function):
    return set(inspect.signature(function).parameters) - {"self"}


def test_every_argument_is_a_setting_or_named_as_none(fitted):
    settings = settings_of(next(iter(fitted.values())))
    assert set(settings.model) == parameters(TrustVLM.__init__) - OF_THE_MACHINE
    # Those of images to select on are parameters of the score by now.
    assert set(settings.fit) == parameters(TrustVLM.fit) - OF_THE_RUN - {"select_on"}
    command = {p.name for p in typer.main.get_command(app).commands["fit"].params}
    others = OF_THE_MACHINE | OF_THE_RUN | OF_THE_COMMAND | {"select_on"} | OF_THE_SCORE.keys()
    named = {WORDS.get(name, name) for name in command - others - {"help"}}
    # `classes` sets what prompts say of single classes.
    assert named == {*settings.model, *settings.fit} - {"class_texts"}


def test_the_cases_change_every_setting_once(fitted):
    defaults = {
        **{k: p.default for k, p in inspect.signature(TrustVLM.__init__).parameters.items()},
        **{k: p.default for k, p in inspect.signature(TrustVLM.fit).parameters.items()},
        "vlm": "offline",
        "vision": "offline",
    }
    changed = set()
    for path in fitted.values():
        settings = settings_of(path)
        for name, value in {**settings.model, **settings.fit}.items():
            plain = defaults[name]
            if value != plain and (value or plain):
                changed.add(name)
    # The offline models have one precision only.
    assert changed == {*settings.model, *settings.fit} - {"precision"}
    state = dataclasses.replace(ModelState.load(path), precision="bfloat16")
    assert settings_of(SimpleNamespace(state=state)).model["precision"] == "bfloat16"


def same(one, other):
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and all(
            same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one)
        )
    return one == other


@pytest.mark.parametrize("case", CASES)
def test_a_model_fitted_like_another_one_is_the_same(case, fitted, folders, store, tmp_path):
    settings = settings_of(fitted[case])
    TrustVLM(**settings.model, store=store).fit(folders / "shots", **settings.fit).save(
        tmp_path / "like.trust"
    )
    one, other = ModelState.load(fitted[case]), ModelState.load(tmp_path / "like.trust")
    for field in dataclasses.fields(ModelState):
        if case == "selected on images" and field.name in ("selection", "score_parameters"):
            continue
        if field.name not in LEARNED or field.name in ("bank", "support_features", "shots"):
            ours, theirs = getattr(other, field.name), getattr(one, field.name)
            if field.name == "bank":
                ours, theirs = ours.prototypes_, theirs.prototypes_
            assert same(ours, theirs), field.name
    assert one.parameters == other.parameters


@pytest.fixture
def trustvlm(capsys, monkeypatch):
    return Command(capsys, monkeypatch)


@pytest.mark.parametrize("case", CASES)
def test_the_command_takes_the_same_settings(case, fitted, folders, tmp_path, trustvlm):
    output = tmp_path / "like.trust"
    done = trustvlm("fit", folders / "shots", "-o", output, "--settings-from", fitted[case])
    assert done.code == 0, done.err
    one, other = settings_of(fitted[case]), settings_of(output)
    assert same(other.model, one.model)
    assert {k: v for k, v in other.fit.items() if k != "adapt_to"} == {
        k: v for k, v in one.fit.items() if k != "adapt_to"
    }
    assert same(other.fit["adapt_to"], one.fit["adapt_to"])


def test_options_that_are_given_win(fitted, folders, tmp_path, trustvlm):
    def like(case, *options):
        output = tmp_path / "won.trust"
        arguments = ("fit", folders / "shots", "-o", output, "--settings-from", fitted[case])
        done = trustvlm(*arguments, *options)
        assert done.code == 0, done.err
        return settings_of(output)

    paper = like("prompts and the paper", "--set", "weight=0.5", "--draw", 0, "--prompt", "{}")
    assert paper.model["score_parameters"] == {"temperature": 0.03, "weight": 0.5}
    assert (paper.fit["draw"], paper.fit["shots_per_class"]) == (0, 2)
    assert (paper.model["prompt"], paper.model["protocol"]) == (("{}",), "paper")
    other = like("prompts and the paper", "--score", "auto", "--protocol", "clean")
    assert (other.model["score"], other.model["score_parameters"]) == ("auto", {})
    assert other.model["protocol"] == "clean"
    selected = like("selected on images", "--select", "loo")
    assert selected.fit["select"] == "loo"
    again = like("adapted", "--adapt-to", folders / "other")
    assert same(again.fit["adapt_to"], settings_of(fitted["adapted"]).fit["adapt_to"])
    assert like("adapted", "--score", "auto_star").fit["adapt_to"] is None
    assert like("one encoder", "--no-correct").model["score"] == "auto"


def test_images_adapted_to_are_neither_examples_nor_of_other_encoders(fitted, folders, store):
    settings = settings_of(fitted["adapted"])
    with pytest.raises(LeakError, match="9 of the examples are also among the images"):
        TrustVLM(**settings.model, store=store).fit(folders / "other", **settings.fit)
    others = {**settings.model, "vision": "same"}
    with pytest.raises(InputError, match="of other encoders: name the images themselves"):
        TrustVLM(**others, store=store).fit(folders / "shots", **settings.fit)
