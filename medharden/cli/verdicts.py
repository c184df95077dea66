"""`medharden gate`, `report` and `frontier`: need no torch."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from medharden.audit import RunFiles, digest_file
from medharden.audit.inventory import is_signed
from medharden.cli.console import marked, out, warn, write
from medharden.cli.decided import (
    COLOURS,
    endpoint_machine,
    endpoint_tables,
    gravest,
    next_steps,
    outcome_lines,
    told_findings,
)
from medharden.codes import steps
from medharden.gating import Standing, check_decision, gate, gate_artefact
from medharden.protocol import load_protocol
from medharden.record import ARTEFACTS, Evaluation, GateDecision, HardenRecord, Verdict
from medharden.reporting import markdown_summary
from medharden.reporting.numbers import percent, points_interval, points_named

__all__ = [
    "COLOURS",
    "EXIT_CODES",
    "GateJob",
    "required_digest",
    "run_frontier",
    "run_gate",
    "run_report",
    "show_verdict",
]

_DIGEST = re.compile(r"[0-9a-f]{64}")

EXIT_CODES = {Verdict.PASS: 0, Verdict.FAIL: 3, Verdict.INCONCLUSIVE: 4, Verdict.INVALID: 5}


@dataclass(frozen=True)
class GateJob:
    """What `gate` was asked to do.

    Attributes:
        protocol: name, path or digest of the protocol that is required; None takes the run's own.
        read_only: write nothing.
        check: write nothing, and hold the decision on record against one made anew.
        supersede: decide over a signed state.
        artefact: an exported model to decide on in the composite's place.
    """

    run: Path
    protocol: str | None
    authorised: Path | None
    ledger: Path | None
    read_only: bool
    check: bool
    supersede: bool
    as_markdown: bool
    artefact: Path | None = None


def run_gate(job: GateJob) -> int:
    """Decides, prints and returns the exit code; on a signed run it compares with the signed decision."""
    required = required_digest(job.protocol)
    if job.artefact is not None:
        return _gate_artefact(job, job.artefact, required)
    signed = not (job.read_only or job.supersede) and job.run.is_dir() and is_signed(job.run)
    if job.check or signed:
        return _check(job, required)
    decision = gate(
        job.run,
        protocol=required,
        authorised=job.authorised,
        ledger=job.ledger,
        read_only=job.read_only,
        supersede=job.supersede,
    )
    _print(job, decision, ())
    return EXIT_CODES[decision.verdict]


def _gate_artefact(job: GateJob, artefact: Path, required: str) -> int:
    """Decides on an exported model; a report that lies in the run is rendered anew, for it shows the verdict."""
    decision = gate_artefact(
        job.run, digest_file(artefact), protocol=required, read_only=job.read_only, supersede=job.supersede
    )
    if not job.read_only and (job.run / "report.html").is_file():
        from medharden.reporting import render

        render(job.run)
    _print(job, decision, (f"of the artefact {artefact.name}, sha256 {decision.artefact[:12]}",))
    return EXIT_CODES[decision.verdict]


def _check(job: GateJob, required: str) -> int:
    standing = check_decision(job.run, protocol=required, authorised=job.authorised, ledger=job.ledger)
    _print(job, standing.decision, _stands(job.run, standing))
    return EXIT_CODES[Verdict.INVALID] if standing.differences else EXIT_CODES[standing.decision.verdict]


def _stands(run: Path, standing: Standing) -> tuple[str, ...]:
    """Whether the decision on record stands, in lines."""
    what = "the signed decision" if is_signed(run) else "the decision on record"
    if not standing.differences:
        return (f"{what} stands: decided anew it is {standing.decision.verdict}; nothing was written",)
    return (f"{what} does not stand; nothing was written", *standing.differences)


def _print(job: GateJob, decision: GateDecision, notes: tuple[str, ...]) -> None:
    if job.as_markdown:
        write(markdown_summary(decision, notes))
        _add_to_step_summary(decision, notes)
    else:
        show_verdict(job.run, decision, notes=notes)


def required_digest(protocol: str | None) -> str:
    """The digest of a protocol that is given by name, path or digest; "" for none.

    Raises:
        ProtocolError: it is neither a digest nor a protocol.
    """
    if protocol is None:
        return ""
    return protocol.lower() if _DIGEST.fullmatch(protocol.lower()) else load_protocol(protocol).digest


def run_report(run: Path, folder: Path | None = None) -> None:
    """Renders a run's records and prints what was written."""
    from medharden.reporting import render
    from medharden.verifying import write_bom

    paths = render(run, folder) if folder is not None else (*render(run), write_bom(run))
    out.show([f"wrote {p}" for p in paths], {"written": [str(p) for p in paths]})


