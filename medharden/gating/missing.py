"""Missing data: which cases no answer counts of, by reason, class and arm, and what the endpoints would be at worst.

Missing may be a case of both arms (it could not be read, or its label is not known), or of the release alone (it was
referred). Three worst cases bound what the cases left out can do: all of them lost by the release and won by the
original, the reverse, and lost by both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from medharden.gating.exclusions import answered_endpoints, guesses, perhaps_of_test, with_lost
from medharden.gating.robustness import REPORTED
from medharden.protocol import Protocol
from medharden.record import CaseTable, CohortRecord, Endpoint, Label, MissingRow, Verdict, present

__all__ = ["missing_rows", "worst_case_endpoints", "worst_case_reason"]

_GRAVITY = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.INVALID)
_LABEL_REASONS = ("uncertain", "missing")
_AGAINST_RELEASE = "against_release"
_SCENARIOS = {
    _AGAINST_RELEASE: (True, False),
    "against_original": (False, True),
    "against_both": (False, False),
}
"""Name to whether the original, and the release, are right on every case that was left out."""


def missing_rows(cohort: CohortRecord, cases: CaseTable) -> tuple[MissingRow, ...]:
    """How many cases no answer counts of, the most frequent first.

    Args:
        cohort: with the cases left out.
        cases: the test cases with the answers as given, before referred ones are counted.
    """
    counted: Counter[tuple[str, str, str, str, str]] = Counter()
    for case in cohort.lost:
        unclear = any(word in case.reason for word in _LABEL_REASONS)
        counted[
            "uncertain" if unclear else "unusable",
            case.reason,
            _named(cohort, case.label),
            case.split or "not split yet",
            "both",
        ] += 1
    released = cases.subjects["composite"]
    for row in released.referred.nonzero()[0].tolist():
        label: Label = (
            tuple((cases.label[row] == 1).nonzero()[0].tolist()) if cases.multilabel else int(cases.label[row])
        )
        counted["referred", "referred to a reader", _named(cohort, label), "test", "release"] += 1
    rows = [MissingRow(*key, cases=count) for key, count in counted.items()]
    return tuple(sorted(rows, key=lambda r: (-r.cases, r.kind, r.reason, r.label, r.split)))


def worst_case_endpoints(protocol: Protocol, cohort: CohortRecord, cases: CaseTable) -> Iterator[Endpoint]:
    """The endpoints on answers under each worst case; they decide nothing unless the protocol says so.

    Of cases whose class nobody knows the worst guess counts, endpoint by endpoint.

    Args:
        protocol: margins and floors.
        cohort: with the cases left out.
        cases: units of analysis.
    """
    left_out = perhaps_of_test(cohort)
    if not left_out:
        return
    for scenario, (original, release) in _SCENARIOS.items():
        worst: dict[str, Endpoint] = {}
        for guess in guesses(cohort, left_out):
            supposed = with_lost(cases, left_out, guess, len(cohort.classes), original=original, release=release)
            for e in answered_endpoints(protocol, cohort.classes, supposed):
                if e.name not in worst or _badness(e) > _badness(worst[e.name]):
                    worst[e.name] = e
        for e in worst.values():
            yield replace(e, name=f"{scenario}:{e.name}", reason=f"{scenario}:{e.reason}", role=REPORTED)


def worst_case_reason(protocol: Protocol, supposed: tuple[Endpoint, ...]) -> str:
    """Why nothing passes where the protocol asks the worst case to pass and it does not; or nothing."""
    if protocol.splits.excluded_worst_case != "must_pass":
        return ""
    fallen = [
        e.name.partition(":")[2]
        for e in supposed
        if e.name.startswith(f"{_AGAINST_RELEASE}:") and e.verdict is not Verdict.PASS
    ]
    if not fallen:
        return ""
    return (
        f"exclusions: had the release lost every case that was left out and the original none, {', '.join(fallen)} "
        "would not pass, and splits.excluded_worst_case asks that they do"
    )


def _badness(e: Endpoint) -> tuple[int, float]:
    return _GRAVITY.index(e.verdict), e.limit - e.lower


def _named(cohort: CohortRecord, label: Label | None) -> str:
    if label is None:
        return "unknown"
    return ", ".join(cohort.classes[k] for k in present(label)) or "no finding"
