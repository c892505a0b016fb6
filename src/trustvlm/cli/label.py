"""`trustvlm label`: labels and trust from a folder and class names alone."""

from __future__ import annotations

from typing import Annotated

import typer

from trustvlm.cli import console, options
from trustvlm.exceptions import UsageError

EPILOG = (
    'Example:  trustvlm label photos/ --classes "cat,dog,bird" -o out.csv'
    '\n\nWithout a model hub:  trustvlm label photos/ --classes "cat,dog" --vlm offline'
)


def label(
    inputs: options.Inputs,
    classes: Annotated[str, options.classes_option()],
    *,
    output: options.VerdictsFile = None,
    vlm: Annotated[
        str, typer.Option(help="The model that predicts; see `trustvlm models`.")
    ] = "clip-vit-b16",
    revision: options.Revision = None,
    vision: Annotated[str | None, options.vision_option("compares images")] = None,
    prompt: options.Prompt = None,
    other_classes: options.OtherClasses = None,
    correct: Annotated[
        bool,
        typer.Option("--correct", help="Let the images correct the model's labels, too."),
    ] = False,
    sort_into: options.SortInto = None,
    symlink: options.Symlink = False,
    path_column: options.PathColumn = "path",
    image_column: options.ImageColumn = None,
    device: options.Device = "auto",
    precision: options.Precision = "float32",
    draft: options.Draft = False,
    bounds: options.LimitOptions,
    plugins: options.Plugins = None,
    quiet: options.Quiet = False,
) -> None:
    """Label images from class names alone: no examples, no labels.

    The images verify each other: a label is trusted if the images that an image resembles bear it,
    too. So a verdict depends on the other images of the run: label many at once. Columns are those
    of `predict`; an image that cannot be read is a row with its error, and the exit code is 3.
    """
    from trustvlm.images import open_images
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline.verdict import check_output

    options.load_plugins(plugins)
    if vlm == "none":
        raise UsageError(
            "From class names alone only a vision-language model can label: name one with --vlm, "
            "or fit a model to examples (trustvlm fit --vlm none)."
        )
    if output is not None:
        check_output(output)
    options.checked_sorting(sort_into, symlink=symlink)
    columns = options.columns(path_column, image_column)
    limits = bounds.limits()
    model = TrustVLM(
        **options.encoder_settings(options.at_revision(vlm, revision), vision, prompt),
        classes=classes,
        other_classes=other_classes or (),
        device=device,
        precision=precision,
        draft=draft,
        limits=limits,
    )
    with console.progress_bar("images", quiet=quiet) as progress:
        verdicts = model.label(inputs, correct=correct, progress=progress, **columns)
    console.write_verdicts(verdicts, output, sort_into)
    n_failed = console.sort_pictures(
        verdicts,
        lambda: open_images(inputs, limits=limits, **columns),
        sort_into,
        symlink=symlink,
        limits=limits,
        quiet=quiet,
    )
    caution = "images of none of the classes are accepted, too, as far as they resemble one"
    if other_classes is None:
        caution += ": --other-class names what else there may be"
    console.say_what_came(
        verdicts,
        [*model.encoders.notes(), caution],
        basis=console.NOT_CALIBRATED,
        quiet=quiet,
        n_failed=n_failed,
    )
