"""A decision on a terminal: what decides whole at 80 columns, what it rests on below it, and what to do next."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from medharden.cli.console import marked, out
from medharden.codes import gravest_first, may_be_released, steps
from medharden.record import Endpoint, Evaluation, Finding, GateDecision, HardenRecord, Verdict
from medharden.reporting.limits import SCORES, endpoint_numbers
from medharden.reporting.numbers import duration, percent

__all__ = ["COLOURS", "endpoint_machine", "endpoint_tables", "gravest", "next_steps", "outcome_lines", "told_findings"]

COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow", Verdict.INVALID: "magenta"}
_WIDE = 128
"""Columns from which one table holds both what decides and what it rests on."""

_MEASURED = ("estimate", "limits", "against")
_PLANNED = ("n", "gained, lost", "can show", "needed", "power")


def endpoint_tables(endpoints: tuple[Endpoint, ...], what: str) -> list[Table]:
    """One table on a wide terminal or in a file; else what decides, and a second one with what it rests on."""
    if not endpoints:
        return []
    levels = {e.level for e in endpoints if e.kind != "identity"}
    limits = f"{100 * levels.pop():.5g}% limits" if len(levels) == 1 else "limits"
    heads = {"limits": limits}
    measured = tuple(heads.get(head, head) for head in _MEASURED)
    if out.console.width >= _WIDE:
        whole = _table(what, *measured, *_PLANNED, "verdict")
        for e in endpoints:
            whole.add_row(e.name, *endpoint_numbers(e), *_planned(e), _verdict(e))
        return [whole]
    decides, rests = _table(what, *measured, "verdict"), _table(what, *_PLANNED)
    for e in endpoints:
        decides.add_row(e.name, *endpoint_numbers(e), _verdict(e))
        if any(planned := _planned(e)):
            rests.add_row(e.name, *planned)
    return [decides, rests]


def _table(first: str, *heads: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first, overflow="fold", min_width=12)
    for head in heads:
        # a number is never cut nor broken; only a name may go on in the next line
        table.add_column(head, no_wrap=True, justify="left" if head == "verdict" else "right")
    return table


def _verdict(e: Endpoint) -> Text:
    return marked(f"[{COLOURS[e.verdict]}]{{}}[/]", e.verdict)


def _planned(e: Endpoint) -> tuple[str, ...]:
    smallest = ""
    if e.smallest_margin is not None:
        smallest = f"±{e.smallest_margin:.3f}" if e.kind in SCORES else f"±{100 * e.smallest_margin:.1f} pp"
    return (
        str(e.n) if e.n else "",
        f"{e.table[1]}, {e.table[2]}" if e.table else "",
        smallest,
        "" if e.needed is None else f"{e.needed:,}",
        "" if e.power is None else f"{e.power:.2f}",
    )


def outcome_lines(evaluation: Evaluation, record: HardenRecord) -> list[RenderableType]:
    """Each model's shares, clean and under attack, and what hardening cost; records of no case are shown as such."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for head in ("model", "clean", "under attack"):
        table.add_column(head, no_wrap=True, justify="left" if head == "model" else "right")
    for s in evaluation.subjects:
        table.add_row(
            {"composite": "release"}.get(s.name, s.name.replace("_", " ")),
            f"{percent(s.clean_accuracy)} of {s.n:,}" if s.n else "none",
            f"{percent(s.robust_accuracy)} of {s.attacked:,}" if s.attacked else "none",
        )
    return [table, _cost(record)]


def _cost(record: HardenRecord) -> str:
    cost, epoch, whole = record.cost, record.epoch_ratio, record.whole_ratio
    text = f"cost: {cost.steps} steps in {duration(cost.train_seconds)}"
    if epoch is None or whole is None:
        return text
    return (
        f"{text}; an epoch takes {epoch:.2f} times one of ordinary clean fine-tuning, with probes and calibration "
        f"{whole:.2f} times"
    )


def told_findings(findings: tuple[Finding, ...], decision: GateDecision) -> list[Text]:
    """Findings that are more than notes, each once, with the code that `medharden explain` knows."""
    told = {f.message: f for f in findings if f.severity != "info" and not _said(f, decision)}
    lines = [marked("[yellow]{}[/] {} [dim]({})[/]", f.severity, f.message, f.code) for f in told.values()]
    return [*lines, marked("[dim]`medharden explain CODE` says what a code means and what to do[/]")] if lines else []


def _said(finding: Finding, decision: GateDecision) -> bool:
    return any(reason.endswith(finding.message) for reason in decision.reasons)


def next_steps(decision: GateDecision) -> list[Text]:
    """The reasons, the gravest first, each with what to do; then whether the release may go out."""
    todo = {step.reason: step for step in steps(decision)}
    lines: list[Text] = []
    said = ""
    for reason in gravest_first(decision):
        lines.append(marked("· {}", reason))
        if reason in todo and todo[reason].do not in ("", said):
            said = todo[reason].do
            lines.append(marked("  [bold]to do:[/] {} [dim]({})[/]", said, todo[reason].code))
    return [*lines, marked("[bold]{}[/]", may_be_released(decision.verdict))]


def gravest(decision: GateDecision) -> str:
    """The reason that weighs most, or nothing."""
    return next(iter(gravest_first(decision)), "")


def endpoint_machine(e: Endpoint) -> dict[str, object]:
    """An endpoint for machines: proportions as numbers, and the same as the report words them."""
    shown = ("name", "verdict", "estimate", "lower", "upper", "level", "limit", "n", "patients", "table")
    planned = ("smallest_margin", "needed", "power")
    labels = dict(zip(("estimate", "limits", "held_against"), endpoint_numbers(e), strict=True))
    return {name: getattr(e, name) for name in (*shown, *planned)} | {"label": labels}
