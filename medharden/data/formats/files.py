"""Telling what a file is by its content, and handing it to its reader."""

from __future__ import annotations

import stat
import zlib
from collections.abc import Sequence
from pathlib import Path

from medharden.data.formats.dicom import read_dicom
from medharden.data.formats.dicom_file import looks_like_data_set
from medharden.data.formats.image import StoredImage
from medharden.data.formats.limits import Hold, Room
from medharden.data.formats.nifti import pair_of, read_nifti
from medharden.data.formats.pictures import read_picture
from medharden.data.formats.series import read_series
from medharden.errors import DataError
from medharden.protocol import Frames, Input, Volume

__all__ = ["IMAGE_ENDINGS", "looks_like_image", "read_case", "read_file", "sniff"]

_HEAD = 352
_ANALYZE = "is no NIfTI header; of Analyze 7.5 left and right can't be told: convert it to NIfTI"
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "picture",
    b"\xff\xd8\xff": "picture",
    b"II*\0": "picture",
    b"MM\0*": "picture",
    b"II+\0": "picture",
    b"MM\0+": "picture",
}
_SUFFIXES = {
    ".dcm": "dicom",
    ".dicom": "dicom",
    ".ima": "dicom",
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".png": "picture",
    ".jpg": "picture",
    ".jpeg": "picture",
    ".tif": "picture",
    ".tiff": "picture",
}
IMAGE_ENDINGS = tuple(sorted(_SUFFIXES, key=len, reverse=True))
"""Endings of the names of files that are read, the longest first."""

_UNSUPPORTED = (".bmp", ".gif", ".webp", ".jp2", ".mha", ".mhd", ".nrrd", ".hdr", ".img", ".npy", ".svs")


def sniff(path: Path) -> str:
    """`dicom`, `nifti` or `picture` by the file's first bytes; "" for anything else.

    Raises:
        DataError: the file can't be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would wait for whoever writes to it
            raise DataError("is no plain file")
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise DataError(f"can't be read ({type(error).__name__})") from None
    if head[128:132] == b"DICM":
        return "dicom"
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if _is_nifti(head) or (head.startswith(b"\x1f\x8b") and _is_nifti(_inflated(path))):
        return "nifti"
    bare = looks_like_data_set(head, path.stat().st_size)
    return "dicom" if bare or (head and _suffix(path) == "dicom") else ""


def looks_like_image(path: Path) -> bool:
    """Whether a file found in a folder is meant as a case: by content, or by name where the content is broken."""
    name = path.name.lower()
    if name == "dicomdir" or name.startswith("."):
        return False
    if _suffix(path) or name.endswith(_UNSUPPORTED):
        return True
    try:
        return bool(sniff(path))
    except DataError:
        return True


def read_case(files: Sequence[Path], spec: Input, hold: Hold) -> StoredImage:
    """Decodes the files of one case: one alone, a NIfTI header with its image, or the slices of a DICOM series.

    Raises:
        DataError: with the reason alone, without a file's name or header.
    """
    if len(files) == 1:
        return read_file(files[0], spec.dims, hold, spec.volume, spec.frames)
    if len(files) == 2 and files[0].suffix.lower() == ".hdr":
        if not sniff(files[0]):
            raise DataError(_ANALYZE)
        return _of_dims(read_nifti(files[0], hold, spec.dims, image=files[1]), spec.dims)
    return read_series(files, hold, spec.volume)


def read_file(
    path: Path, dims: int, hold: Hold | None = None, volume: Volume | None = None, frames: Frames = "one"
) -> StoredImage:
    """Decodes one file.

    Args:
        path: the file.
        dims: spatial dimensions that are expected.
        hold: the memory that it may take; None allows the usual amount.
        volume: which stack, time point, echo ... of a multi-frame file is meant, where there are several.
        frames: of pictures, which frame of a multi-frame file is meant.

    Raises:
        DataError: with the reason alone, without the file's name or header.
    """
    if hold is None:
        with Room().file() as hold:
            return read_file(path, dims, hold, volume, frames)
    kind = sniff(path)
    if not kind:
        if path.stat().st_size == 0:
            raise DataError("is empty")
        if path.name.lower().endswith((".hdr", ".img", ".img.gz")):
            raise DataError(
                "is half of a pair of .hdr and .img, whose other half is not there"
                if len(pair_of(path)) == 1
                else _ANALYZE
            )
        raise DataError("is not a DICOM, NIfTI, PNG, JPEG or TIFF file")
    if kind == "dicom":
        return read_dicom(path, dims, hold, volume, frames)
    return _of_dims(read_nifti(path, hold, dims) if kind == "nifti" else read_picture(path, hold), dims)


def _of_dims(image: StoredImage, dims: int) -> StoredImage:
    spatial = image.values.ndim - 1
    if spatial != dims:
        what = "a volume" if spatial == 3 else "a single image"
        raise DataError(f"is {what}; the protocol's input.dims is {dims} (set input.dims: {spatial})")
    return image


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), "")


def _is_nifti(head: bytes) -> bool:
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def _inflated(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return zlib.decompressobj(wbits=31).decompress(stream.read(4096), _HEAD)
    except zlib.error:
        return b""
