"""MONAI's datalist (`datalist.json`, of the Medical Segmentation Decathlon's form) as the rows of a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medharden.data.sources.folder import split_of
from medharden.errors import DataError, Problem

__all__ = ["image_column", "read_datalist", "read_lines"]

_LARGEST_BYTES = 64 * 2**20
_SPLIT = "split"
_MOST_IMAGES = 64

Row = dict[str, str]


def read_datalist(path: Path) -> tuple[list[str], dict[int, Row], list[Problem]]:
    """Header, rows by number, and the entries that can't be used: those without an image.

    Args:
        path: a JSON object with lists of cases as `training`, `validation`, `test`; each case an object with `image`:
            a file, or a list of files that are its channels, in the columns `image`, `image 2` and so on.

    Raises:
        DataError: it is no such file.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise DataError(f"the datalist is larger than {_LARGEST_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"the datalist can't be read as JSON ({type(error).__name__})") from None
    lists: dict[str, list[Any]] = {}
    others = 0
    for key, cases in content.items() if isinstance(content, dict) else ():
        if isinstance(cases, list) and split_of(key):
            lists.setdefault(split_of(key), []).extend(cases)
        elif isinstance(cases, list):
            others += any(isinstance(case, dict) and "image" in case for case in cases)
    lists = {split: cases for split, cases in lists.items() if cases}
    if others:
        raise DataError(
            f"the datalist has {others} lists of cases under other names than training, validation and test; rename "
            "them, or take them out"
        )
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
    images = image if isinstance(image, list) else [image]
    if not images or not all(isinstance(one, str) for one in images):
        return "has no image"
    if len(images) > _MOST_IMAGES:
        return f"lists {len(images)} images, expected {_MOST_IMAGES} channels at most"
    taken = {"fold", _SPLIT, *(image_column(n) for n in range(_MOST_IMAGES))}
    row = {str(key): _cell(value) for key, value in case.items() if key.lower() not in taken}
    return {image_column(n): one for n, one in enumerate(images)} | row


def read_lines(path: Path) -> tuple[list[str], dict[int, Row], list[Problem]]:
    """Header, rows by line, and the lines that can't be used, of a file with a JSON object a line (`metadata.jsonl`).

    Raises:
        DataError: it can't be read, or no line is an object.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise DataError(f"the manifest is larger than {_LARGEST_BYTES} bytes")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"the manifest can't be read as UTF-8 text ({type(error).__name__})") from None
    rows: dict[int, Row] = {}
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict):
            rows[number] = {str(key): _cell(value) for key, value in content.items()}
        else:
            problems.append(Problem(f"row {number}", "is no JSON object"))
    if not rows:
        raise DataError("the manifest has no line that is a JSON object")
    header = list(dict.fromkeys(name for row in rows.values() for name in row))
    return header, {number: dict.fromkeys(header, "") | row for number, row in rows.items()}, problems


def image_column(number: int) -> str:
    """Heading of a case's image, or of one of several by its number from 0."""
    return "image" if number == 0 else f"image {number + 1}"


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "1", False: "0", None: ""}[value]
    if isinstance(value, list):
        return "|".join(map(str, value))
    return "" if isinstance(value, dict) else str(value)
