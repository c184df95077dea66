"""Numbers of bytes as people write and read them, and how many reading one file may take."""

from __future__ import annotations

import re

__all__ = ["MAX_DECODED", "parse_bytes", "shown_bytes"]

MAX_DECODED = 2**30
"""Bytes of memory that reading one file may take where nobody says otherwise."""

_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30,
    "tib": 2**40,
}  # fmt: skip


def parse_bytes(text: str | int) -> int:
    """A number of bytes: digits alone, or with a unit (`512MiB`, `2 GiB`, `1.5GB`).

    Raises:
        ValueError: it is neither, or not positive.
    """
    found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,6})?)\s*([kmgt]i?b|b|)", str(text).strip(), re.IGNORECASE | re.ASCII)
    count = int(float(found[1]) * _UNITS[found[2].lower()]) if found else 0
    if count < 1:
        raise ValueError("expected a number of bytes such as 1073741824, 512MiB or 2GiB")
    return count


def shown_bytes(count: int) -> str:
    """A number of bytes in the largest unit that it fills."""
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
