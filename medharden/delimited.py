"""Text of a CSV file, its separator told from the first line: the header, and the rows with their lines."""

from __future__ import annotations

import csv
import io

__all__ = ["BrokenRowError", "delimited"]


class BrokenRowError(ValueError):
    """Text that is no CSV; `line` is near where."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line}")
        self.line = line


def delimited(text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The first row, and each further row that is not empty with its line number; cells without blanks around them.

    Args:
        text: rows of cells parted by commas, semicolons or tabs, whichever the first line has most of.

    Raises:
        BrokenRowError: quotes that don't close, or the like.
    """
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        return header, [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except csv.Error:
        raise BrokenRowError(reader.line_num) from None
