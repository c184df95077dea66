"""The report: what a reader, a build server and a second run must be able to rely on."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import rfc8785
from junitparser import Error, Failure, JUnitXml
from reporting_records import make_run, rewrite

from medharden.audit import AuditLog, read_record
from medharden.errors import RunError
from medharden.record import Evaluation, Finding, GateDecision, Identity, Verdict
from medharden.reporting import render
from medharden.reporting.numbers import duration, percent, points, telling_digits

VOID = {"meta", "br", "img", "link", "input", "hr"}
THREE = ("atelectasis", "cardiomegaly", "effusion")


class Page(HTMLParser):
    """Collects elements and text, and checks that every element is closed in order."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.source = (run / "report.html").read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def rendered(run: Path) -> Page:
    render(run)
    return Page(run)


def flat(page: Page) -> str:
    return " ".join(page.text.split())


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_page_opens_with_the_verdict_and_is_well_formed(tmp_path: Path, verdict: Verdict) -> None:
    classes = THREE if verdict is Verdict.FAIL else ("normal", "pneumonia")
    page = rendered(make_run(tmp_path, verdict=verdict, classes=classes, endpoints=verdict is not Verdict.INVALID))
    assert verdict.value in page.text[: page.text.index("Clean accuracy")]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"])[1:] for _, a in page.elements if str(a.get("href")).startswith("#")}
    assert targets <= set(ids)
    assert page.source.count("<caption") == page.source.count("<table")


