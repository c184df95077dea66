"""The HTML page: views and charts poured into the template, with escaping always on."""

from __future__ import annotations

import functools
import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from medharden.codes import all_codes
from medharden.record import Finding
from medharden.reporting.artefacts import artefact_rows
from medharden.reporting.charts import forest_chart, frontier_chart, robustness_chart, training_chart
from medharden.reporting.clauses import clause_rows
from medharden.reporting.clean import (
    endpoint_rows,
    methods_of,
    paired_tables,
    subgroup_rows,
    summary,
    told_findings,
    told_once,
)
from medharden.reporting.curve import area_rows, curve_chart, curve_rows
from medharden.reporting.excluded import excluded_rows
from medharden.reporting.findings import finding_figures, finding_rows
from medharden.reporting.first_page import first_page
from medharden.reporting.grades import grade_rows
from medharden.reporting.matrix import threat_matrix
from medharden.reporting.numbers import moment
from medharden.reporting.pictures import gallery
from medharden.reporting.provenance import (
    data_rows,
    digest_rows,
    environment_rows,
    model_rows,
    protocol_text,
    time_rows,
)
from medharden.reporting.robust import (
    class_rows,
    cohort_flow,
    cost_rows,
    direction_rows,
    frontier_rows,
    reconciliation,
    subject_rows,
)
from medharden.reporting.sanity import sanity_checks, sanity_rows
from medharden.reporting.score_charts import reliability_chart, roc_chart, sanity_chart
from medharden.reporting.scores import auroc_rows, calibrations, reliability_rows, score_panels
from medharden.reporting.shifts import shift_rows
from medharden.reporting.source import RunRecords
from medharden.reporting.stability import stability_rows
from medharden.reporting.statements import (
    NOT_STATED,
    harm_rows,
    preprocessing_rows,
    risk_rows,
    sign_rows,
    stated_rows,
)
from medharden.reporting.tested import tested_rows
from medharden.reporting.usefulness import useful_rows, usefulness
from medharden.reporting.wording import ATTACKS, LOSSES, article_15, threat_rows, untested
from medharden.reporting.worst_cases import worst_cases
from medharden.text import neutral_lines

__all__ = ["environment", "html_report"]

_CLEAN_KINDS = ("noninferiority", "brier", "grade_error", "kappa", "identity", "clean_floor", "referral")


@functools.cache
def environment() -> Environment:
    """The templates, with escaping always on; a name that nobody filled is an error."""
    made = Environment(
        loader=PackageLoader("medharden.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["typed"] = _typed
    return made


def _typed(text: str) -> Markup:
    """A text, escaped, in which commands and fields between backticks are set as what is typed."""
    return Markup(re.sub(r"`([^`<>]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704


def html_report(records: RunRecords) -> bytes:
    """One self-contained page: no script, nothing fetched, no sign that steers or hides others."""
    protocol, evaluation, harden, decision = records.protocol, records.evaluation, records.harden, records.decision
    rows, subgroups = endpoint_rows(records), subgroup_rows(records)
    seen, harm = summary(records), harm_rows(records)
    kinds = [e.kind for e in decision.endpoints]
    margin = next(m.margin for m in protocol.endpoints.noninferiority if m.metric == "accuracy")
    agree, counts = reconciliation(records)
    panels = score_panels(records)
    predicted, calibrated = calibrations(records)
    page = environment().get_template("report.html.j2")
    text = page.render(
        records=records,
        protocol=protocol,
        summary=seen,
        first=first_page(
            title=protocol.title,
            whom=seen.whom,
            cautioned=bool(seen.unjustified),
            reasons=seen.reasons,
            harm=harm,
            endpoints=tuple(zip(decision.endpoints, rows, strict=True)),
            findings=seen.findings,
            untested=untested(protocol),
        ),
        decided=moment(decision.decided),
        clean_endpoints=told_once([row for row, kind in zip(rows, kinds, strict=True) if kind in _CLEAN_KINDS]),
        robust_endpoints=told_once(
            [row for row, kind in zip(rows, kinds, strict=True) if kind not in (*_CLEAN_KINDS, "shift")]
        ),
        shift=shift_rows(records),
        paired=paired_tables(records, "noninferiority"),
        paired_attacked=paired_tables(records, "robust_gain"),
        forest=forest_chart(decision.endpoints, tuple(row.label for row in rows)),
        subgroups=subgroups,
        subgroup_methods=methods_of(subgroups),
        subgroup_forest=forest_chart(decision.subgroups, tuple(row.label for row in subgroups), "subgroup"),
        harm=harm,
        stated=stated_rows(records),
        todo=_todo,
        preprocessing=preprocessing_rows(protocol, records.cohort),
        roc=roc_chart(panels),
        auroc=auroc_rows(panels),
        reliability=reliability_chart(predicted, calibrated),
        reliability_rows=reliability_rows(calibrated),
        calibration=calibrated,
        predicted=predicted,
        useful=useful_rows(usefulness(records)),
        curve=curve_chart(records),
        curve_rows=curve_rows(records),
        area_rows=area_rows(records),
        sanity=sanity_chart(evaluation.sanity),
        sanity_rows=sanity_rows(evaluation.sanity),
        sanity_checks=sanity_checks(evaluation),
        risks=risk_rows(protocol),
        residual=protocol.report.residual_risk or NOT_STATED,
        side_effects=protocol.report.side_effects or NOT_STATED,
        retention=protocol.report.retention or NOT_STATED,
        signatures=sign_rows(protocol),
        model=model_rows(records),
        data=data_rows(records),
        flow=cohort_flow(records.cohort),
        excluded=excluded_rows(records.cohort),
        missing=decision.missing,
        stability=stability_rows(records.stability),
        changes=decision.changes,
        grades=grade_rows(records),
        worst=worst_cases(records),
        counts_agree=agree,
        counts=counts,
        threat=threat_rows(protocol),
        suite=protocol.suite,
        attacks=ATTACKS,
        losses=LOSSES,
        subjects=subject_rows(records),
        artefacts=artefact_rows(records.artefacts),
        classes=class_rows(records),
        directions=direction_rows(records),
        by_finding=finding_rows(finding_figures(records)),
        robustness=robustness_chart(records),
        training=training_chart(harden, records.cohort),
        frontier=frontier_chart(harden.fusion, margin, 1 - 2 * protocol.endpoints.alpha),
        frontier_rows=frontier_rows(harden.fusion),
        cost=cost_rows(harden, protocol),
        gallery=None if records.examples is None else gallery(records.examples, evaluation.classes),
        findings=told_findings(records),
        threats=threat_matrix(records),
        tested=tested_rows(evaluation, records.tests, decision, protocol.report.tester, protocol.seed),
        article=article_15(protocol, evaluation.subject("composite").attacked),
        untested=untested(protocol),
        clauses=clause_rows(records),
        digests=digest_rows(records),
        times=time_rows(records),
        environment=environment_rows(records),
        same_environment=all(ours == theirs for _, ours, theirs in environment_rows(records)),
        protocol_text=protocol_text(records),
    )
    return neutral_lines(text).encode("utf-8")


def _todo(finding: Finding) -> str:
    """What to do about a finding, where there is something to do."""
    known = all_codes().get(finding.code)
    return "" if known is None or known.do.startswith("Nothing") else known.do
