from __future__ import annotations

from dataclasses import replace

import numpy as np

from evaluations import make_evaluation
from trustvlm import metrics
from trustvlm.decisions import Calibrator, certify
from trustvlm.pipeline.predict import explain, verdicts_with_shots
from trustvlm.pipeline.state import Calibration
from trustvlm.pipeline.verdict import Verdicts
from trustvlm.report import render_html
from trustvlm.report.page import figures_of
from trustvlm.report.sections import calibration_section
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
    section = calibration_section(evaluation)
    assert "300 labelled images of held back" in section.guarantee[0]
    assert calibration.certificate.statement() in section.guarantee[1]
    assert "drawn independently" in section.guarantee[2]
    told = dict(section.measured)
    accepted = np.array(evaluation.verdicts.column("decision")) == "accept"
    wrong = (accepted & ~evaluation.correct()).sum()
    assert f"({accepted.sum()} of 120 images)" in told["Accepted here"]
    assert f"({wrong})" in told["Wrong among the accepted"]
    p = evaluation.verdicts.column("p_correct")
    assert told["Brier score"].startswith(f"{metrics.brier(p, evaluation.correct()):.3f}")
    assert told["Calibration error (ECE)"].startswith(f"{metrics.ece(p, evaluation.correct()):.3f}")


def test_the_page_has_the_section_only_where_there_is_a_calibration():
    evaluation, _ = calibrated()
    page = render_html(evaluation)
    assert page.count('id="calibration"') == 1
    assert 'href="#calibration"' in page
    assert "Reliability of P(correct)" in page
    assert "Decisions are calibrated: accept at confidence" in page.replace("&gt;", ">")
    assert page == render_html(evaluation)
    assert 'id="calibration"' not in render_html(make_evaluation(n=30))


def test_nothing_certified_and_shots_alone_are_said_to_be_so():
    nothing, _ = calibrated(certificate="impossible")
    section = calibration_section(nothing)
    assert "Nothing is accepted: none: 300 labelled images" in section.guarantee[1]
    assert section.guarantee[0].startswith("A threshold was sought at ")
    assert "Decisions are not calibrated: review everything" in render_html(nothing)
    assert dict(section.measured)["Wrong among the accepted"] == "none is accepted"
    shots, _ = calibrated(certificate=None)
    section = calibration_section(shots)
    assert len(section.guarantee) == 1
    assert "optimistic where new images differ" in section.guarantee[0]
    assert "300 shots were judged" in section.guarantee[0]


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
