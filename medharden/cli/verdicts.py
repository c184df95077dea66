"""`medharden gate`, `report` and `frontier`: need no torch."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from medharden.audit import read_record
from medharden.cli.console import out
from medharden.gating import gate
from medharden.record import Endpoint, Evaluation, GateDecision, HardenRecord, Verdict
from medharden.reporting import draw_frontier, markdown_summary, render

__all__ = ["EXIT_CODES", "run_frontier", "run_gate", "run_report", "show_verdict"]

EXIT_CODES = {Verdict.PASS: 0, Verdict.FAIL: 3, Verdict.INCONCLUSIVE: 4, Verdict.INVALID: 5}
_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow", Verdict.INVALID: "magenta"}


def run_gate(
    run: Path, *, authorised: Path | None = None, ledger: Path | None = None, as_markdown: bool = False
) -> int:
    """Decides, prints and returns the exit code."""
    decision = gate(run, authorised=authorised, ledger=ledger)
    if as_markdown:
        sys.stdout.write(markdown_summary(decision))
        _add_to_step_summary(decision)
    else:
        show_verdict(run, decision)
    return EXIT_CODES[decision.verdict]


def run_report(run: Path) -> None:
    """Renders a run's records and prints what was written."""
    from medharden.verifying import write_bom

    paths = (*render(run), write_bom(run))
    lines = "\n".join(f"wrote {escape(str(p))}" for p in paths)
    out.show(lines, {"written": [str(p) for p in paths]})


def run_frontier(run: Path, target: Path | None) -> None:
    """Draws the frontier and prints the weights tried."""
    path, points, chosen = draw_frontier(run, target)
    table = Table(
        "weight", "gained", "lost", "clean change", "limits", "under the probe attack", box=None, padding=(0, 1)
    )
    for p in points:
        mark = " chosen" if p.weight == chosen else ""
        change = (p.gained - p.lost) / p.cases
        limits = f"{p.lower:+.3f}, {p.upper:+.3f}"
        robust = f"{p.robust:.3f} of {p.attacked}"
        table.add_row(f"{p.weight:.2f}{mark}", str(p.gained), str(p.lost), f"{change:+.3f}", limits, robust)
    machine = {"picture": str(path), "chosen": chosen, "points": [asdict(p) for p in points]}
    out.show(Group(table, f"wrote {escape(str(path))}"), machine)


def show_verdict(run: Path, decision: GateDecision, report: Path | None = None) -> None:
    """The summary: endpoints with their limits first, the verdict last."""
    evaluation = read_record(run / "evaluation.json", Evaluation)
    record = read_record(run / "harden.json", HardenRecord)
    parts: list[Table | str] = [_endpoints(decision.endpoints, "endpoint")]
    parts += [_endpoints(decision.subgroups, "subgroup")] if decision.subgroups else []
    parts += [_subjects(evaluation), _cost(record)]
    findings = (*record.findings, *evaluation.findings, *decision.findings)
    told = {f.message: f.severity for f in findings if f.severity != "info" and f.message not in decision.reasons}
    parts += [f"[yellow]{severity}[/] {escape(message)}" for message, severity in told.items()]
    parts += [f"· {escape(reason)}" for reason in decision.reasons]
    if report is not None:
        parts.append(f"report: [bold]{escape(str(report))}[/]")
    colour = _COLOURS[decision.verdict]
    verdict = f"[bold {colour}]{decision.verdict}[/] · {escape(decision.protocol_name)}"
    shown = Panel(Group(*parts), subtitle=verdict, border_style=colour) if out.terminal else Group(*parts, verdict)
    out.show(shown, _machine(run, decision, evaluation, record))
    _add_to_step_summary(decision)


def _add_to_step_summary(decision: GateDecision) -> None:
    """Appends the decision to the summary page of a GitHub job, where there is one."""
    page = os.environ.get("GITHUB_STEP_SUMMARY")
    if not page:
        return
    try:
        with Path(page).open("a", encoding="utf-8") as stream:
            stream.write(markdown_summary(decision))
    except OSError as error:
        # The verdict stands, and its exit code with it.
        sys.stderr.write(f"the step summary could not be written: {error.strerror}\n")


def _endpoints(endpoints: tuple[Endpoint, ...], what: str) -> Table:
    table = Table(
        what,
        "estimate",
        "limits",
        "held against",
        "n",
        "gained, lost",
        "can show",
        "needed",
        "power",
        "verdict",
        box=None,
        padding=(0, 1),
    )
    for e in endpoints:
        smallest = "" if e.smallest_margin is None else f"±{e.smallest_margin:.3f}"
        table.add_row(
            escape(e.name),
            f"{e.estimate:+.3f}",
            f"{e.lower:+.3f}, {e.upper:+.3f}",
            f"{e.limit:+.3f}",
            str(e.n),
            f"{e.table[1]}, {e.table[2]}" if e.table else "",
            smallest,
            "" if e.needed is None else str(e.needed),
            "" if e.power is None else f"{e.power:.2f}",
            f"[{_COLOURS[e.verdict]}]{e.verdict}[/]",
        )
    return table


def _subjects(evaluation: Evaluation) -> Table:
    """Shares of each model; records of no case at all are INVALID, and are shown as such."""
    table = Table("model", "clean", "under attack", box=None, padding=(0, 1))
    for s in evaluation.subjects:
        table.add_row(
            s.name.replace("_", " "),
            f"{s.clean_accuracy:.3f} of {s.n}" if s.n else "none",
            f"{s.robust_accuracy:.3f} of {s.attacked}" if s.attacked else "none",
        )
    return table


def _cost(record: HardenRecord) -> str:
    cost, epoch, whole = record.cost, record.epoch_ratio, record.whole_ratio
    text = f"cost: {cost.steps} steps of {cost.passes} pass in {cost.train_seconds:.0f} s"
    if epoch is None or whole is None:
        return text
    return (
        f"{text}; an epoch takes {epoch:.2f} times one of ordinary clean fine-tuning, "
        f"all of hardening {whole:.2f} times as many of them"
    )


def _numbers(e: Endpoint) -> dict[str, object]:
    shown = ("name", "verdict", "estimate", "lower", "upper", "level", "limit", "n", "patients", "table")
    planned = ("smallest_margin", "needed", "power")
    return {name: getattr(e, name) for name in (*shown, *planned)}


def _machine(run: Path, decision: GateDecision, evaluation: Evaluation, record: HardenRecord) -> dict[str, object]:
    return {
        "verdict": str(decision.verdict),
        "exit_code": EXIT_CODES[decision.verdict],
        "run": str(run),
        "reasons": list(decision.reasons),
        "margins_justified": decision.margins_justified,
        "endpoints": [_numbers(e) for e in decision.endpoints],
        "subgroups": [_numbers(e) for e in decision.subgroups],
        "subjects": [
            {
                "name": s.name,
                "clean_accuracy": s.clean_accuracy if s.n else None,
                "n": s.n,
                "robust_accuracy": s.robust_accuracy if s.attacked else None,
                "attacked": s.attacked,
            }
            for s in evaluation.subjects
        ],
        "clean_path_identical": evaluation.identity.state_equal and evaluation.identity.logits_equal,
        "epoch_cost_ratio": record.epoch_ratio,
        "whole_cost_ratio": record.whole_ratio,
    }
