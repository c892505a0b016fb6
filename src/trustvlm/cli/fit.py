"""`trustvlm fit`: learn prototypes from labelled example images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trustvlm.cli import console, options
from trustvlm.exceptions import InputError

EPILOG = (
    "Example:  trustvlm fit shots/ -o pets.trust --vlm clip-vit-b16 --vision dinov2-base"
    "\n\nWithout a model hub:  trustvlm fit shots/ -o pets.trust --vlm offline"
)


def fit(
    shots: Annotated[
        Path,
        typer.Argument(
            metavar="SHOTS",
            help="Folder of class folders, or CSV with the columns path and label.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="MODEL.trust", help="Where to write.")
    ],
    vlm: options.Vlm = "clip-vit-b16",
    vision: Annotated[str | None, options.vision_option("verifies")] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help='Names "a,b,c", or a file with a name, or folder, tab and name, on each line. '
            "[default: the folder names]",
        ),
    ] = None,
    prompt: options.Prompt = None,
    score: Annotated[
        str, typer.Option(help="The confidence score; see `trustvlm scores`.")
    ] = "trustvlm",
    adapt: Annotated[
        bool,
        typer.Option(
            "--adapt",
            help="With --score auto or auto_star: let the images of a run tell in what they differ "
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
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the score; repeatable."),
    ] = None,
    per_class: Annotated[
        int | None,
        typer.Option(
            "--shots", min=1, help="Draw this many examples per class. [default: all of them]"
        ),
    ] = None,
    draw: Annotated[
        int, typer.Option(min=0, help="Which random draw, with --shots; 0 is the paper's.")
    ] = 0,
    select: Annotated[
        str | None,
        typer.Option(
            metavar="loo",
            help="Select the score's weight and temperature on the examples, each held out.",
        ),
    ] = None,
    select_on: Annotated[
        Path | None,
        typer.Option(
            metavar="LABELLED",
            help="Or on other labelled images, which are then neither examples nor to evaluate on.",
        ),
    ] = None,
    finetune: Annotated[
        bool,
        typer.Option("--finetune", help="Let the prototypes go on learning from the examples."),
    ] = False,
    protocol: Annotated[
        str,
        typer.Option(
            help="clean: each encoder has its own preprocessing; paper: as the released script."
        ),
    ] = "clean",
    device: options.Device = "auto",
    precision: options.Precision = "float32",
    draft: options.Draft = False,
    plugins: options.Plugins = None,
    quiet: options.Quiet = False,
) -> None:
    """Learn from labelled example images; writes a MODEL.trust directory.

    Nothing is trained, unless you ask for it: each class gets the mean of its examples. A handful
    per class is enough, 16 is what the paper uses.
    """
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline.artefact import check_target

    options.load_plugins(plugins)
    check_target(output)
    if adapt and adapt_to is not None:
        raise InputError(
            "Expected either --adapt, to every run, or --adapt-to IMAGES, once, but got both."
        )
    if adapt or adapt_to is not None:
        score = _adapted(score, "--adapt" if adapt else "--adapt-to")
    model = TrustVLM(
        **options.encoder_settings(vlm, vision, prompt),
        classes=classes,
        score=score,
        score_parameters=options.parse_settings(settings or []),
        finetune=finetune,
        protocol=protocol,
        device=device,
        precision=precision,
        draft=draft,
    )
    with console.progress_bar("examples", quiet=quiet) as progress:
        model.fit(
            shots,
            shots_per_class=per_class,
            draw=draw,
            select=select,
            select_on=select_on,
            adapt_to=adapt_to,
            progress=progress,
        )
    model.save(output)
    console.remarks(model.encoders.notes(), quiet=quiet)
    if model.selection_ is not None:
        console.note(f"settings: {model.selection_}", quiet=quiet)
    console.note(
        f"{output}: {len(model.classes_)} classes, {len(model.shots_)} example images, "
        f"score {score}. Next: trustvlm predict {output} PHOTOS -o out.csv",
        quiet=quiet,
    )
    if model.shot_failures_:
        raise typer.Exit(3)


def _adapted(score: str, option: str) -> str:
    adapted = {"auto": "auto_adapted", "auto_star": "auto_adapted_star"}
    if score not in adapted:
        raise InputError(
            f"{option} is for the scores auto and auto_star, but the score is {score}: "
            "add --score auto."
        )
    return adapted[score]
