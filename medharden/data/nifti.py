"""NIfTI-1 and NIfTI-2 volumes through nibabel, plain or compressed."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import OrientationError
from nibabel.spatialimages import HeaderDataError

from medharden.data.preprocessing import Window
from medharden.data.stored import MALFORMED, StoredImage, check_size, digest_array
from medharden.errors import DataError

__all__ = ["read_nifti"]


def read_nifti(path: Path) -> StoredImage:
    """Decodes one volume in scaled units, reoriented to the closest canonical axes (RAS+).

    The axes (x, y, z), left to right, back to front and bottom to top, are taken as (D, H, W) in that order.

    Raises:
        DataError: with the reason alone: no volume, values that are not finite, truncated.
    """
    try:
        values, pixels, window, own = _decode(path)
    except (*MALFORMED, HeaderDataError, ImageFileError, OrientationError) as error:
        raise DataError(f"can't be decoded as NIfTI: truncated or damaged ({type(error).__name__})") from None
    return StoredImage(values=values[None], window=window, format="nifti", pixels=pixels, windows=int(own))


def _decode(path: Path) -> tuple[npt.NDArray[np.float32], str, Window | None, bool]:
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if compressed else path.open("rb") as stream:
        head = stream.read(8)
        stream.seek(0)
        kind = nib.Nifti2Image if head[4:7] in (b"n+2", b"ni2") else nib.Nifti1Image
        volume = kind.from_stream(stream)
        shape = tuple(int(extent) for extent in volume.shape)
        if len(shape) == 4 and shape[3] == 1:
            shape = shape[:3]
        if len(shape) != 3:
            raise DataError(f"has {len(shape)} axes of sizes {list(shape)}, expected one volume of three")
        check_size(*shape)
        stored = np.asanyarray(volume.dataobj.get_unscaled()).reshape(shape)
    if stored.dtype.kind not in "iuf":
        raise DataError("holds colour or complex values, expected one real value a voxel")
    slope, intercept = float(volume.dataobj.slope), float(volume.dataobj.inter)
    scaled = stored.astype(np.float64) * slope + intercept
    oriented = nib.as_closest_canonical(nib.Nifti1Image(scaled, volume.affine))
    values = np.ascontiguousarray(oriented.get_fdata(caching="unchanged"), dtype=np.float32)
    window, own = _window(volume.header, stored.dtype, slope, intercept)
    return values, digest_array(stored), window, own


def _window(header: Any, dtype: np.dtype[Any], slope: float, intercept: float) -> tuple[Window | None, bool]:
    """The header's display window; else what the integer type can hold; else none."""
    low, high = float(header["cal_min"]), float(header["cal_max"])
    if np.isfinite([low, high]).all() and low < high:
        return Window(low, high), True
    if dtype.kind == "f":
        return None, False
    borders = sorted(float(limit) * slope + intercept for limit in (np.iinfo(dtype).min, np.iinfo(dtype).max))
    return Window(borders[0], borders[1]), False
