"""Whether the reports of a run directory are what its records give: rendered anew, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from medharden.audit import RunFiles, rendering_stack
from medharden.errors import MedHardenError
from medharden.verifying.bom import BOM, bom_bytes
from medharden.verifying.outcome import Fault

__all__ = ["REPORTS", "Render", "Rendered", "render_anew"]

REPORTS = ("report.json", "report.html", "report.pdf", "model-card.md", "gate.junit.xml", BOM)
Render = Callable[[RunFiles], Mapping[str, bytes] | None]
"""From the records of a run to its report files: `medharden.reporting.report_files`, which no verb imports.

None where what renders is not installed.
"""


@dataclass(frozen=True)
class Rendered:
    """What rendering anew came to.

    Attributes:
        same: files that came out to the same bytes.
        faults: files that contradict the records.
        elsewhere: files that another version of medharden or of its libraries rendered, or that nothing here renders:
            they can't be compared here.
    """

    same: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    elsewhere: tuple[str, ...] = ()


def render_anew(files: RunFiles, render: Render, stacks: Mapping[str, Mapping[str, str]]) -> Rendered:
    """Renders the reports that are there, and compares.

    Args:
        files: the run directory.
        render: makes the reports.
        stacks: file to what the log says it was rendered with; a file of which it says nothing counts as made here.
    """
    present = [name for name in REPORTS if files.has(name)]
    if not present:
        return Rendered()
    here = rendering_stack()
    elsewhere = tuple(name for name in present if dict(stacks.get(name, here)) != here)
    try:
        made = {BOM: bom_bytes(files)} if BOM in present else {}
        if set(present) - {BOM}:
            reports = render(files)
            if reports is None:
                elsewhere = tuple(name for name in present if name in elsewhere or name != BOM)
            made |= reports or {}
    except MedHardenError as error:
        faults = [Fault(name, f"can't be rendered anew from the records: {error}") for name in present]
        return Rendered(faults=tuple(f for f in faults if f.file not in elsewhere), elsewhere=elsewhere)
    same = tuple(name for name in present if made.get(name) == files.data(name))
    wrong = [name for name in present if name not in (*same, *elsewhere)]
    faults = [Fault(name, "is not what the records give: rendered anew it has other bytes") for name in wrong]
    return Rendered(same, tuple(faults), tuple(name for name in elsewhere if name not in same))
