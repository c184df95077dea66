"""What people state, what changed for patients, and the sanity curves: shown where there are any, named where not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from reporting_records import make_run

from medharden.audit import RunFiles
from medharden.protocol import Hazard, Signatory, Statements
from medharden.record import Finding
from medharden.reporting.page import html_report
from medharden.reporting.sanity import sanity_checks
from medharden.reporting.source import RunRecords, read_run
from medharden.reporting.statements import NOT_STATED, harm_rows, risk_rows, sign_rows


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> RunRecords:
    return read_run(RunFiles(make_run(tmp_path_factory.mktemp("run"))))


def shown(records: RunRecords) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html_report(records).decode()).split())


def test_statements_of_the_protocol_are_shown_as_text(records: RunRecords) -> None:
    stated = Statements(
        population="Adults of two emergency departments, 2019 to 2023",
        reference_standard="Two radiologists, a third where they differ",
        hazards=(Hazard(hazard="Missed <b>pneumonia</b>", link="RMF-017", residual_risk="acceptable, see file"),),
        residual_risk="acceptable",
        sign_off=(Signatory(meaning="Approved", role="Head of radiology", name="A. Example"),),
        retention="10 years, quality department",
    )
    text = shown(replace(records, protocol=records.protocol.model_copy(update={"report": stated})))
    for part in (
        "Adults of two emergency departments, 2019 to 2023",
        "Two radiologists, a third where they differ",
        "Missed &lt;b&gt;pneumonia&lt;/b&gt; RMF-017 acceptable, see file",
        "Approved Head of radiology A. Example",
        "10 years, quality department",
    ):
        assert part in text


def test_what_nobody_stated_is_named_and_the_usual_roles_sign_on_blank_lines(records: RunRecords) -> None:
    assert risk_rows(records.protocol) == ((NOT_STATED,) * 3,)
    assert sign_rows(records.protocol) == (
        ("Prepared", "Developer of the model", ""),
        ("Reviewed", "Clinical expert", ""),
        ("Approved", "Quality management", ""),
    )


def test_what_changed_for_patients_counts_wrong_answers_and_begins_with_what_was_missed(records: RunRecords) -> None:
    missed, alarms = harm_rows(records)
    table = records.cases
    assert table is not None
    sick = table.label == 1
    before, after = (int((table.subjects[s].predicted[sick] != 1).sum()) for s in ("original", "composite"))
    assert missed.label == "Findings missed (pneumonia)"
    assert (missed.before.split(" ")[0], missed.after.split(" ")[0]) == (str(before), str(after))
    assert int(missed.after.split(" ")[0]) == before + int(missed.newly_wrong) - int(missed.newly_right)
    assert alarms.label == "False alarms (pneumonia)"


def test_a_sanity_check_fails_by_its_finding_and_none_is_claimed_without_curves(records: RunRecords) -> None:
    assert [c.held for c in sanity_checks(records.evaluation)] == [True, True, True]
    warned = (Finding("sanity.accuracy_rises", "warning", "composite: more steps leave more."),)
    evaluation = replace(records.evaluation, findings=warned)
    assert [c.held for c in sanity_checks(evaluation)] == [True, False, True]
    without = replace(records, evaluation=replace(records.evaluation, sanity=()))
    assert sanity_checks(without.evaluation) == ()
    assert "Not measured: the protocol asks for no sanity cases." in shown(without)
