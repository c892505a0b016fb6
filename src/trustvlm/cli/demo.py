"""`trustvlm demo`: the whole job on built-in photographs, with the offline models."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trustvlm.cli import console, options
from trustvlm.exceptions import InputError

if TYPE_CHECKING:
    from trustvlm.pipeline import EvaluationResult


EPILOG = "Example:  trustvlm demo -o demo-output"


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--output", "-o", "--out", metavar="DIR", help="Where pictures and results go."
        ),
    ] = Path("demo-output"),
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Do the whole job once, on built-in photographs: no network, no data needed.

    Cuts scikit-image's photographs into example crops and test crops (some of them spoilt), fits,
    predicts, evaluates, and says what was right and wrong. The models are the offline ones: weak,
    but real. Needs the extra: pip install -c constraints.txt 'trustvlm[demo]'
    """
    from trustvlm.cli.evaluate import show
    from trustvlm.demo import credits, write_pictures
    from trustvlm.files import local_path, write_text
    from trustvlm.pipeline import TrustVLM
    from trustvlm.pipeline.artefact import check_target
    from trustvlm.pipeline.shot_quality import examine

    out = local_path(out)
    _refuse_others(out)
    lost = check_target(out / "demo.trust", overwrite=overwrite)
    pictures = write_pictures(out / "pictures")
    write_text(out / "pictures" / "CREDITS.txt", "\n".join(credits()) + "\n")
    console.note(
        f"1. {pictures.n_shots} example crops of {len(pictures.classes)} classes and "
        f"{pictures.n_photos} test crops, some spoilt: {out / 'pictures'}",
        quiet=quiet,
    )
    model = TrustVLM(vlm="offline", vision="offline", classes=pictures.classes)
    with console.progress_bar("examples", quiet=quiet) as progress:
        model.fit(pictures.shots, progress=progress)
    model.save(out / "demo.trust", overwrite=overwrite)
    console.remarks(filter(None, [lost]), quiet=quiet)
    console.note(f"2. fitted: {out / 'demo.trust'}", quiet=quiet)
    with console.progress_bar("photos", quiet=quiet) as progress:
        verdicts = model.predict(pictures.photos, progress=progress)
    verdicts.to_csv(out / "verdicts.csv")
    console.note(f"3. one verdict per photo: {out / 'verdicts.csv'}", quiet=quiet)
    result = replace(model.evaluate(pictures.labels, name="demo"), health=examine(model.state))
    console.note("4. compared with the true labels:", quiet=quiet)
    show(result, report=out / "report", json_file=out / "metrics.json", quiet=quiet)
    console.say(_right_and_wrong(result, _spoilt(pictures.labels)))
    console.remarks(model.encoders.notes(), quiet=quiet)
    console.note(
        "note: these are crops of a few photographs, chosen for show: no benchmark. Their sources: "
        f"{out / 'pictures' / 'CREDITS.txt'}",
        quiet=quiet,
    )
    console.say(f"Open {out / 'report' / 'index.html'} in a browser.")


def _refuse_others(out: Path) -> None:
    """Refuse a folder with files of somebody else under the names of results."""
    from trustvlm.report import check_report

    check_report(out / "report")
    others = [name for name in ("verdicts.csv", "metrics.json") if (out / name).exists()]
    if others and not (out / "demo.trust").is_dir():
        raise InputError(
            f"Expected {str(out)!r} to be new, or of an earlier demonstration, but it holds "
            f"{others[0]!r} of another kind. Name another folder (--output)."
        )


def _spoilt(labels: Path) -> dict[str, str]:
    with labels.open(newline="", encoding="utf-8") as file:
        return {row["path"]: row.get("corruption", "") for row in csv.DictReader(file)}


def _right_and_wrong(result: EvaluationResult, spoilt: dict[str, str]) -> str:
    right = result.correct()
    accepted = [v.decision == "accept" for v in result.verdicts]
    n, n_accepted = len(accepted), sum(accepted)
    good = sum(a and r for a, r in zip(accepted, right, strict=True))
    saved = sum(not a and not r for a, r in zip(accepted, right, strict=True))
    lines = [
        f"{int(right.sum())} of {n} labels are right. {n_accepted} were accepted, of which {good} "
        f"are right; {n - n_accepted} were sent to review, of which {saved} are wrong.",
    ]
    missed = [
        (v, result.class_names[y])
        for v, y, r, a in zip(result.verdicts, result.labels, right, accepted, strict=True)
        if a and not r
    ]
    if missed:
        lines.append("Wrong, yet accepted:")
    for verdict, truth in sorted(missed, key=lambda pair: -pair[0].confidence):
        corruption = spoilt.get(verdict.path, "")
        lines.append(
            f"  {verdict.path}: '{verdict.label}' ({verdict.confidence:.2f}), but it is '{truth}'"
            + (f" [{corruption}]" if corruption not in ("", "none") else "")
        )
    return "\n".join(lines)
