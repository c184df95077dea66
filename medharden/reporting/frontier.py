"""The frontier of a run as a picture of its own: clean change against robustness over the fusion weight."""

from __future__ import annotations

import re
from contextlib import nullcontext
from importlib.resources import files as resources
from pathlib import Path

from medharden.audit import RunFiles, exclusive, write_atomic
from medharden.errors import OutputError, RunError
from medharden.record import FrontierPoint, HardenRecord
from medharden.reporting.charts import frontier_chart
from medharden.reporting.pdf import set_picture
from medharden.reporting.svg import light_palette, standalone
from medharden.text import neutral_lines

__all__ = ["draw_frontier"]


def draw_frontier(run: Path, target: Path | None = None) -> tuple[Path, tuple[FrontierPoint, ...], float]:
    """Draws the fusion weights tried on validation, with confidence bands and the operating point.

    Args:
        run: the run directory; `protocol.yaml` and `harden.json` suffice.
        target: the picture, in the form that its name's end says (`.svg`, `.png`, `.pdf`); None writes `frontier.svg`
            into the run directory.

    Returns:
        The picture's path, the points, and the chosen weight.

    Raises:
        RunError: a record is missing, or the fusion has no weight (it is not `mixed`).
        OutputError: the picture can't be written, or its name says no such form.
    """
    if not (run / "protocol.yaml").is_file():
        raise RunError(f"{run.name} is no run directory: it has no protocol.yaml")
    files = RunFiles(run)
    protocol, fusion = files.protocol(), files.record("harden.json", HardenRecord).fusion
    margin = next(m.margin for m in protocol.endpoints.noninferiority if m.metric == "accuracy")
    chart = frontier_chart(fusion, margin, 1 - 2 * protocol.endpoints.alpha)
    if chart is None:
        raise RunError(f"this run's fusion is {fusion.mode!r}: only 'mixed' weighs two answers and has a frontier")
    place = target or run / "frontier.svg"
    if place.suffix.lower() not in (".svg", ".png", ".pdf"):
        raise OutputError(f"expected a name that ends in .svg, .png or .pdf, found {place.name}; name the picture so")
    with exclusive(run) if target is None else nullcontext():
        write_atomic(place, _picture(str(chart), place.suffix.lower()))
    return place, fusion.frontier, fusion.weight


def _picture(svg: str, end: str) -> bytes:
    if end == ".svg":
        return neutral_lines(_standalone(svg)).encode()
    return set_picture(standalone(svg, light_palette()), "png" if end == ".png" else "pdf")


def _standalone(svg: str) -> str:
    """A chart of the page as a file: the page's colours come along, light and dark, on paper of their own."""
    style = (resources("medharden.reporting") / "templates" / "style.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)[:2]
    rules = (
        f"<style>:root {{{light}}} @media screen and (prefers-color-scheme: dark) {{ :root {{{dark}}} }} "
        "svg { background: var(--paper) }</style>"
    )
    opening, rest = svg.split(">", 1)
    return f'{opening} xmlns="http://www.w3.org/2000/svg">{rules}{rest}\n'
