"""What people state, what changed for patients, and the sanity curves: shown where there are any, named where not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from reporting_records import make_run

from medharden.audit import RunFiles
from medharden.protocol import Hazard, Patients, Signatory, Splits, Statements
from medharden.record import Finding, clusters_of
from medharden.reporting.page import html_report
from medharden.reporting.provenance import data_rows
from medharden.reporting.sanity import sanity_checks
from medharden.reporting.scores import auroc_rows, score_panels, unit_table
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
    assert missed.label == "Missed cases (pneumonia)"
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


def test_areas_and_the_statistical_unit_count_a_copy_once_as_the_gate_does(records: RunRecords) -> None:
    """Every third test image is the one before it, of the same class, and half of these are another patient's."""
    test = records.cohort.split("test")
    pixels = {case.case: test[n - (n % 3 == 2)].pixels for n, case in enumerate(test)}
    cases = tuple(replace(c, pixels=pixels.get(c.case, c.pixels)) for c in records.cohort.cases)
    copied = replace(records, cohort=replace(records.cohort, cases=cases))
    units = clusters_of(copied.cohort, copied.protocol.splits.is_copy)
    table = unit_table(copied)
    assert table is not None
    assert (len(table.case), units.count) == (400, 200)
    assert set(table.patient) == set(units.unit.values())
    [before], [after] = (auroc_rows(score_panels(r)) for r in (records, copied))
    assert (after.positives, after.negatives) == ("200", "200")
    assert "Obuchowski" in after.method
    assert before.positives != after.positives
    unit = dict(data_rows(copied))["Statistical unit"]
    assert unit == f"patient; copies count once: {units.count} units of 300 in the test split"


@pytest.mark.parametrize(
    ("grouped_by", "unnamed", "stated", "said"),
    [
        ("patient", 0, False, "patient"),
        ("patient", 12, False, "patient; 12 of 1,800 cases name none and stand for one each"),
        ("patient", 12, True, "stand for one each, as the protocol states: One visit a person."),
        ("case", 1800, False, "so each case stands for one"),
        ("case", 1800, True, "so each case stands for one, as the protocol states: One visit a person."),
        ("patient", 0, True, "patient"),
    ],
)
def test_the_statistical_unit_says_whose_the_nameless_cases_are(
    records: RunRecords, grouped_by: str, unnamed: int, stated: bool, said: str
) -> None:
    splits = Splits(patients=Patients(unit="each_case", reason="One visit a person.") if stated else Patients())
    changed = replace(
        records,
        cohort=replace(records.cohort, grouped_by=grouped_by, unnamed=unnamed),
        protocol=records.protocol.model_copy(update={"splits": splits}),
    )
    assert dict(data_rows(changed))["Statistical unit"].endswith(said)


def test_a_table_of_other_cases_than_the_cohorts_is_shown_as_it_is(records: RunRecords) -> None:
    table = records.cases
    assert table is not None
    other = replace(records, cases=replace(table, case=("someone", *table.case[1:])))
    assert unit_table(other) is other.cases
    assert unit_table(replace(records, cases=None)) is None
