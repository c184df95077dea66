"""Matplotlib figures as inline SVG: colours from the page's own variables, no ids, dates or addresses."""

from __future__ import annotations

import functools
import io
import re
import warnings
from importlib.resources import files
from typing import Literal

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from medharden.text import neutral

__all__ = ["COLOURS", "light_palette", "short", "standalone", "style_axes", "to_svg"]

# Stand-ins that become CSS variables in the page, so that one drawing serves light, dark and paper.
COLOURS = {
    "ink": "#010101",
    "muted": "#020202",
    "line": "#030303",
    "original": "#040404",
    "released": "#050505",
    "branch": "#060606",
    "pass": "#070707",
    "fail": "#080808",
    "inconclusive": "#090909",
    "invalid": "#0a0a0a",
    "paper": "#0b0b0b",
}
_SETTINGS = {
    "svg.hashsalt": "medharden",
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.unicode_minus": True,
    "text.parse_math": False,
}


def short(text: str, longest: int = 34) -> str:
    """A label cut to what a chart has room for."""
    text = neutral(text)
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def style_axes(axes: Axes, *, grid: Literal["x", "y", "both"] = "x") -> None:
    """Hairline axes, light grid lines behind the data, labels in the muted colour."""
    axes.set_facecolor("none")
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(side == "bottom")
        axes.spines[side].set_color(COLOURS["line"])
    axes.grid(visible=True, axis=grid, color=COLOURS["line"], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=COLOURS["line"], labelcolor=COLOURS["muted"], length=0, pad=5)
    axes.xaxis.label.set_color(COLOURS["muted"])
    axes.yaxis.label.set_color(COLOURS["muted"])


def to_svg(figure: Figure, name: str, description: str) -> Markup:
    """The drawing as an `<svg>` element for a page.

    Args:
        figure: drawn with the stand-in colours of `COLOURS`.
        name: prefix of the few ids that the drawing refers to, unique in the page.
        description: what the chart shows, for readers who can't see it.
    """
    figure.patch.set_visible(False)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), mpl.rc_context(_SETTINGS):
        # Class names may hold letters that matplotlib's own font lacks; the browser's font draws them.
        warnings.filterwarnings("ignore", message=r"(?s).*Glyph.*missing from")
        FigureCanvasSVG(figure).print_svg(
            buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    drawing = buffer.getvalue().decode("utf-8")
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>\s*", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"<!--.*?-->\s*", "", drawing, flags=re.DOTALL)
    drawing = _own_ids(drawing, name)
    drawing = re.sub(r"font:([^;\"]*?)([\d.]+)px [^;\"]*", r"font:\1\2px var(--sans)", drawing)
    for colour, stand_in in COLOURS.items():
        drawing = drawing.replace(stand_in, f"var(--{colour})")
    view = re.search(r'viewBox="([^"]*)"', drawing)
    body = drawing[drawing.index(">") + 1 :]
    box = view.group(1) if view else "0 0 360 200"
    # Everything that came from a record was escaped by matplotlib's XML writer or is escaped here.
    return Markup(f'<svg role="img" aria-label="{escape(description)}" viewBox="{box}">{body}')  # noqa: S704


@functools.cache
def light_palette() -> dict[str, str]:
    """The page's colours on white paper, by the names of its CSS variables."""
    style = (files("medharden.reporting") / "templates" / "style.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", style[: style.index("@media")]))


def standalone(svg: str, palette: dict[str, str]) -> str:
    """A chart of the page as a file of its own: namespace, colours and font written out."""
    drawing = str(svg).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    for name, colour in palette.items():
        drawing = drawing.replace(f"var(--{name})", colour)
    return drawing.replace("var(--sans)", "'DejaVu Sans'")


def _own_ids(drawing: str, name: str) -> str:
    """Drops ids that nothing refers to and makes the others the page's only ones of that name."""
    drawing = drawing.replace("xlink:href=", "href=")
    used = set(re.findall(r'href="#([^"]+)"', drawing)) | set(re.findall(r"url\(#([^)]+)\)", drawing))

    def own(match: re.Match[str]) -> str:
        return f' id="{name}-{match.group(1)}"' if match.group(1) in used else ""

    drawing = re.sub(r' id="([^"]*)"', own, drawing)
    drawing = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', drawing)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", drawing)
