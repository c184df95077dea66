"""The first page: what decides stands on it however much a run holds, and nothing is lost but moved."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from reporting_many import many_endpoints
from reporting_records import make_run, rewrite

from medharden.audit import RunFiles, read_record
from medharden.codes import Step
from medharden.record import Finding, GateDecision, MissingRow, Verdict
from medharden.reporting.card import model_card
from medharden.reporting.clean import endpoint_rows, told_once, told_reasons
from medharden.reporting.first_page import FirstPage, clipped, first_page
from medharden.reporting.naming import readable
from medharden.reporting.page import html_report
from medharden.reporting.source import RunRecords, read_run
from medharden.reporting.statements import HarmRow
from medharden.reporting.wording import corruption_words
from medharden.reporting.worst_cases import worst_cases

MANY = tuple(f"finding {k}" for k in range(14))


def read(run: Path) -> RunRecords:
    return read_run(RunFiles(run))


def shown(records: RunRecords) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html_report(records).decode()).split())


def shared(records: RunRecords, **changes: object) -> FirstPage:
    held = {
        "title": "A title",
        "whom": "everybody",
        "cautioned": False,
        "reasons": (),
        "harm": (),
        "endpoints": tuple(zip(records.decision.endpoints, endpoint_rows(records), strict=True)),
        "findings": (),
        "untested": (),
    }
    return first_page(**(held | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> RunRecords:
    return read(many_endpoints(tmp_path_factory.mktemp("failing"), failed=2, unmet=3))


def test_what_is_not_met_stands_first_and_the_rest_is_counted(failing: RunRecords) -> None:
    page = shared(failing)
    verdicts = [row.verdict for row in page.endpoints.shown]
    assert verdicts[:5] == [Verdict.FAIL] * 2 + [Verdict.INCONCLUSIVE] * 3
    assert {row.label for row in page.endpoints.shown[5:]} <= {
        *("Clean path", "Accuracy", "Specificity (normal)", "Sensitivity (pneumonia)"),
        *("Robust accuracy, released", "Robust gain over original"),
    }
    deciding = [e for e in failing.decision.endpoints if e.role != "reported"]
    met = len(deciding) - len(verdicts)
    assert page.endpoints.rest == f"{met} more are met; 1 reported, which decides nothing"
    assert not page.endpoints.unmet
    assert re.search(r"\d+ more are met; 1 reported, which decides nothing", shown(failing))


def test_endpoints_that_are_not_met_and_have_no_room_are_counted_by_verdict(tmp_path: Path) -> None:
    records = read(many_endpoints(tmp_path, failed=12, unmet=14))
    page = shared(records)
    left = 12 - len(page.endpoints.shown)
    assert all(row.verdict is Verdict.FAIL for row in page.endpoints.shown)
    assert page.endpoints.rest.startswith(f"{left} more are not met (FAIL); 14 more are not shown to be met")
    assert page.endpoints.unmet


def test_nothing_is_lost_what_is_cut_stands_whole_further_back(tmp_path: Path) -> None:
    records = read(many_endpoints(tmp_path, classes=MANY, failed=4, unmet=4, justified=False))
    text = shown(records)
    for e in records.decision.endpoints:
        if e.verdict is not Verdict.PASS:
            assert e.reason.partition(": ")[2].strip()[1:] in text
    for finding in records.decision.findings:
        assert finding.message.strip() in text
    assert records.protocol.report.population.strip() in text
    for name in MANY:
        assert re.search(rf"{name} 4[23] \d", text), "its wrong answers, in section 2"
    assert "All 8 reasons in full" in text
    assert "All reasons of the verdict" in text


def test_a_run_with_few_endpoints_shows_all_and_says_of_no_rest(tmp_path: Path) -> None:
    records = read(make_run(tmp_path))
    page = shared(records)
    assert (len(page.endpoints.shown), page.endpoints.rest) == (6, "")
    text = shown(records)
    assert "more are met" not in text
    assert "All reasons of the verdict" not in text


def test_of_alternatives_it_is_said_that_one_suffices(failing: RunRecords) -> None:
    rows = endpoint_rows(failing)
    held = [(replace(e, role="alternative"), row) for e, row in zip(failing.decision.endpoints, rows, strict=True)]
    assert shared(failing).endpoints.heading == "Endpoints: all must be met"
    assert "of the alternatives one" in shared(failing, endpoints=held).endpoints.heading


def test_reasons_that_ask_for_the_same_say_it_once_and_a_long_one_is_cut_at_a_word(failing: RunRecords) -> None:
    steps = [Step(f"Reason {k}: {'word ' * 60}".strip(), "c", "Do this.") for k in range(3)]
    page = shared(failing, reasons=steps)
    assert [step.do for step in page.reasons] == ["", "Do this."]
    assert page.more_reasons == 3, "of which none is told whole"
    assert all(step.reason.endswith("word …") for step in page.reasons)
    other = shared(failing, reasons=[steps[0], replace(steps[1], do="Do that.")])
    assert [step.do for step in other.reasons] == ["Do this.", "Do that."]


def test_of_many_classes_those_that_lost_most_are_shown_and_the_others_summed_up(failing: RunRecords) -> None:
    rows = [HarmRow(f"class {k}", "50", "1", "2", str(k), "1,000") for k in range(7)]
    page = shared(failing, harm=rows)
    assert [row.label for row in page.harm] == ["class 4", "class 5", "class 6"]
    assert page.more_harm == "Shown are the 3 of 7 that lost most; the others: 6 newly wrong, 4,000 newly right"
    few = shared(failing, harm=rows[:4])
    assert (len(few.harm), few.more_harm) == (4, "")


def test_findings_are_counted_where_one_is_left_out_or_cut(failing: RunRecords) -> None:
    short = [Finding("a", "warning", f"Short {k}.") for k in range(4)]
    assert shared(failing, findings=short[:3]).more_findings == 0
    assert shared(failing, findings=short).more_findings == 1
    assert shared(failing, findings=[Finding("a", "warning", "word " * 90)]).more_findings == 1


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("short", "short"),
        ("One sentence here. Another that is long", "One sentence here …"),
        ("words and words and words and words", "words and words and words and …"),
        ("x" * 40, f"{'x' * 30} …"),
        ("See the list of `medharden explain verdict`", "See the list of …"),
    ],
)
def test_a_text_is_cut_at_a_sentence_or_a_word(text: str, cut: str) -> None:
    assert clipped(text, 30) == cut


def test_worst_cases_are_a_row_an_endpoint_and_what_does_not_change_is_one_sentence(failing: RunRecords) -> None:
    worst = worst_cases(failing)
    assert worst is not None
    assert worst.arms == ("the release alone", "the original alone", "both")
    assert [row.label for row in worst.rows] == ["Accuracy", "Robust accuracy, released", "Robust gain over original"]
    assert all(len(row.cells) == 3 for row in worst.rows)
    assert "Specificity (normal)" in worst.unchanged
    names = {e.name.partition(":")[2] for e in failing.decision.worst_case}
    assert len(worst.unchanged) + len(worst.rows) == len(names)
    turned, *gain = worst.turned
    assert len(gain) == 3, "in each arm"
    assert turned.startswith("Robust accuracy, released: PASS as decided, INCONCLUSIVE had the release alone lost")
    text = shown(failing)
    assert turned in text
    assert text.count("Nothing changes on: ") == 1
    assert "against_release" not in text


def test_a_worst_case_that_was_not_decided_otherwise_stands_by_itself(failing: RunRecords) -> None:
    alone = replace(failing.decision, endpoints=())
    worst = worst_cases(replace(failing, decision=alone))
    assert worst is not None
    assert (worst.unchanged, worst.turned) == ((), ())
    assert all(row.decided is None for row in worst.rows)
    assert worst_cases(replace(failing, decision=replace(failing.decision, worst_case=()))) is None


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("", "No case was left out and none was referred"),
        ("unusable", "None of the cases left out can belong to the test split"),
        ("referred", "referred by the released model alone"),
    ],
)
def test_missing_data_are_spoken_of_where_there_are_none_too(tmp_path: Path, kind: str, said: str) -> None:
    run = make_run(tmp_path)
    missing = (MissingRow(kind, "a reason", "normal", "train", "both", 2),) if kind else ()
    rewrite(run, "gate.json", GateDecision, missing=missing)
    text = shown(read(run))
    assert said in text
    assert ("None of the cases left out" in text) == (kind == "unusable")


def test_a_reason_for_a_limit_is_told_once_a_table_and_an_endpoint_that_is_met_needs_no_more_cases(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path)
    held = read_record(run / "gate.json", GateDecision)
    open_one = Verdict.INCONCLUSIVE
    long = "A reason that is long enough to be worth a reference to where it first stands."
    endpoints = tuple(
        replace(e, justification=long, needed=500, verdict=open_one if e.name == "sensitivity" else e.verdict)
        for e in held.endpoints
    )
    rewrite(run, "gate.json", GateDecision, endpoints=endpoints, verdict=Verdict.INCONCLUSIVE)
    rows = endpoint_rows(read(run))
    told = [row.justification for row in told_once(rows)]
    assert told == [long, *["as for Clean path."] * (len(rows) - 1)]
    assert [row.label for row in rows if row.needed] == ["Sensitivity (pneumonia)"]


def test_sentences_of_the_gate_name_endpoints_as_the_tables_do(failing: RunRecords) -> None:
    names = [e.name for e in (*failing.decision.endpoints, *failing.decision.subgroups)]
    assert {"robust_floor", "site=0:sensitivity", "shift:brightness-up:specificity"} <= set(names)
    said = readable(
        "Open are: site=0:sensitivity (n = 4), shift:brightness-up:specificity, robust_floor (61.5% to 58.6%); "
        "suite.robust_floor and xsite=0:sensitivity are something else.",
        failing,
    )
    assert said == (
        "Open are: site: 0, sensitivity (pneumonia) (n = 4), Specificity (normal) under higher brightness, "
        "Robust accuracy, released (61.5% to 58.6%); suite.robust_floor and xsite=0:sensitivity are something else."
    )
    none = replace(failing, decision=replace(failing.decision, endpoints=(), subgroups=()))
    assert readable("robust_floor (n = 4)", none) == "robust_floor (n = 4)"


def test_the_model_card_names_endpoints_so_too_and_the_class_once(failing: RunRecords) -> None:
    floor = next(e for e in failing.decision.endpoints if e.name == "robust_specificity")
    reason = "robust_specificity (normal): lower 95 % limit 29.0% does not reach 40.0%"
    ends = tuple(replace(e, reason=reason) if e is floor else e for e in failing.decision.endpoints)
    made = replace(failing, decision=replace(failing.decision, endpoints=ends, reasons=(reason, "patients: too few")))
    assert tuple(told_reasons(made).values()) == (
        "Robust specificity (normal): Lower 95 % limit 29.0% does not reach 40.0%.",
        "patients: too few",
    )
    card = model_card(made).decode()
    assert "Robust specificity (normal): Lower" in card
    assert "(normal) (normal)" not in card


def test_no_reason_or_finding_of_the_page_names_an_endpoint_as_the_record_does(failing: RunRecords) -> None:
    named = Finding("gate.x", "warning", "Open: site=1:specificity (n = 4), robust_gain (n = 2).")
    text = shown(replace(failing, decision=replace(failing.decision, findings=(named,))))
    before = text[: text.index("Records: ")]  # the matrix gives the fields themselves
    for name in ("site=1:specificity", "shift:rotation:accuracy", "robust_gain (n"):
        assert name not in before
    assert "site: 1, specificity (normal) (n = 4), Robust gain over original (n = 2)." in before


@pytest.mark.parametrize(
    ("name", "said"),
    [("blur", "blur"), ("jpeg", "JPEG compression"), ("gamma-down", "lower gamma"), ("contrast-up", "higher contrast")],
)
def test_corruptions_go_by_words(name: str, said: str) -> None:
    assert corruption_words(name) == said