def test_the_page_fetches_and_runs_nothing(tmp_path: Path) -> None:
    page = rendered(make_run(tmp_path, examples=(1, 16, 16)))
    names = {tag for tag, _ in page.elements}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base"}
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    assert "http://" not in page.source
    assert "https://" not in page.source
    policies = [a["content"] for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_text_from_records_never_becomes_markup(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script>"
    quote = '"><img src=x onerror=alert(2)> $x_1$ \u5fc3\x07'
    page = rendered(
        make_run(
            tmp_path,
            classes=(attack, quote),
            title=f"</title><svg onload=alert(3)>{attack}",
            findings=(Finding("x.y", "critical", "</li><iframe src=x>"),),
            examples=(3, 16, 16),
        )
    )
    assert not {"script", "iframe"} & {tag for tag, _ in page.elements}
    assert not [a for _, a in page.elements if {"onerror", "onload"} & a.keys()]
    assert attack in page.text
    assert "</li><iframe src=x>" in page.text


def test_the_same_records_give_the_same_bytes_whatever_is_logged_afterwards(tmp_path: Path) -> None:
    run = make_run(tmp_path, classes=THREE, examples=(1, 4, 16, 16))
    first = {path: path.read_bytes() for path in render(run)}
    AuditLog(run / "audit.jsonl").append("report")
    assert {path: path.read_bytes() for path in render(run)} == first


def test_no_case_patient_or_path_appears_in_any_output(tmp_path: Path) -> None:
    outputs = render(make_run(tmp_path / "surname-run", examples=(1, 16, 16)))
    for path in outputs:
        assert not re.search(rb"case-(train|val|test|x)|patient-(train|val|test)|surname-run", path.read_bytes())


def test_numbers_come_with_interval_margin_and_counts(tmp_path: Path) -> None:
    text = flat(rendered(make_run(tmp_path)))
    assert "97.5% → 96.5%" in text
    assert "−1.00 pp [−1.98, −0.02]" in text
    assert "each value moved by at most 2/255 (0.00784 of the input range)" in text
    assert "Sensitivity (pneumonia)" in text
    assert "Bit-identical" in text
    assert "1,803 cases read = 1,800 used + 3 excluded" in text
    assert "the counts reconcile" in text
    assert "Margins not justified" not in text


def test_an_unjustified_margin_a_moved_clean_path_and_odd_counts_are_said(tmp_path: Path) -> None:
    run = make_run(tmp_path, justified=False, verdict=Verdict.INVALID, endpoints=False)
    moved = Identity("file", state_equal=True, logits_equal=False, max_abs_difference=0.25, cases=599)
    rewrite(run, "evaluation.json", Evaluation, identity=moved, split="val")
    text = flat(rendered(run))
    assert "Margins not justified." in text
    assert "Not identical" in text
    assert "logits differ by up to 0.25 over 599 test cases" in text
    assert "THE COUNTS DO NOT RECONCILE" in text
    (run / "cases.parquet").write_bytes(b"tampered with")
    assert "INVALID" in flat(rendered(run))


def test_examples_show_the_middle_slice_and_are_absent_unless_allowed(tmp_path: Path) -> None:
    assert "they are patient data" in flat(rendered(make_run(tmp_path / "without")))
    page = rendered(make_run(tmp_path / "volumes", classes=THREE, examples=(1, 5, 16, 16)))
    assert "The middle slice of each volume is shown" in flat(page)
    assert len(page.named("img")) == 9
    assert "Perturbation ×63" in flat(page)


@pytest.mark.parametrize(
    ("verdict", "endpoints", "failures", "errors"),
    [
        (Verdict.PASS, True, 0, 0),
        (Verdict.FAIL, True, 1, 0),
        (Verdict.INCONCLUSIVE, True, 1, 0),
        (Verdict.INVALID, False, 0, 1),
    ],
)
def test_junit_counts_and_types_follow_the_verdict(
    tmp_path: Path, verdict: Verdict, endpoints: bool, failures: int, errors: int
) -> None:
    *_, path = render(make_run(tmp_path, verdict=verdict, endpoints=endpoints))
    (suite,) = JUnitXml.fromfile(str(path))
    assert (suite.name, suite.failures, suite.errors) == ("medharden gate", failures, errors)
    assert suite.tests == (6 if endpoints else 1)
    assert {case.classname for case in suite} == {"medharden.gate.example"}
    results = [result for case in suite for result in case.result]
    assert [result.type for result in results] == [verdict.value] * (failures + errors)
    assert all(isinstance(result, Error if errors else Failure) for result in results)


def test_junit_stops_the_build_when_a_finding_and_no_endpoint_decides(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    rewrite(run, "gate.json", GateDecision, verdict=Verdict.FAIL, reasons=("hardening.collapse: one class only",))
    *_, path = render(run)
    (suite,) = JUnitXml.fromfile(str(path))
    assert (suite.tests, suite.failures) == (7, 1)


def test_report_json_is_canonical_and_holds_what_the_page_shows(tmp_path: Path) -> None:
    path, *_ = render(make_run(tmp_path, verdict=Verdict.FAIL))
    data = path.read_bytes()
    report = json.loads(data)
    assert rfc8785.dumps(report) + b"\n" == data
    assert report["schema"] == "medharden/report/1"
    assert report["verdict"] == "FAIL"
    assert [e["name"] for e in report["endpoints"]][:2] == ["identity", "accuracy"]
    composite = report["subjects"][-1]
    low, high = composite["robust_interval"]
    assert low < composite["robust_accuracy"] < high
    assert sum(row["cases"] for row in report["cohort"]["counts"]) == 1800


def test_one_robust_accuracy_has_one_interval(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    render(run)
    report = json.loads((run / "report.json").read_bytes())
    [floor] = [e for e in report["endpoints"] if e["kind"] == "robust_floor"]
    assert report["subjects"][-1]["robust_interval"] == [floor["lower"], floor["upper"]]
    shown = f"{100 * floor['lower']:.1f}, {100 * floor['upper']:.1f}"
    page = (run / "report.html").read_text(encoding="utf-8")
    card = (run / "model-card.md").read_text(encoding="utf-8")
    assert page.count(shown) >= 3  # first page, endpoints, models
    assert shown in card


def test_a_missing_record_is_named_with_the_command_that_writes_it(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "gate.json").unlink()
    with pytest.raises(RunError, match=r"lacks gate\.json.*run `medharden gate` first"):
        render(run)
    assert not (run / "report.html").exists()


def test_a_report_is_logged_before_a_record_is_opened_and_however_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def events() -> list[str]:
        return [json.loads(line)["event"] for line in (run / "audit.jsonl").read_text().splitlines()]

    run = make_run(tmp_path)
    before = len(events())
    with monkeypatch.context() as patch:
        patch.setattr("medharden.reporting.rendering.read_run", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            render(run)
    rewrite(run, "evaluation.json", Evaluation, split="val")
    with pytest.raises(RunError):
        render(run)
    rewrite(run, "evaluation.json", Evaluation, split="test")
    render(run)
    assert events()[before:] == [
        *("report.started", "report.interrupted"),
        *("report.started", "report.failed"),
        *("report.started", "report.recorded", "report.finished"),
    ]


def test_a_verdict_over_other_records_is_not_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    rewrite(run, "evaluation.json", Evaluation, finished="2026-02-01T00:00:00+00:00")
    with pytest.raises(RunError, match="the evaluation has digest"):
        render(run)


def test_numbers_read_as_they_should() -> None:
    assert (percent(0.9744), points(0.003), points(-0.012), points(-0.0001)) == ("97.4%", "+0.3", "−1.2", "0.0")
    assert [duration(s) for s in (7.84, 200, 3845)] == ["7.8 s", "3 min 20 s", "1 h 04 min"]
    assert telling_digits(-0.0204, -0.02, points) == 2
    assert telling_digits(-0.012, -0.02, points) == 1


def test_subgroups_are_shown_and_an_inconclusive_one_does_not_stop_the_build(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    accuracy = next(e for e in read_record(run / "gate.json", GateDecision).endpoints if e.name == "accuracy")
    groups = [
        replace(accuracy, name=f"sex={name}", kind="subgroup", verdict=verdict, reason=f"sex={name}: as it is", n=n)
        for name, verdict, n in (("F", Verdict.PASS, 290), ("<b>M</b>", Verdict.INCONCLUSIVE, 12))
    ]
    rewrite(run, "gate.json", GateDecision, subgroups=tuple(groups))
    render(run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "sex: F" in page
    assert "<b>M</b>" not in page
    assert "sex: &lt;b&gt;M" in page
    junit = JUnitXml.fromfile(str(run / "gate.junit.xml"))
    assert (junit.failures, junit.errors, junit.skipped) == (0, 0, 1)
    shown = json.loads((run / "report.json").read_text(encoding="utf-8"))["subgroups"]
    assert [(g["name"], g["verdict"]) for g in shown] == [("sex=F", "PASS"), ("sex=<b>M</b>", "INCONCLUSIVE")]


def test_a_brier_score_is_shown_as_a_score_and_not_in_points(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    decision = read_record(run / "gate.json", GateDecision)
    accuracy = next(e for e in decision.endpoints if e.name == "accuracy")
    brier = replace(accuracy, name="brier", kind="brier", estimate=0.0041, lower=-0.0012, upper=0.0094, limit=0.01)
    rewrite(run, "gate.json", GateDecision, endpoints=(*decision.endpoints, replace(brier, table=())))
    render(run)
    page = Page(run)
    assert "Brier score" in page.text
    assert "+0.004" in page.text
    assert "[\N{MINUS SIGN}0.001, +0.009]" in page.text
    assert "< +0.010" in page.text
