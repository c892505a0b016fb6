"""`trustvlm fit`: learn prototypes from labelled example images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trustvlm.cli import console, options
from trustvlm.exceptions import UsageError
from trustvlm.files import shown_target

EPILOG = (
    "Example:  trustvlm fit shots/ -o pets.trust --vlm clip-vit-b16 --vision dinov2-base"
    "\n\nWithout a model hub:  trustvlm fit shots/ -o pets.trust --vlm offline"
)


def fit(
    context: typer.Context,
    shots: Annotated[str, options.labelled_argument("SHOTS")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="MODEL.trust", help="Where to write.")
    ],
    *,
    settings_from: Annotated[
        str | None,
        typer.Option(
            "--settings-from",
            metavar="MODEL.trust",
            help="Take every setting from this model: encoders, prompts, classes, score with its "
            "parameters, draw and the rest. Options that are given win.",
        ),
    ] = None,
    vlm: options.Vlm = "clip-vit-b16",
    revision: options.Revision = None,
    vision: Annotated[str | None, options.vision_option("verifies")] = None,
    classes: Annotated[
        str | None,
        options.classes_option("[default: the folder names]"),
    ] = None,
    prompt: options.Prompt = None,
    other_classes: options.OtherClasses = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="The confidence score; see `trustvlm scores`. "
            "[default: auto_star, or auto with --no-correct]"
        ),
    ] = None,
    no_correct: Annotated[
        bool,
        typer.Option(
            "--no-correct", help="Leave every label as the model gives it; only judge it."
        ),
    ] = False,
    adapt: Annotated[
        bool,
        typer.Option(
            "--adapt",
            help="With auto_star or auto: let the images of a run tell in what they differ "
            "from the examples (drawings, another camera). Verdicts then depend on the run.",
        ),
    ] = False,
    adapt_to: Annotated[
        str | None,
        typer.Option(
            "--adapt-to",
            metavar="IMAGES",
            help="Or learn in what they differ once, from unlabelled images like those to come: a "
            "folder, list, table or archive, of 30 images or more. Verdicts then depend on no run: "
            "the model can be calibrated, on other images, served, and used in bulk.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A parameter of the score, such as weight of trustvlm. Repeatable.",
        ),
    ] = None,
    link: options.ProbabilityLink = None,
    per_class: Annotated[
        int | None,
        typer.Option(
            "--shots",
            metavar="N",
            min=1,
            help="Draw this many examples per class. [default: all of them]",
        ),
    ] = None,
    draw: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Which random draw, with --shots; 0 is the paper's."),
    ] = 0,
    select: Annotated[
        str | None,
        typer.Option(
            metavar="loo",
            help="Select weight and temperature of --score trustvlm or trustvlm_star on the "
            "examples, each held out; auto_star weighs them so by itself.",
        ),
    ] = None,
    select_on: Annotated[
        str | None,
        typer.Option(
            metavar="LABELLED",
            help="Or on other labelled images, which are then neither examples nor to evaluate on.",
        ),
    ] = None,
    finetune: Annotated[
        bool,
        typer.Option(
            "--finetune",
            help="With --score trustvlm or trustvlm_star: let the prototypes go on learning from "
            "the examples.",
        ),
    ] = False,
    protocol: Annotated[
        str,
        typer.Option(
            help="clean: each encoder has its own preprocessing; paper: as the released script."
        ),
    ] = "clean",
    columns: options.ColumnOptions,
    device: options.Device = "auto",
    precision: options.Precision = "float32",
    draft: options.Draft = False,
    bounds: options.LimitOptions,
    plugins: options.Plugins = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Learn from labelled example images; writes a MODEL.trust directory.

    No network is trained: how far to trust text and examples is learned from the examples
    themselves, each held out. Four per class are a start, 16 is what the paper uses. The model
    may correct labels, and says what the label was before; --no-correct leaves them as they are.
    """
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline.artefact import check_target

    options.load_plugins(plugins)
    lost = check_target(output, overwrite=overwrite)
    if adapt and adapt_to is not None:
        raise UsageError(
            "Expected either --adapt, to every run, or --adapt-to IMAGES, once, but got both."
        )
    adapting = "--adapt" if adapt else "--adapt-to" if adapt_to is not None else None
    of_model: dict[str, Any] = {
        **options.encoder_settings(vlm, vision, prompt),
        "classes": classes,
        "class_texts": None,
        "other_classes": other_classes or (),
        "score": score,
        "score_parameters": options.parse_settings(settings or [])
        | ({} if link is None else {"link": link}),
        "finetune": finetune,
        "protocol": protocol,
        "precision": precision,
        "draft": draft,
    }
    of_fit: dict[str, Any] = {
        "shots_per_class": per_class,
        "draw": draw,
        "select": select,
        "adapt_to": adapt_to,
    }
    if settings_from is not None:
        of_model, of_fit = _like(
            settings_from,
            of_model,
            of_fit,
            given=options.options_given(context),
        )
    of_model["vlm"] = options.at_revision(of_model["vlm"], revision)
    of_model["score"] = _score(of_model["score"], no_correct=no_correct, adapting=adapting)
    model = TrustVLM(**of_model, device=device, limits=bounds.limits())
    with console.progress_bar("examples", quiet=quiet) as progress:
        model.fit(
            shots,
            **of_fit,
            select_on=select_on,
            progress=progress,
            **columns.named,
        )
    model.save(output, overwrite=overwrite)
    console.remarks(filter(None, [lost]), quiet=quiet)
    console.remarks([*model.encoders.notes(), *console.notes_of(model)], quiet=quiet)
    if model.selection_ is not None:
        console.note(f"settings: {model.selection_}", quiet=quiet)
    name = shown_target(output)
    following = (
        f"trustvlm predict {name} PHOTOS -o out.csv"
        if model.state.has_vlm
        else f"trustvlm verify {name} LABELS -o out.csv"
    )
    console.note(
        f"{name}: {console.size_of(model)}, score {model.state.score}. Next: {following}",
        quiet=quiet,
    )
    if model.shot_failures_:
        raise typer.Exit(3)


