"""The gate's decision as Markdown, for the summary page of a build."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from medharden.codes import gravest_first, may_be_released, steps
from medharden.record import Endpoint, GateDecision
from medharden.reporting.limits import SCORES, endpoint_numbers
from medharden.text import neutral, neutral_lines

__all__ = ["markdown_summary", "plain"]

_MEASURED = ("verdict", "estimate", "limits", "held against", "n", "patients")
_PLANNED = ("gained, lost", "can show", "needed", "power")

# Each would begin markup somewhere; an entity shows as the letter everywhere.
_MARKS = "<>|[]`*~\\!$"


def markdown_summary(decision: GateDecision, notes: Sequence[str] = ()) -> str:
    """Verdict, notes, endpoints, subgroups, reasons and findings; numbers as in the report, in points and per cent."""
    lines = [
        f"## medharden gate: {decision.verdict}",
        "",
        f"Protocol {plain(decision.protocol_name)}, digest `{decision.protocol[:16]}`, "
        f"hardened weights `{decision.hardened[:16]}`. {_whose(decision)}",
        *(f"\n{plain(note)}." for note in notes),
        *_table("endpoint", decision.endpoints),
        *_table("subgroup", decision.subgroups),
        *_list("Reasons", gravest_first(decision)),
        *_list("What to do", list(dict.fromkeys(f"{step.do} ({step.code})" for step in steps(decision) if step.do))),
        "",
        plain(may_be_released(decision.verdict)),
        *_list("Findings", [f"{f.severity}, {f.code}: {f.message}" for f in decision.findings]),
    ]
    return neutral_lines("\n".join(lines) + "\n")


def _whose(decision: GateDecision) -> str:
    if decision.protocol_required:
        return "This protocol was required by whoever decided."
    return "It is the run's own: nobody but whoever made the run says that it is the right one."


def _table(what: str, endpoints: Sequence[Endpoint]) -> Iterator[str]:
    if not endpoints:
        return
    heads = (what, *_MEASURED, *_PLANNED)
    yield from ("", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|")
    for e in endpoints:
        smallest = "" if e.smallest_margin is None else _smallest(e)
        discordant = f"{e.table[1]}, {e.table[2]}" if e.table else ""
        needed = "" if e.needed is None else str(e.needed)
        power = "" if e.power is None else f"{e.power:.2f}"
        measured = (*map(plain, endpoint_numbers(e)), str(e.n), str(e.patients))
        planned = (discordant, smallest, needed, power)
        yield f"| {' | '.join((plain(e.name), str(e.verdict), *measured, *planned))} |"


def _smallest(e: Endpoint) -> str:
    return f"{e.smallest_margin:.3f}" if e.kind in SCORES else f"{100 * (e.smallest_margin or 0):.1f} pp"


def _list(title: str, entries: Sequence[str]) -> Iterator[str]:
    if entries:
        yield from ("", f"### {title}", "", *(f"- {plain(entry)}" for entry in entries))


def plain(text: str) -> str:
    """Text from outside, such as names of classes: no markup, no link, no new line, no new cell."""
    shown = " ".join(neutral(text).split())
    shown = shown.replace("&", "&amp;")
    for mark in _MARKS:
        shown = shown.replace(mark, f"&#{ord(mark)};")
    shown = re.sub(r"(?<!\w)_|_(?!\w)", "&#95;", shown)  # within a word it is a letter
    # what would begin a heading, a rule or a list at the start of a line
    shown = re.sub(r"^(?:[#=-]|\+(?=\s|$))", lambda found: f"&#{ord(found[0])};", shown)
    shown = re.sub(r"^(\d+)([.)])(?=\s|$)", lambda found: f"{found[1]}&#{ord(found[2])};", shown)
    return shown.replace("://", "&#58;//").replace("www.", "www&#46;")
