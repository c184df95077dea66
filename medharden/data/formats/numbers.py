"""Numbers and texts of a DICOM header, and what is wrong with those that are none."""

from __future__ import annotations

import math
from typing import Any

from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from medharden.data.formats.dicom_file import raw_value
from medharden.errors import DataError

__all__ = ["number_of", "numbers_of", "text_of"]

_STRINGS = ("DS", "IS")


def numbers_of(ds: Dataset | None, name: str) -> list[float]:
    """The numbers of an element; none where it is absent or empty.

    Raises:
        DataError: it holds something else, with what it is: a decimal comma, an empty value, text.
    """
    if ds is None:
        return []
    _check_text(ds, name)
    try:
        value: Any = raw_value(ds, name)
        if value is None or value == "":
            return []
        return [float(v) for v in value] if isinstance(value, (list, tuple, MultiValue)) else [float(value)]
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"has {_shown(name)} that is no number") from None


def number_of(ds: Dataset, name: str, default: float) -> float:
    """The only number of an element.

    Raises:
        DataError: it holds several, or something else.
    """
    numbers = numbers_of(ds, name)
    if len(numbers) > 1:
        raise DataError(f"has {len(numbers)} values in {_shown(name)}, where DICOM knows one")
    if numbers and not math.isfinite(numbers[0]):
        raise DataError(f"has {_shown(name)} that is not finite")
    return numbers[0] if numbers else default


def text_of(ds: Dataset, name: str) -> str:
    """An element as text, without blanks around it; "" where it is absent."""
    value = raw_value(ds, name)
    return "" if value is None else str(value).strip()


def _check_text(ds: Dataset, name: str) -> None:
    """What is wrong with numbers written as text, before pydicom refuses or drops it."""
    tag = tag_for_keyword(name)
    element = ds.get_item(tag) if tag is not None and tag in ds else None
    if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
        return
    if element.VR not in (*_STRINGS, None) or (element.VR is None and not _is_text(ds, name)):
        return
    parts = [part.strip(b" \0") for part in element.value.split(b"\\")]
    if len(parts) > 1 and not all(parts):
        raise DataError(f"has {_shown(name)} with an empty value: a backslash with nothing before or after it")
    if any(b"," in part for part in parts):
        raise DataError(f"has {_shown(name)} with a decimal comma; DICOM knows the point alone")


def _is_text(ds: Dataset, name: str) -> bool:
    return dictionary_VR(name) in _STRINGS


def _shown(name: str) -> str:
    tag = tag_for_keyword(name)
    return f"a {name}" if tag is None else f"a {dictionary_description(tag)} ({name})"
