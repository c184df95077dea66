"""What a store knows of each case: one line a case, sealed, beside the segment that holds its input.

A line carries a MAC over itself, the segment's name and the store's. Whoever can write to the store but lacks the
pseudonym key can take lines away, which has cases decoded anew, and can add or change none.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from medharden.data.view.case import ReadCase

__all__ = ["Line", "case_from", "lines_of", "written"]

_MAC = 64  # hexadecimal digits


@dataclass(frozen=True)
class Line:
    """One kept case.

    Attributes:
        file: SHA-256 of the file, or of the array in an archive, that it was decoded from.
        offset: in the segment.
        shape: (planes, *spatial).
        digest: BLAKE3 of the planes, hexadecimal.
        hash: perceptual hash, hexadecimal; "" for a picture of one value.
        case: what else is kept.
    """

    file: str
    offset: int
    shape: tuple[int, ...]
    digest: str
    hash: str
    case: ReadCase


def written(line: Line, seal: bytes, name: str) -> bytes:
    """One line with its seal.

    Args:
        line: what it says.
        seal: the key.
        name: of the store and the segment.
    """
    said = json.dumps(asdict(line), separators=(",", ":")).encode("ascii")
    return said + b"\t" + _mac(seal, name, said) + b"\n"


def lines_of(rows: Iterable[bytes], seal: bytes, name: str) -> Iterator[Line]:
    """The lines that are whole and sealed; a torn last line, and any that is not, are left out.

    Args:
        rows: of a journal, such as the file opened to be read.
        seal: the key.
        name: of the store and the segment.
    """
    for row in (line.removesuffix(b"\n") for line in rows):
        said, mac = row[: -_MAC - 1], row[-_MAC:]
        if len(row) > _MAC and hmac.compare_digest(_mac(seal, name, said), mac):
            yield _line(json.loads(said, object_pairs_hook=_shared))


def case_from(said: dict[str, Any]) -> ReadCase:
    """What JSON says of a case, as it was before.

    Raises:
        KeyError, TypeError, ValueError: it says something else.
    """
    fields = {field: _alike(tuple(said[field])) for field in ("shape", "native", "notes")}
    identifiers = tuple((str(kind), str(value)) for kind, value in said["identifiers"])
    return ReadCase(**said | fields | {"identifiers": identifiers})


def _shared(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys and short texts, which many cases have alike, are in memory once."""
    return {
        sys.intern(key): sys.intern(value) if isinstance(value, str) and len(value) <= 16 else value
        for key, value in pairs
    }


def _line(said: dict[str, Any]) -> Line:
    return Line(**said | {"shape": _alike(tuple(said["shape"])), "case": case_from(said["case"])})


@functools.lru_cache(maxsize=1024)
def _alike(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same, in memory once for all cases that say so."""
    return values


def _mac(seal: bytes, name: str, said: bytes) -> bytes:
    return hmac.new(seal, name.encode() + b"\0" + said, hashlib.sha256).hexdigest().encode()
