"""The report as PDF/A-3a and PDF/UA-1, set by Typst from the HTML page; `report.json` is attached to it."""

from __future__ import annotations

import functools
import json
import re
import shutil
import tempfile
import unicodedata
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import typst
from matplotlib.ft2font import FT2Font

from medharden.errors import OutputError
from medharden.reporting.page_tree import page_tree
from medharden.reporting.source import RunRecords
from medharden.reporting.svg import light_palette, standalone
from medharden.text import neutral

__all__ = ["pdf_report", "set_picture"]

_FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf")
_PICTURE = '#set page(width: auto, height: auto, margin: 12pt, fill: white)\n#set text(font: "DejaVu Sans")\n' + (
    '#image("picture.svg", alt: "frontier")\n'
)
_EPOCH = datetime(1970, 1, 1)


def pdf_report(page: bytes, machine: bytes, records: RunRecords) -> bytes:
    """The page as PDF; the same page and records give the same bytes.

    No text is markup to Typst: it arrives as values in a JSON file. Letters that the fonts lack stand as their code
    points, such as `[U+5FC3]`, because PDF/A allows no glyph that says nothing.

    Args:
        page: the HTML page.
        machine: `report.json`, to be attached.
        records: for title, date and footer.

    Raises:
        OutputError: Typst refuses the document, or the disk is full.
    """
    tree = page_tree(page.decode("utf-8"))
    palette = light_palette()
    content = _drawable(
        {
            "title": neutral(f"{records.decision.verdict.value}: {records.protocol.title}"),
            "version": records.evaluation.environment.medharden,
            "footer": neutral(
                f"{records.protocol.name} · released weights {records.evaluation.hardened[:16]} · "
                f"{records.decision.verdict.value}"
            ),
            "date": _moment(records),
            "palette": palette,
            "page": tree.root,
        }
    )
    template = files("medharden.reporting") / "templates" / "report.typ"
    try:
        with tempfile.TemporaryDirectory(prefix="medharden-") as folder:
            place = Path(folder)
            (place / "report.typ").write_bytes(template.read_bytes())
            (place / "page.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
            (place / "report.json").write_bytes(machine)
            for name, data in tree.files.items():
                drawing = _text(standalone(data.decode("utf-8"), palette)).encode() if name.endswith(".svg") else data
                (place / name).write_bytes(drawing)
            return _set(place)
    except OSError as error:
        raise OutputError(f"report.pdf could not be set: {error.strerror}; expected free space in {folder}") from error


def set_picture(svg: str, form: Literal["png", "pdf"]) -> bytes:
    """A drawing of the page as a picture of its own, on white, at twice the resolution of a screen.

    Args:
        svg: with its colours filled in.
        form: `png` or `pdf`.

    Raises:
        OutputError: the disk is full.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="medharden-") as folder:
            place = Path(folder)
            (place / "picture.svg").write_text(_text(svg), encoding="utf-8")
            (place / "picture.typ").write_text(_PICTURE, encoding="utf-8")
            return typst.compile(
                place / "picture.typ",
                root=place,
                font_paths=[_fonts_in(place)],
                ignore_system_fonts=True,
                format=form,
                ppi=192,
            )
    except OSError as error:
        raise OutputError(f"the picture could not be set: {error.strerror}; expected free space in {folder}") from error


def _fonts_in(place: Path) -> Path:
    fonts = place / "fonts"
    fonts.mkdir()
    for name in _FONTS:
        shutil.copyfile(_font(name), fonts / name)
    return fonts


def _set(place: Path) -> bytes:
    try:
        made = typst.compile(
            place / "report.typ",
            root=place,
            font_paths=[_fonts_in(place)],
            ignore_system_fonts=True,
            format="pdf",
            pdf_standards=["a-3a", "ua-1"],
        )
    except typst.TypstError as error:
        raise OutputError(f"report.pdf could not be set as PDF/A: {error.message}; report this as a defect") from error
    return made


def _font(name: str) -> Path:
    return Path(mpl.get_data_path()) / "fonts" / "ttf" / name


@functools.cache
def _letters() -> frozenset[int]:
    """Code points that can be drawn."""
    return frozenset(FT2Font(str(_font(_FONTS[0]))).get_charmap())


def _drawable(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {k: _drawable(v) for k, v in value.items()}
    return [_drawable(v) for v in value] if isinstance(value, list) else value


def _text(text: str) -> str:
    """Letters that no font here has, and signs that steer the order of others, as code points."""
    return re.sub(r"[^\n\x20-\x7e]", _letter, text)


def _letter(match: re.Match[str]) -> str:
    letter = match.group(0)
    kind = unicodedata.category(letter)
    if kind == "Cc":
        return " "
    return letter if ord(letter) in _letters() and kind not in ("Cf", "Co", "Cs", "Cn") else f"[U+{ord(letter):04X}]"


def _moment(records: RunRecords) -> list[int]:
    """The decision's time as recorded, so that the clock on the wall does not get into the file."""
    for text in (records.decision.decided, records.evaluation.finished):
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            continue
        break
    else:
        at = _EPOCH
    return [at.year, at.month, at.day, at.hour, at.minute, at.second]
