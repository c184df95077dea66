"""MONAI's datalist (`datalist.json`, of the Medical Segmentation Decathlon's form) as the rows of a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medharden.data.sources.folder import SPLIT_NAMES
from medharden.errors import DataError, Problem

__all__ = ["read_datalist"]

_LARGEST_BYTES = 64 * 2**20
_SPLIT = "split"

Row = dict[str, str]


def read_datalist(path: Path) -> tuple[list[str], dict[int, Row], list[Problem]]:
    """Header, rows by number, and the entries that can't be used: those of several images or without any.

    Args:
        path: a JSON object with lists of cases as `training`, `validation`, `test`; each case an object with `image`.

    Raises:
        DataError: it is no such file.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise DataError(f"the datalist is larger than {_LARGEST_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"the datalist can't be read as JSON ({type(error).__name__})") from None
    lists = {
        SPLIT_NAMES[key.lower()]: cases
        for key, cases in (content.items() if isinstance(content, dict) else ())
        if key.lower() in SPLIT_NAMES and isinstance(cases, list) and cases
    }
    if not lists:
        raise DataError("the datalist has no list of cases; expected training, validation or test with objects in them")
    rows: dict[int, Row] = {}
    problems: list[Problem] = []
    for split, cases in lists.items():
        for case in cases:
            number = len(rows) + len(problems) + 1
            row = _row(case)
            if isinstance(row, str):
                problems.append(Problem(f"row {number}", row, None, split))
            else:
                rows[number] = row | ({_SPLIT: split} if len(lists) > 1 else {})
    header = list(dict.fromkeys(name for row in rows.values() for name in row))
    return header, {number: dict.fromkeys(header, "") | row for number, row in rows.items()}, problems


def _row(case: Any) -> Row | str:
    """The cells of one case, or why it can't be used."""
    if not isinstance(case, dict):
        return "is no object with an image"
    image = case.get("image")
    if isinstance(image, list):
        if len(image) != 1:
            return f"lists {len(image)} images; several modalities as channels are not read, name one"
        image = image[0]
    if not isinstance(image, str):
        return "has no image"
    row = {str(key): _cell(value) for key, value in case.items() if key.lower() not in ("image", "fold", _SPLIT)}
    return {"image": image} | row


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "1", False: "0", None: ""}[value]
    if isinstance(value, list):
        return "|".join(map(str, value))
    return "" if isinstance(value, dict) else str(value)
