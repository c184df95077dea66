"""Opening a DICOM file: with or without preamble, deflated or not, and no larger in memory than one file may be."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_file_meta_info, read_partial
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import VR

from medharden.data.formats.limits import Hold, Room
from medharden.errors import DataError
from medharden.sizes import shown_bytes

__all__ = ["looks_like_data_set", "open_data_set", "raw_value", "read_head"]

_UNDEFINED = 0xFFFFFFFF
_PIXELS = 0x7FE00010
_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # how an item of a sequence begins, in either byte order
_NESTED = ("SQ", "UN", None)  # what may turn out to be a sequence
_READ_BYTES = 1024  # what one read of an element or item leaves behind in memory, at most
_ALONE = 2**16  # reads after which a file is parsed only while no other file is
_PIECE = 2**22
_TRAILER = 9  # bytes, one more than may follow deflated data
_SMALL = 2**12  # bytes that are asked for without a look at how many there are
_HEAD_BYTES = 2**26
_LAST_OF_GROUP = 0x9999
_FIRST_VALUE = 256  # bytes; the first element of a data set is a length, a character set or a type
_LONGEST = 2**18  # bytes of an element whose value is used


class _AskedForAllError(Exception):
    """pydicom asks for all that is left, as it does to inflate it."""


class _Source:
    """What pydicom reads from; it counts the reads, since a few bytes of a header can become very many objects."""

    def __init__(self, stream: BinaryIO, size: int, hold: Hold) -> None:
        self._stream, self._size, self._hold, self._reads = stream, size, hold, 0
        self._most = max(_ALONE, hold.limit // _READ_BYTES)
        self.seek, self.tell = stream.seek, stream.tell
        self.cut = False

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            raise _AskedForAllError
        self.count(1)
        there = size if size <= _SMALL else max(0, min(size, self._size - self.tell()))  # else room is made for `size`
        data = self._stream.read(there)
        if len(data) < size and (data or size != 8):  # at its end, an element of 8 bytes is looked for and not found
            self.cut = True
        return data

    def count(self, reads: int) -> None:
        before, self._reads = self._reads, self._reads + reads
        if self._reads > self._most:
            raise DataError("has a header of more elements than are read")
        if before <= _ALONE < self._reads:
            self._hold.take_all()


class _Inflated:
    """An inflated data set, read in place."""

    def __init__(self, data: bytearray) -> None:
        self._data, self._place = memoryview(data), 0

    def read(self, size: int) -> bytes:
        part = bytes(self._data[self._place : self._place + size])
        self._place += len(part)
        return part

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = max(0, offset + (self._place if whence == os.SEEK_CUR else 0))
        return self._place

    def tell(self) -> int:
        return self._place


def open_data_set(path: Path, hold: Hold) -> tuple[Dataset, int]:
    """The data set of a file, and how many bytes it takes; also of one without preamble.

    Its transfer syntax is then told from its encoding.

    Raises:
        DataError: too large, cut off, or no image.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        hold.admit(size)
        source = _Source(stream, size, hold)
        try:
            ds: Dataset = pydicom.dcmread(cast(BinaryIO, source))
        except _AskedForAllError:
            ds, size, source = _deflated(path, stream, hold)
        except InvalidDicomError:
            stream.seek(0)
            ds = _bare(pydicom.dcmread(cast(BinaryIO, source), force=True))
    _check_whole(ds, source)
    return ds, size


def read_head(path: Path, tags: Sequence[str], *, last: int = _PIXELS) -> Dataset:
    """Some elements of a file's header, up to a tag and in little memory; deflated files are inflated for it.

    Raises:
        DataError: a header of very many elements, or no data set.
        Exception: what pydicom raises over damaged files.
    """
    with Room(_HEAD_BYTES).file() as hold, path.open("rb") as stream:
        source = _Source(stream, os.fstat(stream.fileno()).st_size, hold)
        try:
            return read_partial(
                cast(BinaryIO, source),
                stop_when=lambda tag, vr, length: tag >= last,
                force=True,
                specific_tags=[tag for name in tags if (tag := tag_for_keyword(name)) is not None],
            )
        except _AskedForAllError:
            pass
    with Room().file() as hold:
        return open_data_set(path, hold)[0]


