"""`trustvlm verify`: how far labels from elsewhere can be trusted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trustvlm.cli import console, options
from trustvlm.exceptions import InputError, UsageError
from trustvlm.text import counted, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trustvlm.images import LabelledImage
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline.labellers import LabellerComparison, LabellerFacts


EPILOG = "Example:  trustvlm verify pets.trust labels.csv -o out.csv"


# Options that only some runs heed, by the names of their parameters.
_OF_COLUMNS = {
    "label_column": "--label-column",
    "confidence_column": "--confidence-column",
    "image_column": "--image-column",
}
_OF_LABELS = {
    "probabilities": "--probabilities",
    "unknown_labels": "--unknown-labels",
    "when_invalid": "--when-invalid",
    "synonyms": "--synonyms",
    "risk": "--risk",
}
_OF_DATA = {"folds": "--folds", "group_column": "--group-column"}
_OF_ENCODERS = {"vlm": "--vlm", "vision": "--vision"}


def verify(
    context: typer.Context,
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL.trust",
            help="A directory made by `trustvlm fit`.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        str | None, options.labelled_argument("LABELS", ", and perhaps label_confidence")
    ] = None,
    *,
    output: options.VerdictsFile = None,
    path_column: options.PathColumn = "path",
    label_column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Column of labels, in tables and Parquet files. [default: label] Repeat it to "
            "compare several labellers; NAME_confidence are then the probabilities of NAME.",
        ),
    ] = None,
    image_column: options.ImageColumn = None,
    confidence_column: options.ConfidenceColumn = "label_confidence",
    probabilities: options.Probabilities = False,
    synonyms: options.Synonyms = None,
    unknown_labels: options.UnknownLabels = "review",
    cross_validate: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Instead of LABELS: find the label errors of a whole data set, each label judged "
            "by the images of the other folds. Needs no MODEL.trust; of one, its encoders, classes "
            "and score are taken.",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(metavar="N", min=2, help="With --cross-validate: how many. [default: 5]"),
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --cross-validate: column of what images have in common that are not "
            "independent of each other, such as the scene of a frame; a group shares a fold.",
        ),
    ] = None,
    vlm: Annotated[
        str,
        typer.Option(
            help="With --cross-validate, without a model: the VLM; `none` judges by images alone."
        ),
    ] = "none",
    vision: Annotated[
        str, typer.Option(help="With --cross-validate, without a model: the encoder that compares.")
    ] = "dinov2-base",
    risk: options.Risk = None,
    when_invalid: options.WhenInvalid = "review",
    sort_into: options.SortInto = None,
    symlink: options.Symlink = False,
    device: options.Device = "auto",
    batch_size: options.BatchSize = 32,
    bounds: options.LimitOptions,
    plugins: options.Plugins = None,
    quiet: options.Quiet = False,
) -> None:
    """Say of labels from elsewhere which can be trusted, and what to consider instead.

    The labels may be of a language model behind an API, a vendor, an old classifier, people: only
    the path and label of each image are needed. The examples of the model judge them. Columns are
    those of `predict`; runner_up is the class to consider instead. For a guarantee calibrate the
    model for this labeller: trustvlm calibrate MODEL.trust LABELLED --given-labels LABELS.

    Several labellers are compared by --label-column ann --label-column bob.

    A data set is checked against itself by trustvlm verify --cross-validate DATA/ -o out.csv.
    """
    from trustvlm.images import find_labelled, find_labellers
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline.verdict import check_output

    options.load_plugins(plugins)
    meant = options.read_synonyms(synonyms)
    names = label_column or ["label"]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(
            f"Expected each column of labels once, but --label-column {min(twice)} is given "
            f"{names.count(min(twice))} times."
        )
    if probabilities:
        why = "does not go with --probabilities: its columns are called as the classes."
        options.refuse_options(context, _OF_COLUMNS, why)
    if len(names) > 1 and (
        output is None or probabilities or cross_validate is not None or sort_into is not None
    ):
        raise UsageError(
            "Several labellers (--label-column) need an output, -o OUT, and do not go with "
            "--probabilities, --cross-validate or --sort-into."
        )
    if len(names) > 1:
        why = "does not go with several --label-column: of NAME it is NAME_confidence, if it is"
        options.refuse_options(
            context, {"confidence_column": "--confidence-column"}, f"{why} there."
        )
        why = "does not go with several --label-column: their tables name images by paths."
        options.refuse_options(context, {"image_column": "--image-column"}, why)
    if output is not None:
        check_output(output)
    options.checked_sorting(sort_into, symlink=symlink)
    limits, named = bounds.limits(), options.columns(path_column, image_column, names[0])
    settings: dict[str, Any] = {"device": device, "batch_size": batch_size, "limits": limits}
    if cross_validate is not None:
        if labels is not None:
            raise UsageError("--cross-validate DATA takes the place of LABELS: leave these out.")
        why = "does not go with --cross-validate, which judges every label and certifies none."
        options.refuse_options(context, _OF_LABELS, why)
        if model is not None:
            why = "does not go with MODEL.trust, which has encoders of its own."
            options.refuse_options(context, _OF_ENCODERS, why)
        if model is None:
            trust = TrustVLM(vlm, vision, **settings)
        else:
            trust = TrustVLM.load(model, **settings)
        with console.progress_bar("images", quiet=quiet) as progress:
            verdicts = trust.cross_val_verify(
                cross_validate,
                folds=folds or 5,
                progress=progress,
                confidence_column=confidence_column,
                **options.in_groups(named, group_column),
            )
        console.write_verdicts(verdicts, output, sort_into)
        n_failed = console.sort_pictures(
            verdicts,
            lambda: find_labelled(cross_validate, limits=limits, **named).refs,
            sort_into,
            symlink=symlink,
            limits=limits,
            quiet=quiet,
        )
        basis = "each label was judged by the images of other folds: no error rate is guaranteed"
        notes = trust.encoders.notes()
        console.say_what_came(verdicts, notes, basis=basis, quiet=quiet, n_failed=n_failed)
        return
    options.refuse_options(
        context, {**_OF_DATA, **_OF_ENCODERS}, "goes with --cross-validate DATA."
    )
    if model is None or labels is None:
        raise UsageError(
            "Expected MODEL.trust and LABELS, or --cross-validate DATA without LABELS."
        )
    trust = TrustVLM.load(model, **settings)
    settled: dict[str, Any] = {
        "synonyms": meant,
        "unknown_labels": unknown_labels,
        "when_invalid": when_invalid,
    }
    of = trust.calibration_
    for_others = of is not None and of.given
    if risk is not None:
        if of is not None and not for_others:
            raise InputError(
                "--risk names one of the risks that a model is calibrated for, but this one is "
                "calibrated for its own labels and not for these: trustvlm calibrate MODEL.trust "
                "LABELLED --given-labels LABELS."
            )
        trust.use_risk(risk)
    basis = console.basis_of(of if for_others else None)
    if of is not None and not for_others:
        basis = f"the calibration is for the model's own labels; {basis}"
    with console.progress_bar("images", quiet=quiet) as progress:
        if len(names) > 1:
            labellers = find_labellers(labels, names, path_column=path_column)
            compared = trust.compare_labellers(labellers, progress=progress, **settled)
        else:
            given = options.read_given(
                labels, trust, named, confidence_column, probabilities=probabilities
            )
            refs = given.refs
            verdicts = trust.verify(given, progress=progress, **settled)
    if len(names) > 1:
        console.write_verdicts(compared.verdicts, output)
        console.remarks(console.notes_of(trust), quiet=quiet)
        _show(compared, basis, quiet=quiet)
        return
    console.write_verdicts(verdicts, output, sort_into)
    _note_unknown(trust, refs, meant or {}, quiet=quiet)
    n_failed = console.sort_pictures(
        verdicts, lambda: refs, sort_into, symlink=symlink, limits=limits, quiet=quiet
    )
    console.say_what_came(
        verdicts, console.notes_of(trust), basis=basis, quiet=quiet, n_failed=n_failed
    )


def _note_unknown(
    trust: TrustVLM, images: Sequence[LabelledImage], synonyms: Mapping[str, str], *, quiet: bool
) -> None:
    """Say which labels are no class of the model: it may be another word for one."""
    from trustvlm.pipeline.given_labels import meant_by

    meant = meant_by((image.label for image in images), synonyms)
    unknown = set(trust.classes_.unknown(meant.values()))
    if n := sum(meant[image.label] in unknown for image in images):
        console.note(
            f"note: {counted(n, 'label is', 'labels are')} no class of the model, such as "
            f"{min(unknown)!r}: --synonyms says what other words mean",
            quiet=quiet,
        )


def _estimated(facts: LabellerFacts) -> str:
    low, high = sorted((facts.supported, facts.estimated_right))
    if math.isnan(low):
        return "-"
    return percent(high) if low == high else f"{percent(low)} to {percent(high)}"


def _show(compared: LabellerComparison, basis: str, *, quiet: bool) -> None:
    """Print labellers side by side; the exit code is that of the worst."""
    console.print_table(
        ["Labeller", "Labels", "Judged", "Accepted", "Estimated right"],
        [
            [
                name,
                str(facts.labels),
                str(facts.judged),
                percent(facts.accepted),
                _estimated(facts),
            ]
            for name, facts in compared.facts.items()
        ],
        numbers=range(1, 5),
    )
    for pair in compared.agreements:
        if pair.images:
            console.say(
                f"{pair.one} and {pair.other} give the same label to {percent(pair.same)} of "
                f"{counted(pair.images, 'image')}."
            )
    console.note(
        f"({basis}; estimated right is from what the examples alone support to what is likely if "
        "errors are random; neither is guaranteed)",
        quiet=quiet,
    )
    for verdicts in compared.by_labeller.values():
        if verdicts.run is not None and verdicts.run.invalid:
            console.say_invalid(verdicts.run)
            raise typer.Exit(4)
    if any(verdicts.decisions()["error"] for verdicts in compared.by_labeller.values()):
        raise typer.Exit(3)
