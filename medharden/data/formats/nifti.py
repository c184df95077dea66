"""NIfTI-1 and NIfTI-2 volumes, plain or compressed, read to their last byte; headers through nibabel."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import OrientationError, apply_orientation, inv_ornt_aff, io_orientation
from nibabel.spatialimages import HeaderDataError

from medharden.data.formats.image import MALFORMED, StoredImage, digest_array, slabs
from medharden.data.formats.limits import Hold
from medharden.data.formats.window import Window
from medharden.errors import DataError

__all__ = ["open_nifti", "pair_of", "read_nifti"]

_GZIP = b"\x1f\x8b"
_MOST_EXTENSIONS = 1000


def read_nifti(path: Path, hold: Hold, dims: int = 3, *, image: Path | None = None) -> StoredImage:
    """Decodes one volume in scaled units, reoriented to the closest canonical axes (RAS+), or one slice as it lies.

    The axes (x, y, z), left to right, back to front and bottom to top, are taken as (D, H, W) in that order. Of a file
    of one slice the first axis runs along a picture's rows: it is (H, W) of [y, x], and is not reoriented.

    Args:
        path: the file; of a pair, the header (`.hdr`).
        hold: the memory that it may take.
        dims: spatial dimensions that are expected; of 2, a volume of a single slice is that slice.
        image: of a pair, the voxels (`.img`).

    Raises:
        DataError: with the reason alone: no volume, too large, cut off, damaged, longer than its header says.
    """
    return open_nifti(path, hold, dims, image=image)[0]


def open_nifti(
    path: Path, hold: Hold, dims: int = 3, *, image: Path | None = None
) -> tuple[StoredImage, nib.Nifti1Header, npt.NDArray[Any]]:
    """The volume as `read_nifti` gives it, its header as it lies in the file, and the unscaled voxels (X, Y, Z), or
    (X, Y) of one slice.

    Raises:
        DataError: as `read_nifti`.
    """
    try:
        if image is not None:
            header, stored = _of_pair(path, image, hold)
        else:
            with _opened(path) as (stream, size):
                head = _header(stream)
                if head.pair:
                    raise DataError("is the header of a pair, whose image (.img) is not there")
                header, stored = _volume(stream, hold, size, head)
        if dims == 2 and stored.ndim == 3 and stored.shape[2] == 1:
            stored = stored[..., 0]
        return _image(header, stored), header, stored
    except (*MALFORMED, HeaderDataError, ImageFileError, OrientationError) as error:
        raise DataError(f"can't be decoded as NIfTI: truncated or damaged ({type(error).__name__})") from None


def pair_of(path: Path) -> tuple[Path, ...]:
    """The header and the image of a pair of which one is given; the file alone where it is none of a pair."""
    lower = path.name.lower()
    stem = path.name[: -len(".img.gz")] if lower.endswith(".img.gz") else path.name.rpartition(".")[0]
    if not lower.endswith((".hdr", ".img", ".img.gz")):
        return (path,)
    header = next((h for end in (".hdr", ".HDR") if (h := path.with_name(stem + end)).is_file()), None)
    image = next((i for end in (".img", ".img.gz", ".IMG") if (i := path.with_name(stem + end)).is_file()), None)
    return (path,) if header is None or image is None else (header, image)


@dataclass(frozen=True)
class _Head:
    """A header, where the voxels begin, the byte order of extensions ("": none), and whether voxels lie elsewhere."""

    header: nib.Nifti1Header
    offset: int
    order: str
    pair: bool


def _of_pair(path: Path, image: Path, hold: Hold) -> tuple[nib.Nifti1Header, npt.NDArray[Any]]:
    with _opened(path) as (stream, _):
        head = _header(stream)
    if not head.pair:
        raise DataError("is a header that belongs to no pair, with an image (.img) beside it")
    with _opened(image) as (stream, size):
        return _volume(stream, hold, size, head)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], int | None]]:
    """The content of a file, inflated where it is compressed, and its length where that is known."""
    with path.open("rb") as raw:
        compressed = raw.read(2) == _GZIP
        raw.seek(0)
        if not compressed:
            yield raw, os.fstat(raw.fileno()).st_size
            return
        try:
            with gzip.GzipFile(fileobj=raw, mode="rb") as stream:
                yield stream, None  # type: ignore[misc]
        except gzip.BadGzipFile as error:
            if str(error).startswith("Not a gzipped file"):
                raise DataError("goes on after the end of its compressed data") from None
            raise DataError("fails its checksum (gzip): it was damaged after it was written") from None
        except zlib.error:
            raise DataError("can't be decompressed: it was damaged after it was written") from None
        except EOFError:
            raise DataError("is cut off: its compressed data have no end (truncated)") from None


def _volume(stream: IO[bytes], hold: Hold, size: int | None, head: _Head) -> tuple[nib.Nifti1Header, npt.NDArray[Any]]:
    """Header and voxels of a stream that must end with the last voxel; `size` is its length where that is known."""
    header = head.header
    shape = tuple(int(extent) for extent in header.get_data_shape())
    if len(shape) == 4 and shape[3] == 1:
        shape = shape[:3]
    if len(shape) not in (2, 3):
        raise DataError(f"has {len(shape)} axes of sizes {list(shape)}, expected a volume of three, or a slice of two")
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise DataError("holds colour or complex values, expected one real value a voxel")
    if min(shape) < 1:
        raise DataError("holds no values")
    length = hold.take_values(shape, dtype.itemsize, beside=head.offset) * dtype.itemsize
    if size is not None and size != head.offset + length:
        raise DataError(_other_length(size - head.offset - length))
    _pass_extensions(stream, head.offset if head.pair else head.offset - header.template_dtype.itemsize - 4, head.order)
    voxels = np.empty(length, dtype=np.uint8)
    missing = length - _fill(stream, voxels.data)
    if missing:
        raise DataError(_other_length(-missing))
    if stream.read(1):
        raise DataError(_other_length(1))
    return header, voxels.view(dtype).reshape(shape, order="F")


def _header(stream: IO[bytes]) -> _Head:
    start = _exactly(stream, 8)
    kind = nib.Nifti2Header if start[4:7] in (b"n+2", b"ni2") else nib.Nifti1Header
    block = kind.template_dtype.itemsize
    start += _exactly(stream, block - len(start))
    header = kind.from_fileobj(io.BytesIO(start))
    pair = bytes(header["magic"].item())[:2] == b"ni"
    offset = float(header["vox_offset"])
    if pair:
        if not offset.is_integer() or offset < 0:
            raise DataError("says that its voxels begin before its image does (vox_offset)")
        return _Head(header, int(offset), "", pair)
    if not offset.is_integer() or offset < block + 4:
        raise DataError("says that its voxels begin inside its header (vox_offset)")
    extended = _exactly(stream, 4)[0]
    return _Head(header, int(offset), {"<": "little", ">": "big"}[header.endianness] if extended else "", pair)


def _pass_extensions(stream: IO[bytes], left: int, order: str) -> None:
    """Goes to the voxels; where the header announces extensions, each must end before them."""
    count = 0
    while order and left >= 16:
        size = int.from_bytes(_exactly(stream, 8)[:4], order, signed=True)  # type: ignore[arg-type]
        count += 1
        if not 8 <= size <= left or count > _MOST_EXTENSIONS:
            raise DataError("has header extensions that do not end before its voxels")
        _skip(stream, size - 8)
        left -= size
    _skip(stream, left)


def _skip(stream: IO[bytes], count: int) -> None:
    while count > 0:
        count -= len(_exactly(stream, min(count, 2**20)))


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise DataError("is cut off before its voxels begin (truncated)")
    return data


def _fill(stream: IO[bytes], target: memoryview) -> int:
    filled = 0
    while filled < len(target):
        count = stream.readinto(target[filled : filled + 2**24])  # type: ignore[attr-defined]
        if not count:
            break
        filled += count
    return filled


def _other_length(difference: int) -> str:
    if difference < 0:
        return f"is cut off: {-difference} bytes of its voxels are missing (truncated)"
    return "goes on after its last voxel: its header describes another volume than it holds"


def _image(header: nib.Nifti1Header, stored: npt.NDArray[Any]) -> StoredImage:
    slope, intercept = header.get_slope_inter()
    slope, intercept = 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)
    oriented, affine = stored.T, None
    if stored.ndim == 3:
        turn = io_orientation(header.get_best_affine())
        oriented = apply_orientation(stored, turn)
        affine = _rows(header.get_best_affine() @ inv_ornt_aff(turn, stored.shape))
    values = np.empty(oriented.shape, dtype=np.float32)
    for part in slabs(oriented.shape):
        values[part] = oriented[part].astype(np.float64) * slope + intercept
    window, own = _window(header, stored.dtype, slope, intercept)
    return StoredImage(values[None], window, "nifti", digest_array(stored), windows=int(own), affine=affine)


def _rows(affine: npt.NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in affine)


def _window(header: Any, dtype: np.dtype[Any], slope: float, intercept: float) -> tuple[Window | None, bool]:
    """The header's display window; else what the integer type can hold; else none."""
    low, high = float(header["cal_min"]), float(header["cal_max"])
    if np.isfinite([low, high]).all() and low < high:
        return Window(low, high), True
    if dtype.kind == "f":
        return None, False
    borders = sorted(float(limit) * slope + intercept for limit in (np.iinfo(dtype).min, np.iinfo(dtype).max))
    return Window(borders[0], borders[1]), False