def run_frontier(run: Path, target: Path | None) -> None:
    """Draws the frontier and prints the weights tried."""
    from medharden.reporting import draw_frontier

    path, points, chosen = draw_frontier(run, target)
    table = Table(
        "weight", "gained", "lost", "clean change", "limits", "under attack", box=None, padding=(0, 1), pad_edge=False
    )
    for p in points:
        mark = " chosen" if p.weight == chosen else ""
        change = (p.gained - p.lost) / p.cases
        limits, robust = points_interval((p.lower, p.upper)), f"{percent(p.robust)} of {p.attacked}"
        table.add_row(f"{p.weight:.2f}{mark}", str(p.gained), str(p.lost), points_named(change), limits, robust)
    machine = {"picture": str(path), "chosen": chosen, "points": [asdict(p) for p in points]}
    out.show([table, f"wrote {path}"], machine)


def show_verdict(run: Path, decision: GateDecision, report: Path | None = None, *, notes: tuple[str, ...] = ()) -> None:
    """Whose protocol it is first, then endpoints with their limits, what to do, and the verdict last.

    Told to be quiet, it prints the verdict and the gravest reason alone.
    """
    files = RunFiles(run)
    place = f"{ARTEFACTS}/{decision.artefact[:16]}/" if decision.artefact else ""
    evaluation, record = files.record(f"{place}evaluation.json", Evaluation), files.record("harden.json", HardenRecord)
    machine = _machine(run, decision, evaluation, record) | {"notes": list(notes)}
    colour = COLOURS[decision.verdict]
    verdict = marked(f"[bold {colour}]{{}}[/] · {{}}", decision.verdict, decision.protocol_name)
    if out.quiet:
        reason = gravest(decision)
        out.show([verdict.append(f": {reason}" if reason else ""), *notes], machine)
    else:
        parts: list[RenderableType] = [_whose(decision), *endpoint_tables(decision.endpoints, "endpoint")]
        parts += [*endpoint_tables(decision.subgroups, "subgroup"), *outcome_lines(evaluation, record)]
        parts += told_findings((*record.findings, *evaluation.findings, *decision.findings), decision)
        parts += next_steps(decision)
        if report is not None:
            parts.append(marked("report: [bold]{}[/]", report))
        parts += [marked("[bold]{}[/]", note) for note in notes]
        framed = Panel(Group(*parts), subtitle=verdict, border_style=colour, padding=(0, 1))
        out.show(framed if out.terminal else Group(*parts, verdict), machine)
    _add_to_step_summary(decision, notes)


def _whose(decision: GateDecision) -> str:
    """The first line: a verdict is worth what its protocol asks, and who chose that."""
    digest = f"sha256 {decision.protocol[:12]}"
    if decision.protocol_required == decision.protocol:
        return f"protocol: {decision.protocol_name}, {digest}, as required"
    if decision.protocol_required:
        return f"protocol: {decision.protocol_name}, {digest}, not the one that is required"
    return (
        f"protocol: the run's own, {decision.protocol_name}, {digest}: whoever made the run chose what it "
        "asks; --protocol requires yours"
    )


def _add_to_step_summary(decision: GateDecision, notes: tuple[str, ...] = ()) -> None:
    """Appends the decision to the summary page of a GitHub job, where there is one."""
    page = os.environ.get("GITHUB_STEP_SUMMARY")
    if not page:
        return
    try:
        with Path(page).open("a", encoding="utf-8") as stream:
            stream.write(markdown_summary(decision, notes))
    except OSError as error:
        # The verdict stands, and its exit code with it.
        warn(f"the step summary could not be written: {error.strerror}")


def _machine(run: Path, decision: GateDecision, evaluation: Evaluation, record: HardenRecord) -> dict[str, object]:
    return {
        "verdict": str(decision.verdict),
        "exit_code": EXIT_CODES[decision.verdict],
        "run": str(run),
        "protocol": decision.protocol,
        "protocol_required": decision.protocol_required,
        "reasons": list(decision.reasons),
        "to_do": [asdict(step) for step in steps(decision)],
        "margins_justified": decision.margins_justified,
        "endpoints": [endpoint_machine(e) for e in decision.endpoints],
        "subgroups": [endpoint_machine(e) for e in decision.subgroups],
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
