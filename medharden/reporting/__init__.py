"""Renders a run's records as page, PDF, model card, JSON and JUnit XML; computes nothing of its own.

Each name is imported when it is first used: a build that prints a decision as Markdown has nothing that draws.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medharden.reporting.compared import compared_markdown, shown_rows
    from medharden.reporting.comparison_page import compared_page
    from medharden.reporting.frontier import draw_frontier
    from medharden.reporting.markdown import markdown_summary
    from medharden.reporting.rendering import render, report_files

__all__ = [
    "compared_markdown",
    "compared_page",
    "draw_frontier",
    "markdown_summary",
    "render",
    "report_files",
    "shown_rows",
]

_HOMES = {
    "compared_markdown": "compared",
    "compared_page": "comparison_page",
    "draw_frontier": "frontier",
    "markdown_summary": "markdown",
    "render": "rendering",
    "report_files": "rendering",
    "shown_rows": "compared",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"medharden.reporting.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'medharden.reporting' has no attribute {name!r}")
