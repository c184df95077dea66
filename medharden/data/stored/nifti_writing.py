"""Writing changed voxels back as NIfTI: header and data type kept, text fields and extensions emptied."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

from medharden.data.formats.limits import Hold
from medharden.data.formats.nifti import open_nifti
from medharden.data.stored.values import StoredValues
from medharden.errors import DataError

__all__ = ["nifti_bytes", "nifti_values"]

_TEXT = ("data_type", "db_name", "aux_file", "intent_name", "unused_str")
_WARNING = b"adversarial test image, not for clinical use"
_CANONICAL = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])


def nifti_values(path: Path, hold: Hold, dims: int = 3) -> StoredValues:
    """The stored values of a NIfTI volume or slice, axes as the loader turns them.

    Raises:
        DataError: as `read_nifti`, or the file stores floating-point values.
    """
    image, header, array = open_nifti(path, hold, dims)
    if array.ndim != dims:
        raise DataError(f"has {array.ndim} axes; the protocol's input.dims is {dims}")
    dtype = array.dtype
    if dtype.kind not in "iu" or dtype.itemsize > 4:
        raise DataError(
            f"stores {dtype.name} values, which have no lattice of steps; expected integers of up to 32 bits"
        )
    slope, intercept = header.get_slope_inter()
    turned = array.T if dims == 2 else apply_orientation(array, io_orientation(header.get_best_affine()))
    stored = turned[None].astype(np.int64)
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    none = np.zeros(stored.shape, dtype=np.bool_)
    return StoredValues(stored, low, high, float(slope or 1.0), float(intercept or 0.0), none, image)


def nifti_bytes(path: Path, stored: npt.NDArray[np.int64], hold: Hold) -> bytes:
    """The file of a volume or slice with other voxels, compressed: orientation, scaling and data type as before.

    Args:
        path: the source.
        stored: (1, D, H, W), or (1, H, W), as `nifti_values` gives it, within the data type's range.
        hold: the memory that may be taken.

    Raises:
        DataError: as `nifti_values`.
    """
    dims = stored.ndim - 1
    _, header, array = open_nifti(path, hold, dims)
    if dims == 2:
        turned = stored[0].T
    else:
        turned = apply_orientation(stored[0], ornt_transform(_CANONICAL, io_orientation(header.get_best_affine())))
    if turned.shape != array.shape:
        raise DataError("changed while it was read")
    for name in _TEXT:
        if name in header.structarr.dtype.names:
            header[name] = b""
    header["descrip"] = _WARNING
    header["magic"] = header.single_magic
    offset = 4 + header.structarr.dtype.itemsize
    header["vox_offset"] = offset
    out = io.BytesIO()
    out.write(header.binaryblock + b"\0" * 4)
    out.write(turned.astype(header.get_data_dtype()).tobytes(order="F"))
    return gzip.compress(out.getvalue(), mtime=0)
