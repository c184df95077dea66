"""The HTML page as a tree of plain values: what the PDF is set from, so that both say the same."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

__all__ = ["PageTree", "page_tree"]

_VOID = {"meta", "br", "img"}
_SKIPPED = {"head", "nav", "footer"}
_BLOCKS = {"header", "main", "section", "div", "h1", "h2", "h3", "p", "ul", "ol", "li", "table", "figure", "figcaption"}
_BLOCKS |= {"html", "body", "pre", "details", "summary", "chart"}
_CHART = re.compile(r'<svg role="img" aria-label="([^"]*)" viewBox="0 0 ([\d.]+) ([\d.]+)".*?</svg>', re.DOTALL)
_MARK = re.compile(r'<svg class="mark".*?</svg>', re.DOTALL)
_LONG = 22  # characters from which a column takes what room is left
_LONGEST = 120
_LINE = 100  # characters that a line of a table holds
_TALL = 0.6  # height over width from which a chart is drawn narrower


@dataclass
class PageTree:
    """The page's body, and the files that it refers to by name.

    Attributes:
        root: nested `{"tag", "class", "kids", "block"}` with texts as leaves; `block` where it is no part of a line.
            Tables are `{"tag", "class", "caption", "head", "body", "columns"}`, pictures `{"tag", "file", "alt"}`.
        files: PNG and SVG by name; the SVG as it stands in the page.
    """

    root: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def page_tree(page: str) -> PageTree:
    """Reads the page that the template wrote. Every text from a record stays a text: it was escaped there."""
    tree = PageTree()

    def chart(match: re.Match[str]) -> str:
        name = f"chart-{len(tree.files)}.svg"
        tree.files[name] = match.group(0).encode("utf-8")
        tall = "1" if float(match.group(3)) > _TALL * float(match.group(2)) else ""
        return f'<chart data-file="{name}" data-tall="{tall}" data-alt="{match.group(1)}"></chart>'

    parser = _Reader(tree)
    parser.feed(_CHART.sub(chart, _MARK.sub("", page)))
    parser.close()
    tree.root = _tidy(parser.top)
    return tree


class _Reader(HTMLParser):
    """Collects elements; the page is our own and well-formed, so every element is closed in order."""

    def __init__(self, tree: PageTree) -> None:
        super().__init__()
        self._tree = tree
        self.top: dict[str, Any] = {"tag": "main", "attrs": {}, "kids": []}
        self._open = [self.top]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node: dict[str, Any] = {"tag": tag, "attrs": {k: v or "" for k, v in attrs}, "kids": []}
        self._open[-1]["kids"].append(node)
        if tag == "img":
            node["file"] = self._picture(node["attrs"]["src"])
        if tag not in _VOID:
            self._open.append(node)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1]["kids"].append(data)

    def _picture(self, source: str) -> str:
        name = f"picture-{len(self._tree.files)}.png"
        try:
            self._tree.files[name] = base64.b64decode(source.partition(",")[2], validate=True)
        except binascii.Error:  # pragma: no cover - the page's own pictures are well-formed
            return ""
        return name


def _tidy(node: dict[str, Any]) -> dict[str, Any]:
    """Drops what paper has no use for, joins white space, and makes tables easy to set."""
    tag, attrs = node["tag"], node["attrs"]
    classes = attrs.get("class", "").split()
    if tag == "table":
        return _table(node, classes)
    if tag == "chart":
        return {"tag": tag, "file": attrs["data-file"], "alt": attrs["data-alt"], "tall": bool(attrs["data-tall"])}
    if tag == "img":
        return {"tag": tag, "file": node["file"], "alt": attrs.get("alt", "")}
    if tag == "pre":
        return {"tag": tag, "class": classes, "kids": ["".join(k for k in node["kids"] if isinstance(k, str))]}
    return {"tag": tag, "class": classes, "kids": _kids(node)}


def _kids(node: dict[str, Any]) -> list[Any]:
    """Children without the unseen; texts on one line, and none between blocks."""
    held = [k for k in node["kids"] if isinstance(k, str) or not _unseen(k)]
    blocks = any(isinstance(k, dict) and k["tag"] in _BLOCKS for k in held)
    kids: list[Any] = []
    for kid in held:
        if isinstance(kid, dict):
            kids.append(_tidy(kid) | {"block": kid["tag"] in _BLOCKS})
            continue
        text = re.sub(r"[ \t\r\n]+", " ", kid)
        if text.strip(" ") or not blocks:
            kids.append(text.strip(" ") if blocks else text)
    if not blocks:
        while kids and isinstance(kids[0], str) and not kids[0].strip(" "):
            kids.pop(0)
        while kids and isinstance(kids[-1], str) and not kids[-1].strip(" "):
            kids.pop()
        if kids and isinstance(kids[0], str):
            kids[0] = kids[0].lstrip(" ")
        if kids and isinstance(kids[-1], str):
            kids[-1] = kids[-1].rstrip(" ")
    return kids


def _unseen(node: dict[str, Any]) -> bool:
    classes = node["attrs"].get("class", "").split()
    return node["tag"] in _SKIPPED or "skip" in classes or ("unseen" in classes and node["tag"] != "caption")


def _table(node: dict[str, Any], classes: list[str]) -> dict[str, Any]:
    caption: list[Any] = []
    head: list[list[dict[str, Any]]] = []
    body: list[list[dict[str, Any]]] = []
    for part in (k for k in node["kids"] if isinstance(k, dict)):
        if part["tag"] == "caption":
            caption = [] if "unseen" in part["attrs"].get("class", "") else _kids(part)
        elif part["tag"] in ("thead", "tbody"):
            rows = head if part["tag"] == "thead" else body
            rows += [_row(r) for r in part["kids"] if isinstance(r, dict) and r["tag"] == "tr"]
    wide = max(sum(cell["colspan"] for cell in row) for row in (*head, *body))
    return {
        "tag": "table",
        "class": classes,
        "caption": caption,
        "head": head,
        "body": body,
        "columns": _widths([*head[-1:], *body], wide),
    }


def _row(node: dict[str, Any]) -> list[dict[str, Any]]:
    classes = node["attrs"].get("class", "").split()
    return [
        {
            "class": [*classes, *cell["attrs"].get("class", "").split(), cell["tag"]],
            "colspan": int(cell["attrs"].get("colspan", 1)),
            "rowspan": int(cell["attrs"].get("rowspan", 1)),
            "kids": _kids(cell),
        }
        for cell in node["kids"]
        if isinstance(cell, dict) and cell["tag"] in ("th", "td")
    ]


def _widths(rows: list[list[dict[str, Any]]], wide: int) -> list[int]:
    """Shares of the line, by length where all fits; else for long columns, and 0 for those as wide as their text."""
    longest = [6] * wide
    numbers = [True] * wide
    for row in rows:
        if len(row) == wide:
            for i, cell in enumerate(row):
                longest[i] = max(longest[i], min(_line(cell), _LONGEST))
                numbers[i] = numbers[i] and "num" in cell["class"]
    if sum(longest) + 3 * wide <= _LINE:
        return [n + 3 for n in longest]
    shares = [n if n > _LONG and not number else 0 for n, number in zip(longest, numbers, strict=True)]
    return shares if any(shares) else [1, *shares[1:]]


def _line(cell: dict[str, Any]) -> int:
    """Length of a cell's longest line; pictures count as a few letters."""
    length = longest = 0
    for kid in cell["kids"]:
        if isinstance(kid, dict) and kid["tag"] == "br":
            longest, length = max(longest, length), 0
        elif isinstance(kid, dict) and kid["tag"] == "img":
            length += 14
        else:
            length += len(_text(kid))
    return max(longest, length)


def _text(node: dict[str, Any] | str) -> str:
    return node if isinstance(node, str) else "".join(_text(k) for k in node.get("kids", []))
