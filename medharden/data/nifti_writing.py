"""Writing changed voxels back as NIfTI: header and data type kept, text fields and extensions emptied."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

from medharden.data.carrier import Carrier
from medharden.data.nifti import read_nifti
from medharden.errors import DataError

__all__ = ["nifti_bytes", "nifti_carrier"]

_TEXT = ("data_type", "db_name", "aux_file", "intent_name", "unused_str")
_WARNING = b"adversarial test image, not for clinical use"
_CANONICAL = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])


def nifti_carrier(path: Path) -> Carrier:
    """The stored values of a NIfTI volume, axes as the loader turns them.

    Raises:
        DataError: as `read_nifti`, or the file stores floating-point values.
    """
    image = read_nifti(path)
    header, array = _opened(path)
    dtype = array.dtype
    if dtype.kind not in "iu" or dtype.itemsize > 4:
        raise DataError(
            f"stores {dtype.name} values, which have no lattice of steps; expected integers of up to 32 bits"
        )
    slope, intercept = header.get_slope_inter()
    stored = apply_orientation(array, io_orientation(header.get_best_affine()))[None].astype(np.int64)
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    none = np.zeros(stored.shape, dtype=np.bool_)
    return Carrier(stored, low, high, float(slope or 1.0), float(intercept or 0.0), none, image)


def nifti_bytes(path: Path, stored: npt.NDArray[np.int64]) -> bytes:
    """The file of a volume with other voxels, compressed: orientation, spacing, scaling and data type as before.

    Args:
        path: the source.
        stored: (1, D, H, W) as `nifti_carrier` gives it, within the data type's range.

    Raises:
        DataError: as `nifti_carrier`.
    """
    header, array = _opened(path)
    back = ornt_transform(_CANONICAL, io_orientation(header.get_best_affine()))
    turned = apply_orientation(stored[0], back)
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


def _opened(path: Path) -> tuple[nib.Nifti1Header, npt.NDArray[Any]]:
    """The header as it lies in the file, its scaling included, and the unscaled voxels (X, Y, Z)."""
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    kind = nib.Nifti2Header if data[4:7] in (b"n+2", b"ni2") else nib.Nifti1Header
    header = kind.from_fileobj(io.BytesIO(data), check=False)
    shape = tuple(int(extent) for extent in header.get_data_shape()[:3])
    count = int(np.prod(shape))
    array = np.frombuffer(data, header.get_data_dtype(), count, int(header["vox_offset"]) or header.single_vox_offset)
    return header, array.reshape(shape, order="F")
