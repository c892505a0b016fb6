from __future__ import annotations

from dataclasses import replace

import numpy as np

from evaluations import make_evaluation
from trustvlm import metrics
from trustvlm.decisions import Calibrator, certify
from trustvlm.pipeline.calibration_state import Calibration
from trustvlm.pipeline.predict import explain, verdicts_with_shots
from trustvlm.pipeline.verdict import Verdicts
from trustvlm.report import render_html
from trustvlm.report.page import figures_of
from trustvlm.report.sections import acceptance_section, probability_terms, threshold_of
from trustvlm.scores import Evidence


def calibrated(n=120, certificate="certify", **changes):
    """An evaluation by a model that was calibrated on other synthetic images."""
    other, shown = make_evaluation(n=300, seed=1), make_evaluation(n=n, seed=2, **changes)
    result = other.results["trustvlm"]
    rule = None
    if certificate:
        rule = certify(
            result.confidence, other.correct(), 0.2 if certificate == "certify" else 1e-4
        )
    calibration = Calibration(
        certificate=rule,
        calibrator=Calibrator().fit(result.confidence, other.correct()),
        result=result,
        labels=other.labels,
        images=tuple({"path": f"{i}.png", "sha256": f"{i:064d}"} for i in range(300)),
        dataset="held back",
        score="trustvlm",
        parameters={},
        created_at="2026-01-02T03:04:05+00:00",
    )
    own = shown.results["trustvlm"]
    p = calibration.p_correct(own)
    accepted = [False] * n if rule is None else own.confidence >= rule.threshold
    rows = [
        replace(v, p_correct=float(q), decision="accept" if a else "review")
        for v, q, a in zip(shown.verdicts, p, accepted, strict=True)
    ]
    manifest = {
        **shown.model,
        "calibration": calibration.to_manifest(len(shown.class_names)),
        "decision_rule": calibration.rule,
    }
    return replace(shown, verdicts=Verdicts(rows), model=manifest), calibration


def test_the_section_tells_the_promise_and_how_it_fares():
    evaluation, calibration = calibrated()
    section = acceptance_section(evaluation)
    statement = calibration.certificate.statement()
    assert section.sentences[0] == f"A{statement[1:]}."
    assert "300 labelled images of held back" in section.sentences[1]
    assert "drawn independently" in section.sentences[2]
    told = dict(section.measured)
    accepted = np.array(evaluation.verdicts.column("decision")) == "accept"
    wrong = (accepted & ~evaluation.correct()).sum()
    assert 0 < wrong < (~evaluation.correct()).sum()
    assert f"({accepted.sum()} of 120 images)" in told["Accepted here"]
    assert f"({wrong})" in told["Wrong among the accepted"]
    errors = (~evaluation.correct()).sum()
    caught = f"({(~accepted).sum()}), among them {errors - wrong} of {errors} wrong labels"
    assert told["Sent to review"].endswith(caught)
    terms = dict(probability_terms(evaluation))
    p = evaluation.verdicts.column("p_correct")
    assert terms["Brier score"].startswith(f"{metrics.brier(p, evaluation.correct()):.3f}")
    ece = f"{metrics.ece(p, evaluation.correct()):.3f}"
    assert terms["Calibration error (ECE)"].startswith(ece)


def test_the_page_begins_with_what_can_be_accepted():
    evaluation, calibration = calibrated()
    page = render_html(evaluation)
    assert "Reliability of P(correct)" in page
    assert "The dashed line is the certified threshold" in page
    assert ">threshold<" in page, "in the legend of the histogram"
    assert ">oracle<" in page, "in that of the curves"
    assert threshold_of(evaluation) == calibration.certificate.threshold
    assert page == render_html(evaluation)
    plain = make_evaluation(n=30)
    page = render_html(plain)
    assert (threshold_of(plain), probability_terms(plain)) == (None, ())
    assert "certified threshold" not in page
    assert "No error rate is guaranteed. Decisions are uncalibrated" in page
    assert "trustvlm calibrate MODEL.trust LABELLED" in page


def test_nothing_certified_and_shots_alone_are_said_to_be_so():
    nothing, _ = calibrated(certificate="impossible")
    section = acceptance_section(nothing)
    assert section.sentences[0].startswith("Nothing can be accepted: 300 labelled images")
    assert section.sentences[1].startswith("A threshold was sought at ")
    assert threshold_of(nothing) is None
    assert dict(section.measured)["Wrong among the accepted"] == "none is accepted"
    shots, _ = calibrated(certificate=None)
    section = acceptance_section(shots)
    assert len(section.sentences) == 2
    assert "optimistic where new images differ" in section.sentences[0]
    assert "300 shots were judged" in section.sentences[1]


def test_hostile_names_of_the_calibration_set_are_escaped():
    evaluation, _ = calibrated()
    evaluation.model["calibration"]["data"]["name"] = "<script>alert(1)</script>"
    assert "<script>alert(1)" not in render_html(evaluation)


def test_one_image_is_enough_for_a_diagram():
    evaluation, _ = calibrated(n=1)
    (figure,) = figures_of(evaluation)
    assert figure.name == "reliability"
    assert figure.svg().startswith("<svg")


def test_verdicts_of_an_evaluation_follow_the_calibration():
    evaluation, calibration = calibrated()
    own = evaluation.results["trustvlm"]
    logits = np.zeros((len(own.prediction), 5))
    shown = explain(Evidence.of(logits=logits), own.prediction)
    rows = verdicts_with_shots(own, shown, ["x"] * len(logits), evaluation.class_names, calibration)
    assert [r.decision for r in rows] == evaluation.verdicts.column("decision")
    assert [r.p_correct for r in rows] == evaluation.verdicts.column("p_correct")
