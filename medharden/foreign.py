"""Where an exception arose that the user's own code raised: its model, its dataset."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

__all__ = ["own_place", "place_of"]

_HERE = str(Path(__file__).resolve().parent) + os.sep
_LIBRARIES = tuple(
    os.path.realpath(path) + os.sep
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
    if (path := sysconfig.get_path(name))
)
_NO_FILE = ("<frozen", "<string>")  # the import's own, and code made of text


def own_place(error: BaseException) -> str:
    """Kind and place of an exception in code, called by medharden, that is no library's; "" where there is none.

    The exception's text is left out: it may hold what the data say.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__} at {os.path.basename(error.filename)}, line {error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = os.path.realpath(frame.filename)
        if path.startswith(_HERE):  # what called medharden is not what it called
            return ""
        if not path.startswith(_LIBRARIES) and not frame.filename.startswith(_NO_FILE):
            return _said(error, frame)
    return ""


def place_of(error: BaseException) -> str:
    """Kind and place of an exception: in the user's own code where it passed through such, else where it arose."""
    return own_place(error) or _said(error, traceback.extract_tb(error.__traceback__)[-1])


def _said(error: BaseException, frame: traceback.FrameSummary) -> str:
    return f"{type(error).__name__} at {os.path.basename(frame.filename)}, line {frame.lineno}, in {frame.name}"
