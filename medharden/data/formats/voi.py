"""The window that a DICOM file asks for: a table, or centre, width and function; or what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from medharden.data.formats.dicom_file import raw_value
from medharden.data.formats.image import MALFORMED
from medharden.data.formats.numbers import numbers_of, text_of
from medharden.data.formats.placing import functional_groups
from medharden.data.formats.window import Window
from medharden.errors import DataError

__all__ = ["OwnWindow", "own_window"]


@dataclass(frozen=True)
class OwnWindow:
    """The window that a file asks for.

    Attributes:
        window: the first; null where there is none, or none that can be used.
        offered: how many the file offers.
        unusable: why it can't be used, or "".
    """

    window: Window | None
    offered: int
    unusable: str = ""


def own_window(ds: Dataset, frame: int = 0) -> OwnWindow:
    """The first VOI table or window (PS3.3 C.11.2), tables before windows.

    Where each frame has its own, that of the `frame` given serves the volume. One that is broken is no reason to refuse
    an image whose window the protocol gives: what is wrong is handed on.
    """
    try:
        return OwnWindow(*_first(ds, frame))
    except DataError as error:
        return OwnWindow(None, 1, str(error))
    except MALFORMED as error:
        return OwnWindow(None, 1, f"has a window that can't be read ({type(error).__name__})")


def _first(ds: Dataset, frame: int) -> tuple[Window | None, int]:
    """The window, and how many the file offers."""
    groups = functional_groups(ds, "FrameVOILUTSequence")
    items = [group.FrameVOILUTSequence[0] for group in groups] or [ds]
    item = items[frame if len(items) > 1 else 0]
    tables = list(item.get("VOILUTSequence") or [])
    centers, widths = numbers_of(item, "WindowCenter"), numbers_of(item, "WindowWidth")
    offered = len(tables) + min(len(centers), len(widths))
    if tables:
        return _table(tables[0], ds), offered
    if not centers and not widths:
        return None, 0
    if len(centers) != len(widths):
        raise DataError(f"has {len(centers)} window centres and {len(widths)} widths")
    if any(numbers_of(i, "WindowCenter") != centers or numbers_of(i, "WindowWidth") != widths for i in items):
        offered += 1  # frames with windows of their own: the first frame's serves the volume
    return _function(item, centers[0], widths[0]), offered


def _function(item: Dataset, center: float, width: float) -> Window:
    function = (text_of(item, "VOILUTFunction") or "LINEAR").upper()
    if not np.isfinite([center, width]).all() or width <= 0 or (function == "LINEAR" and width < 1):
        raise DataError("has a window of a width that DICOM forbids")
    if function == "LINEAR":
        return Window.linear(center, width)
    if function == "LINEAR_EXACT":
        return Window.exact(center, width)
    if function == "SIGMOID":
        return Window.sigmoid(center, width)
    raise DataError("has a window function that is not supported; expected LINEAR, LINEAR_EXACT or SIGMOID")


def _table(item: Dataset, ds: Dataset) -> Window:
    entries, first, bits = (int(value) for value in item.LUTDescriptor)
    entries = entries or 2**16
    if first >= 2**15 and int(ds.PixelRepresentation) and not ds.get("ModalityLUTSequence"):
        first -= 2**16  # written as unsigned, meant as signed (PS3.3 C.11.2.1.1)
    data = raw_value(item, "LUTData")
    if isinstance(data, bytes):
        little = ds.file_meta.TransferSyntaxUID.is_little_endian
        data = np.frombuffer(data, dtype="<u2" if little else ">u2")
    levels = np.asarray(data, dtype=np.float64)[:entries]
    if levels.size != entries or not 8 <= bits <= 16:
        raise DataError("has a VOI lookup table that does not match its description")
    return Window(float(first), float(first + entries - 1), "table", tuple((levels / (2**bits - 1)).tolist()))
