"""`trustvlm verify`: how far labels from elsewhere can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trustvlm.cli.console import (
    basis_of,
    notes_of,
    progress_bar,
    say_what_came,
    sort_pictures,
    write_verdicts,
)
from trustvlm.cli.options import (
    MAX_PIXELS,
    ConfidenceColumn,
    Device,
    ImageColumn,
    LabelColumn,
    Link,
    MaxPixels,
    ModelPath,
    PathColumn,
    Plugins,
    Quiet,
    Risk,
    SortInto,
    Synonyms,
    UnknownLabels,
    WhenInvalid,
    checked_sorting,
    columns,
    labelled_argument,
    limits,
    load_plugins,
    read_synonyms,
)

EPILOG = "Example:  trustvlm verify pets.trust labels.csv -o out.csv"


def verify(
    model: ModelPath,
    labels: Annotated[str, labelled_argument("LABELS", ", and perhaps label_confidence")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT.{csv,jsonl,parquet}",
            help="Where to write. [default: CSV to standard output]",
        ),
    ] = None,
    path_column: PathColumn = "path",
    label_column: LabelColumn = "label",
    image_column: ImageColumn = None,
    confidence_column: ConfidenceColumn = "label_confidence",
    synonyms: Synonyms = None,
    unknown_labels: UnknownLabels = "review",
    risk: Risk = None,
    when_invalid: WhenInvalid = "review",
    sort_into: SortInto = None,
    link: Link = False,
    max_pixels: MaxPixels = MAX_PIXELS,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 32,
    plugins: Plugins = None,
    quiet: Quiet = False,
) -> None:
    """Say of labels from elsewhere which can be trusted, and what to consider instead.

    The labels may be of a language model behind an API, a vendor, an old classifier, people: only
    the path and label of each image are needed. The examples of the model judge them. Columns are
    those of `predict`; runner_up is the class to consider instead. For a guarantee calibrate the
    model for this labeller: trustvlm calibrate MODEL.trust LABELLED --given-labels LABELS.
    """
    from trustvlm.images import find_labelled
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline.verdict import check_output

    load_plugins(plugins)
    meant = read_synonyms(synonyms)
    if output is not None:
        check_output(output)
    checked_sorting(sort_into, link=link)
    bounds, named = limits(max_pixels), columns(path_column, image_column, label_column)
    trust = TrustVLM.load(model, device=device, batch_size=batch_size, limits=bounds)
    if risk is not None:
        trust.use_risk(risk)
    with progress_bar("images", quiet=quiet) as progress:
        verdicts = trust.verify(
            labels,
            synonyms=meant,
            unknown_labels=unknown_labels,
            when_invalid=when_invalid,
            progress=progress,
            **named,
            confidence_column=confidence_column,
        )
    write_verdicts(verdicts, output)
    n_failed = sort_pictures(
        verdicts,
        lambda: find_labelled(labels, **named).refs,
        sort_into,
        link=link,
        limits=bounds,
        quiet=quiet,
    )
    of = trust.calibration_
    basis = basis_of(of if of is not None and of.given else None)
    say_what_came(verdicts, notes_of(trust), basis=basis, quiet=quiet, n_failed=n_failed)