# The options by which what a model is made of is called on the command line.
_OPTIONS = {"score_parameters": "settings", "shots_per_class": "per_class"}


def _like(
    settings_from: str,
    of_model: dict[str, Any],
    of_fit: dict[str, Any],
    *,
    given: frozenset[str],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take settings from a fitted model where the command line gives none.

    What belongs to the model's score (parameters, selection, images adapted to) goes with it: with
    another score, or another way to select or adapt, it is not taken.
    """
    from trustvlm.pipeline.settings import settings_of

    stored = settings_of(settings_from)
    like: list[dict[str, Any]] = [
        {
            name: value if _OPTIONS.get(name, name) in given else stored_values.get(name, value)
            for name, value in own.items()
        }
        for own, stored_values in ((of_model, stored.model), (of_fit, stored.fit))
    ]
    if "classes" in given:
        like[0]["class_texts"] = None
    same_score = of_model["score"] in (None, stored.model["score"])
    selecting, adapting = given & {"select", "select_on"}, given & {"adapt", "adapt_to"}
    parameters = stored.model["score_parameters"] if same_score and not selecting else {}
    like[0]["score_parameters"] = {**parameters, **of_model["score_parameters"]}
    if not same_score or selecting:
        like[1]["select"] = of_fit["select"]
    if not same_score or adapting:
        like[1]["adapt_to"] = of_fit["adapt_to"]
    return like[0], like[1]


def _score(given: str | None, *, no_correct: bool, adapting: str | None) -> str:
    """Name the score that is asked for."""
    from trustvlm.pipeline.state import DEFAULT_SCORE
    from trustvlm.scores import canonical_name, get, names

    score = DEFAULT_SCORE if given is None else canonical_name(given)
    if no_correct and get(score).corrects:
        kept = score.removesuffix("_star")
        if kept not in names() or get(kept).corrects:
            raise UsageError(
                f"--no-correct leaves labels as they are, but the score {score} corrects them: "
                "choose auto or trustvlm, or leave --no-correct out."
            )
        score = kept
    return score if adapting is None else _adapted(score, adapting)


def _adapted(score: str, option: str) -> str:
    adapted = {"auto": "auto_adapted", "auto_star": "auto_adapted_star"}
    if score in adapted.values():
        return score
    if score not in adapted:
        raise UsageError(
            f"{option} is for the scores auto and auto_star, but the score is {score}: "
            "leave --score out."
        )
    return adapted[score]