def looks_like_data_set(head: bytes, size: int) -> bool:
    """Whether a file without preamble begins as a data set does: with a known element of a length that fits.

    The first element is of group 0002 or 0008; value representations, where they are written, are DICOM's own.
    """
    for order in ("little", "big"):
        if len(head) < 16:
            return False
        group, element = (int.from_bytes(head[k : k + 2], order) for k in (0, 2))
        if group not in (0x0002, 0x0008) or element > _LAST_OF_GROUP:
            continue
        representation = head[4:6]
        if representation.decode("latin-1") in set(VR):
            return True
        length = int.from_bytes(head[4:8], order)
        if length % 2 == 0 and length < min(size, _FIRST_VALUE) and _goes_on(head, 8 + length, order):
            return True
    return False


def _goes_on(head: bytes, place: int, order: str) -> bool:
    """Whether another element of the same group follows where the first one ends."""
    if place + 4 > len(head):
        return False
    first, second = (int.from_bytes(head[k : k + 2], order) for k in (0, place))  # type: ignore[arg-type]
    before, after = (int.from_bytes(head[k + 2 : k + 4], order) for k in (0, place))  # type: ignore[arg-type]
    return (first, before) < (second, after) and second in (0x0002, 0x0008)


def _bare(ds: Dataset) -> Dataset:
    if "Rows" not in ds:
        raise DataError("holds no DICOM image")
    if not getattr(ds, "file_meta", None):
        ds.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in ds.file_meta:
        implicit, little = ds.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return ds


def _deflated(path: Path, stream: BinaryIO, hold: Hold) -> tuple[Dataset, int, _Source]:
    """The data set of a file that is deflated as a whole (PS3.5 A.5), its values copied out of what was inflated."""
    hold.take_all()
    start = stream.tell()
    length = sum(len(piece) for piece in _pieces(stream, hold.limit // 2))
    stream.seek(start)
    data, place = bytearray(length), 0
    for piece in _pieces(stream, length):
        data[place : place + len(piece)] = piece
        place += len(piece)
    source = _Source(cast(BinaryIO, _Inflated(data)), length, hold)
    elements = read_dataset(cast(BinaryIO, source), is_implicit_VR=False, is_little_endian=True)
    meta = read_file_meta_info(str(path))
    ds = FileDataset(str(path), elements, None, meta, is_implicit_VR=False, is_little_endian=True)
    return ds, 2 * length, source


def _pieces(stream: BinaryIO, most: int) -> Iterator[bytes]:
    """Inflates what is left of a file, in pieces.

    After it, nothing may follow but a byte of padding, or CRC and length as gzip writes them, which then must agree.

    Raises:
        DataError: more bytes than allowed, no end, or a checksum that fails.
    """
    inflater, left, total, check = zlib.decompressobj(-zlib.MAX_WBITS), b"", 0, 0
    while not inflater.eof:
        left = left or stream.read(_PIECE)
        if not left:
            raise DataError("is cut off: its deflated data set has no end (truncated)")
        try:
            piece = inflater.decompress(left, _PIECE)
        except zlib.error:
            raise DataError("can't be decompressed: it was damaged after it was written") from None
        left = inflater.unconsumed_tail
        total, check = total + len(piece), zlib.crc32(piece, check)
        if total > most:
            raise DataError(
                f"inflates to more than {shown_bytes(most)}, half of what one file may take (raise --max-decoded if "
                "the file is what it should be)"
            )
        yield piece
    rest = inflater.unused_data + stream.read(_TRAILER)
    if rest not in (b"", b"\0", struct.pack("<II", check, total % 2**32)):
        raise DataError("fails its checksum, or goes on after the end of its deflated data set")


def _check_whole(ds: Dataset, source: _Source) -> None:
    """Refuses what pydicom lets pass, an element that ends with the file; and counts what is still packed."""
    for tag in list(ds.keys()):
        element = ds.get_item(tag, keep_deferred=True)
        if not isinstance(element, RawDataElement) or element.value is None:
            continue
        if element.length not in (_UNDEFINED, len(element.value)):
            raise DataError("is cut off within an element (truncated)")
        if element.VR in _NESTED and tag != _PIXELS:
            items = sum(element.value.count(item) for item in _ITEMS)
            source.count(3 * items + len(element.value) // 16)
    if source.cut and _PIXELS not in ds:
        raise DataError("is cut off before its pixels end (truncated)")


def raw_value(ds: Dataset, name: str) -> object:
    """An element's value, or None; of an absurd length it is refused, before it becomes as many objects.

    Raises:
        DataError: it is longer than any value that is used here.
    """
    tag = tag_for_keyword(name)
    element = None if tag is None else ds.get_item(tag)
    if isinstance(element, RawDataElement) and len(element.value or b"") > _LONGEST:
        raise DataError("has a header element of an absurd length")
    return ds.get(name)
