"""Renders a run's records as page, PDF, model card, JSON and JUnit XML; computes nothing of its own."""

from __future__ import annotations

from pathlib import Path

from medharden.audit import audited, canonical_json, write_atomic
from medharden.reporting.card import model_card
from medharden.reporting.frontier import draw_frontier
from medharden.reporting.junit import junit_xml
from medharden.reporting.machine import machine_report
from medharden.reporting.markdown import markdown_summary
from medharden.reporting.page import html_report
from medharden.reporting.pdf import pdf_report
from medharden.reporting.source import read_run, require_records

__all__ = ["draw_frontier", "markdown_summary", "render"]


def render(run: Path) -> tuple[Path, ...]:
    """Writes the report of a finished run beside its records; the same records give the same bytes.

    Args:
        run: the run directory, gate decision included.

    Returns:
        The paths of `report.json`, `report.html`, `report.pdf`, `model-card.md` and `gate.junit.xml`.

    Raises:
        RunError: a record is missing, unreadable or another run's.
        OutputError: the directory can't be written to.
    """
    require_records(run)
    with audited(run, "report") as log:
        records = read_run(run)
        machine, page = canonical_json(machine_report(records)) + b"\n", html_report(records)
        contents = {
            "report.json": machine,
            "report.html": page,
            "report.pdf": pdf_report(page, machine, records),
            "model-card.md": model_card(records),
            "gate.junit.xml": junit_xml(records.decision),
        }
        written = {name: write_atomic(run / name, data) for name, data in contents.items()}
        log.append("report.recorded", files=written)
    return tuple(run / name for name in contents)
