"""From the records of a run to all forms of its report, in memory or beside the records."""

from __future__ import annotations

from pathlib import Path

from medharden.audit import RunFiles, audited, canonical_json, rendering_stack, write_atomic
from medharden.reporting.card import model_card
from medharden.reporting.junit import junit_xml
from medharden.reporting.machine import machine_report
from medharden.reporting.page import html_report
from medharden.reporting.pdf import pdf_report
from medharden.reporting.source import read_run, require_records
from medharden.text import escaped_json

__all__ = ["render", "report_files"]


def report_files(files: RunFiles) -> dict[str, bytes]:
    """The report of a finished run by file name; the same records give the same bytes.

    Raises:
        RunError: a record is missing, unreadable or another run's.
        OutputError: the PDF can't be set.
    """
    records = read_run(files)
    machine = escaped_json(canonical_json(machine_report(records)).decode("utf-8")).encode() + b"\n"
    page = html_report(records)
    return {
        "report.json": machine,
        "report.html": page,
        "report.pdf": pdf_report(page, machine, records),
        "model-card.md": model_card(records),
        "gate.junit.xml": junit_xml(records.decision),
    }


def render(run: Path, out: Path | None = None) -> tuple[Path, ...]:
    """Writes the report of a finished run.

    Args:
        run: the run directory, gate decision included.
        out: another folder for the report; the run directory is then only read. None writes beside the records, on
            record.

    Returns:
        The paths of `report.json`, `report.html`, `report.pdf`, `model-card.md` and `gate.junit.xml`.

    Raises:
        RunError: a record is missing, unreadable or another run's; or another process writes the run directory.
        OutputError: the folder can't be written to.
    """
    require_records(run)
    if out is not None:
        contents = report_files(RunFiles(run))
        for name, data in contents.items():
            write_atomic(out / name, data)
        return tuple(out / name for name in contents)
    with audited(run, "report") as log:
        contents = report_files(RunFiles(run))
        written = {name: write_atomic(run / name, data) for name, data in contents.items()}
        log.append("report.recorded", files=written, stack=rendering_stack())
    return tuple(run / name for name in contents)
