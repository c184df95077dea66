"""The first page: what decides, on one sheet however much a run holds; what is left out there is told, with its place.

Everything that grows with a protocol has a share of the sheet: reasons, wrong answers by class, endpoints, findings.
What is not shown stands further back whole, and the page says how much it is and where.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from medharden.codes import Step
from medharden.record import Endpoint, Finding, Verdict
from medharden.reporting.clean import EndpointRow
from medharden.reporting.statements import HarmRow

__all__ = ["FirstEndpoints", "FirstPage", "clipped", "first_page"]

_FINDINGS = 3
_CLASSES = 4  # of so many wrong answers are shown whole, of more those of the worst
_WORST = 3
_FEWEST, _MOST = 3, 10  # endpoints
_LABEL, _WHOM, _FINDINGS_IN_ALL, _ITEM = 60, 235, 480, 175  # characters
_WIDTH = 84  # characters of a line beside the verdict, in a wide font
_REASONS = ((2, 2 * _WIDTH, 5), (2, _WIDTH, _FEWEST), (1, _WIDTH, 0))
"""How many, of how many characters, where so many endpoints have room beside them."""

_ROOM = 300  # what reasons, wrong answers and endpoints share, in CSS pixels of the printed sheet; the rest is bounded
_LINE, _GAP, _ROW, _TITLE = 17, 5, 20, 24
_GRAVITY = (Verdict.INVALID, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)
_MAIN = ("identity", "accuracy", "sensitivity", "specificity", "robust_floor", "robust_gain")
"""What is asked about first, of the endpoints that are met."""
_DECIDES_NOTHING = "reported"


@dataclass(frozen=True)
class FirstEndpoints:
    """The endpoints of the first page.

    Attributes:
        heading: what must be met.
        shown: those that decide: what is not met first, then the main ones.
        rest: what the others came to, such as `17 more are met`; empty where all are shown.
        unmet: whether one of the others is not met.
    """

    heading: str
    shown: tuple[EndpointRow, ...]
    rest: str
    unmet: bool


@dataclass(frozen=True)
class FirstPage:
    """What the first page shows of everything that has no bound of its own.

    Attributes:
        whom: on whom the verdict rests.
        reasons: the gravest, each with what to do.
        more_reasons: how many are left out, or told in part.
        harm: wrong answers, of the classes that lost most.
        more_harm: what the other classes came to, or empty.
        endpoints: those that decide.
        findings: the gravest.
        more_findings: how many are left out, or told in part.
        untested: what was not tested.
    """

    whom: str
    reasons: tuple[Step, ...]
    more_reasons: int
    harm: tuple[HarmRow, ...]
    more_harm: str
    endpoints: FirstEndpoints
    findings: tuple[Finding, ...]
    more_findings: int
    untested: tuple[str, ...]


def first_page(
    *,
    title: str,
    whom: str,
    cautioned: bool,
    reasons: Sequence[Step],
    harm: Sequence[HarmRow],
    endpoints: Sequence[tuple[Endpoint, EndpointRow]],
    findings: Sequence[Finding],
    untested: Sequence[str],
) -> FirstPage:
    """Shares the sheet out.

    Args:
        title: of the protocol.
        whom: on whom the verdict rests.
        cautioned: whether the verdict says that margins are not justified.
        reasons: the gravest first.
        harm: wrong answers by class.
        endpoints: in the decision's order, each with its row.
        findings: warnings and what is critical, the gravest first.
        untested: what was not tested.
    """
    shown_harm, more_harm = _harm(harm)
    fixed = _ROW * len(shown_harm) + _LINE * bool(more_harm) + (2 * _LINE + _GAP) * cautioned
    fixed += _TITLE * (-(-len(title) // 60) - 1)
    for most, longest, enough in _REASONS:
        told = _asked_once(tuple(Step(clipped(r.reason, longest), r.code, r.do) for r in reasons[:most]))
        more = _left(reasons, [r.reason for r in told], [r.reason for r in reasons])
        rows = (_ROOM - fixed - sum(_height(r) for r in told) - (_LINE + _GAP) * bool(more)) // _ROW
        if rows >= enough:
            break
    each = _FINDINGS_IN_ALL // max(2, len(findings[:_FINDINGS]))
    said = tuple(Finding(f.code, f.severity, clipped(f.message, each)) for f in findings[:_FINDINGS])
    return FirstPage(
        whom=clipped(whom, _WHOM),
        reasons=told,
        more_reasons=more,
        harm=shown_harm,
        more_harm=more_harm,
        endpoints=_endpoints(endpoints, max(_FEWEST, min(_MOST, rows))),
        findings=said,
        more_findings=_left(findings, [f.message for f in said], [f.message for f in findings]),
        untested=tuple(clipped(item, _ITEM) for item in untested),
    )


def clipped(text: str, longest: int) -> str:
    """A text as it is where it is short, else to the end of a sentence, or of a word, with an ellipsis."""
    if len(text) <= longest:
        return text
    sentence = max((m.end() for m in re.finditer(r"[.;](?= )", text[:longest])), default=0)
    if sentence >= longest // 2:
        return f"{_whole(text[:sentence].rstrip('.;'))} …"
    word = text.rfind(" ", 0, longest)
    return f"{_whole(text[: word if word > 0 else longest]).rstrip(',;: ')} …"


def _height(step: Step) -> int:
    """Of a reason with what to do, in pixels."""
    lines = -(-len(step.reason) // _WIDTH) + (-(-len(f"To do: {step.do} {step.code}") // _WIDTH) if step.do else 0)
    return _LINE * lines + _GAP


def _whole(text: str) -> str:
    """Without a command whose second backtick was cut off."""
    return text[: text.rfind("`")].rstrip() if text.count("`") % 2 else text


def _left(every: Sequence[object], told: Sequence[str], whole: Sequence[str]) -> int:
    """How many are not told, or not whole."""
    return len(every) - sum(a == b for a, b in zip(told, whole, strict=False))


def _asked_once(told: tuple[Step, ...]) -> tuple[Step, ...]:
    """What to do is said once, after the last of the reasons in a row that ask for it."""
    after = (*told[1:], None)[: len(told)]
    return tuple(
        replace(one, do="") if following is not None and (following.code, following.do) == (one.code, one.do) else one
        for one, following in zip(told, after, strict=True)
    )


def _harm(rows: Sequence[HarmRow]) -> tuple[tuple[HarmRow, ...], str]:
    """All, or the classes that lost most and what the others came to."""
    if len(rows) <= _CLASSES:
        return tuple(rows), ""
    worst = sorted(range(len(rows)), key=lambda i: (-_number(rows[i].newly_wrong), i))
    shown, rest = sorted(worst[:_WORST]), sorted(worst[_WORST:])
    lost, won = (sum(_number(getattr(rows[i], part)) for i in rest) for part in ("newly_wrong", "newly_right"))
    return (
        tuple(rows[i] for i in shown),
        f"Shown are the {_WORST} of {len(rows)} that lost most; the others: {lost:,} newly wrong, {won:,} newly right",
    )


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def _endpoints(held: Sequence[tuple[Endpoint, EndpointRow]], room: int) -> FirstEndpoints:
    deciding = [(e, row) for e, row in held if e.role != _DECIDES_NOTHING]
    ranked = sorted(range(len(deciding)), key=lambda i: (_rank(deciding[i][0]), i))
    shown, left = ranked[:room], [deciding[i][0].verdict for i in ranked[room:]]
    counts = Counter(left)
    parts = [f"{counts[v]} more {'is' if counts[v] == 1 else 'are'} {_STANDS[v]}" for v in _GRAVITY if counts[v]]
    reported = len(held) - len(deciding)
    if reported:
        parts.append(f"{reported} reported, which decide{'s' if reported == 1 else ''} nothing")
    alternatives = any(e.role == "alternative" for e, _ in held)
    return FirstEndpoints(
        heading="Endpoints: the co-primary ones must all be met, of the alternatives one"
        if alternatives
        else "Endpoints: all must be met",
        shown=tuple(_short(deciding[i][1]) for i in shown),
        rest="; ".join(parts),
        unmet=any(v is not Verdict.PASS for v in left),
    )


_STANDS = {
    Verdict.INVALID: "INVALID",
    Verdict.FAIL: "not met (FAIL)",
    Verdict.INCONCLUSIVE: "not shown to be met (INCONCLUSIVE)",
    Verdict.PASS: "met",
}


def _rank(e: Endpoint) -> tuple[int, int]:
    metric = e.name.partition(":")[0]
    main = metric in _MAIN or metric == "recall" or e.kind == "identity"
    return _GRAVITY.index(e.verdict), int(not main or e.kind == "shift")


def _short(row: EndpointRow) -> EndpointRow:
    return replace(row, label=clipped(row.label, _LABEL))
