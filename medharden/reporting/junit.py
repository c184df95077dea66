"""The gate's decision as JUnit XML, so that any build server can show it and stop on it."""

from __future__ import annotations

import io

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from medharden.record import Endpoint, GateDecision, Verdict
from medharden.text import neutral, neutral_lines

__all__ = ["junit_xml"]


def junit_xml(decision: GateDecision) -> bytes:
    """One test case an endpoint: FAIL and INCONCLUSIVE are failures, INVALID is an error.

    A subgroup is a test case too; where it is INCONCLUSIVE it counts as skipped: it doesn't hold the verdict back. So
    does an alternative beside one that was shown.

    A verdict that no endpoint explains gets a test case of its own, `verdict`, with the reasons.
    """
    classname = f"medharden.gate.{decision.protocol_name}"
    suite = TestSuite("medharden gate")
    if decision.decided:
        suite.timestamp = decision.decided
    for name, value in (
        ("verdict", decision.verdict.value),
        ("protocol", decision.protocol),
        ("hardened", decision.hardened),
        ("evaluation", decision.evaluation),
        ("margins_justified", str(decision.margins_justified).lower()),
    ):
        suite.add_property(name, value)
    spared = {e.comparator for e in decision.endpoints if e.role == "alternative" and e.verdict is Verdict.PASS}
    for endpoint in decision.endpoints:
        case = _case(endpoint.name, classname, endpoint.verdict, _message(endpoint))
        if _spared(endpoint, spared) or (endpoint.role == "reported" and endpoint.verdict is not Verdict.PASS):
            case.result = [Skipped(neutral(_message(endpoint)))]
        suite.add_testcase(case)
    for subgroup in decision.subgroups:
        case = _case(subgroup.name, classname, subgroup.verdict, _message(subgroup))
        if subgroup.verdict is Verdict.INCONCLUSIVE:
            case.result = [Skipped(neutral(_message(subgroup)))]
        suite.add_testcase(case)
    harmed = [s for s in decision.subgroups if s.verdict is Verdict.FAIL]
    decided = [e.verdict for e in (*decision.endpoints, *harmed) if not _spared(e, spared) and e.role != "reported"]
    if decision.verdict is not Verdict.PASS and decision.verdict not in decided:
        reasons = "; ".join(decision.reasons) or "the gate gave no reason"
        suite.add_testcase(_case("verdict", classname, decision.verdict, reasons))
    xml = JUnitXml("medharden")
    xml.add_testsuite(suite)
    xml.update_statistics()
    buffer = io.BytesIO()
    xml.write(buffer, pretty=True)
    return neutral_lines(buffer.getvalue().decode("utf-8")).encode("utf-8")


def _spared(endpoint: Endpoint, comparators: set[str]) -> bool:
    """Whether another alternative was shown instead, against the same comparator."""
    open_one = endpoint.role == "alternative" and endpoint.verdict is Verdict.INCONCLUSIVE
    return open_one and endpoint.comparator in comparators


def _message(endpoint: Endpoint) -> str:
    return endpoint.reason or f"{endpoint.name}: {endpoint.verdict.value}"


def _case(name: str, classname: str, verdict: Verdict, message: str) -> TestCase:
    case = TestCase(neutral(name), classname=classname)
    if verdict is Verdict.INVALID:
        case.result = [Error(neutral(message), verdict.value)]
    elif verdict is not Verdict.PASS:
        case.result = [Failure(neutral(message), verdict.value)]
    return case
