"""`trustvlm calibrate`: P(correct), and a threshold with a guarantee."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trustvlm.cli import console, options
from trustvlm.exceptions import UsageError
from trustvlm.files import shown_target

if TYPE_CHECKING:
    from trustvlm.pipeline.calibration_state import Calibration


EPILOG = "Example:  trustvlm calibrate pets.trust labelled/ --risk 0.02 --confidence 0.95"


def calibrate(
    model: options.ModelPath,
    labelled: Annotated[
        str | None,
        options.labelled_argument(more=": images like those to come, and not among the examples"),
    ] = None,
    *,
    risk: Annotated[
        str,
        typer.Option(
            metavar="RISK[,RISK...]",
            help="Most of what is accepted that may be wrong; 0.05 is 5 %. Of several, which hold "
            "all at once, the first decides, unless predict --risk names another.",
        ),
    ] = "0.05",
    guarantee: Annotated[
        str,
        typer.Option(
            help="high-probability: the risk is kept with --confidence. expectation: only on "
            "average over calibrations and batches; a batch may hold more. It takes fewer images."
        ),
    ] = "high-probability",
    confidence: Annotated[
        float, typer.Option(help="Probability with which the guarantee holds.")
    ] = 0.95,
    per_class: Annotated[
        bool,
        typer.Option("--per-class", help="Let the risk hold for every class, all at once."),
    ] = False,
    class_risk: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS=RISK", help="With --per-class, a risk of its own. Repeatable."),
    ] = None,
    min_coverage: Annotated[
        float | None,
        typer.Option(help="Instead of a risk: accept at least this share of new images."),
    ] = None,
    cost_error: Annotated[
        float | None,
        typer.Option(help="Instead of a risk: the price of a wrong label that is accepted."),
    ] = None,
    cost_review: Annotated[
        float | None, typer.Option(help="The price of a review, in the same unit.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="fixed_sequence (exact binomial tests, one at a time), bonferroni or "
            "learn_then_test."
        ),
    ] = "fixed_sequence",
    calibrator: Annotated[
        str,
        typer.Option(
            help="For P(correct): logistic (begins with what the examples say, so few images do), "
            "smoothed_isotonic, isotonic, platt, beta or venn_abers."
        ),
    ] = "logistic",
    from_shots: Annotated[
        bool,
        typer.Option(
            "--from-shots",
            help="Without LABELLED: P(correct) from the examples alone; guarantees nothing.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="MODEL.trust", help="Where to write. [default: in place]"
        ),
    ] = None,
    json_file: Annotated[
        Path | None, options.json_option("Write what was certified as JSON.")
    ] = None,
    exclude_shots: options.ExcludeShots = False,
    columns: options.ColumnOptions,
    group_column: options.GroupColumn = None,
    given: options.GivenLabelOptions,
    no_gate: Annotated[
        bool,
        typer.Option(
            "--no-gate",
            help="Let images be accepted that hardly resemble the examples of their label.",
        ),
    ] = False,
    device: options.Device = "auto",
    bounds: options.LimitOptions,
    plugins: options.Plugins = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Learn on labelled images which labels can be accepted unseen, and how likely each is right.

    Prints the threshold and what it guarantees, or that none can be certified and how many more
    labelled images that would take; then everything is sent to review. The model keeps it, and
    `predict` and `evaluate` use it. With --given-labels it holds for that labeller, and `verify`
    uses it.
    """
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline.artefact import check_target

    options.load_plugins(plugins)
    if (labelled is None) != from_shots:
        raise UsageError(
            "Expected either LABELLED, a folder or CSV of labelled images, or --from-shots."
        )
    _risks(risk), _class_risks(class_risk or [])
    given.check()
    trust = TrustVLM.load(model, device=device, limits=bounds.limits())
    lost = check_target(output or model, overwrite=overwrite)
    labels = given.read(trust, columns.path_column, columns.image_column)
    if labelled is None:
        trust.calibrate_on_shots(calibrator=calibrator)
    else:
        with console.progress_bar("images", quiet=quiet) as progress:
            trust.calibrate(
                labelled,
                risk=_risks(risk),
                confidence_level=confidence,
                guarantee=guarantee,
                per_class=per_class,
                class_risk=_class_risks(class_risk or []),
                min_coverage=min_coverage,
                cost_error=cost_error,
                cost_review=cost_review,
                method=method,
                calibrator=calibrator,
                exclude_shots=exclude_shots,
                gate=not no_gate,
                progress=progress,
                **labels,
                **options.in_groups(columns.named, group_column),
            )
    calibration = trust.calibration_
    assert calibration is not None  # noqa: S101 -- it has just been made
    trust.save(output or model, overwrite=overwrite)
    console.remarks(filter(None, [lost]), quiet=quiet)
    _show(calibration, quiet=quiet)
    certificate = calibration.to_manifest(len(trust.classes_))
    console.write_json(json_file, certificate, "certificate", quiet=quiet)
    console.note(f"{shown_target(output or model)}: {_outcome(calibration)}", quiet=quiet)
    if calibration.unreadable:
        raise typer.Exit(3)


def _risks(text: str) -> list[float]:
    return [_number(part, "--risk") for part in text.split(",")]


def _class_risks(pairs: list[str]) -> dict[str, float]:
    """Read `CLASS=RISK` pairs; a class name may hold the sign itself."""
    risks: dict[str, float] = {}
    for pair in pairs:
        name, sign, risk = pair.rpartition("=")
        if not sign:
            raise typer.BadParameter(
                f"Expected CLASS=RISK, but got {pair!r}.", param_hint="--class-risk"
            )
        if name in risks:
            raise typer.BadParameter(
                f"Expected one risk of each class, but got several of {name!r}.",
                param_hint="--class-risk",
            )
        risks[name] = _number(risk, "--class-risk")
    return risks


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(
            f"Expected numbers such as 0.05, but got {text!r}.", param_hint=option
        ) from None


def _outcome(calibration: Calibration) -> str:
    if calibration.certified:
        return "calibrated"
    if calibration.certificate is None:
        return "P(correct) learned from the examples, no threshold certified"
    return "P(correct) learned, no threshold certified"


def _show(calibration: Calibration, *, quiet: bool) -> None:
    from trustvlm.calibration.calibrators import calibrator_statement
    from trustvlm.risk_control.goals import assumption_of

    n, right = len(calibration.labels), int(calibration.correct.sum())
    what = (
        "examples"
        if calibration.certificate is None
        else f"labelled images of {calibration.dataset}"
    )
    console.say(f"{n} {what}: {right} of the labels are right.")
    console.say(calibration.statement)
    console.say(calibrator_statement(calibration.quality()))
    if calibration.certificate is None:
        return
    if calibration.gate_statement:
        console.say(calibration.gate_statement)
    if calibration.certificate.certified:
        console.note(assumption_of(calibration.certificate), quiet=quiet)
    else:
        console.note("Until then every image goes to review.", quiet=quiet)
