"""The gate's decision as JUnit XML, so that any build server can show it and stop on it."""

from __future__ import annotations

import io

from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

from medharden.record import Endpoint, GateDecision, Verdict

__all__ = ["junit_xml"]


def junit_xml(decision: GateDecision) -> bytes:
    """One test case an endpoint: FAIL and INCONCLUSIVE are failures, INVALID is an error.

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
    for endpoint in decision.endpoints:
        suite.add_testcase(_case(endpoint.name, classname, endpoint.verdict, _message(endpoint)))
    if decision.verdict is not Verdict.PASS and all(e.verdict is not decision.verdict for e in decision.endpoints):
        reasons = "; ".join(decision.reasons) or "the gate gave no reason"
        suite.add_testcase(_case("verdict", classname, decision.verdict, reasons))
    xml = JUnitXml("medharden")
    xml.add_testsuite(suite)
    xml.update_statistics()
    buffer = io.BytesIO()
    xml.write(buffer, pretty=True)
    return buffer.getvalue()


def _message(endpoint: Endpoint) -> str:
    return endpoint.reason or f"{endpoint.name}: {endpoint.verdict.value}"


def _case(name: str, classname: str, verdict: Verdict, message: str) -> TestCase:
    case = TestCase(_printable(name), classname=classname)
    if verdict is Verdict.INVALID:
        case.result = [Error(_printable(message), verdict.value)]
    elif verdict is not Verdict.PASS:
        case.result = [Failure(_printable(message), verdict.value)]
    return case


def _printable(text: str) -> str:
    """XML can't hold control characters, and class names come from outside."""
    return "".join(c if c.isprintable() else " " for c in text)
