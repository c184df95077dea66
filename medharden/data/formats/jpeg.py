"""JPEG: every marker up to the end of the image, and whether the compressed data fill it; through libjpeg-turbo."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import simplejpeg

from medharden.data.formats.directory import orientation_of
from medharden.data.formats.limits import Hold
from medharden.data.formats.picture import Picture
from medharden.errors import DataError

__all__ = ["JpegStream", "check_entropy", "check_marks", "read_jpeg", "walk_jpeg"]

_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)
_BY_HUFFMAN = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_PROGRESSIVE, _JPEG_LS = 0xC2, 0xF7
_SCAN, _END = 0xDA, 0xD9
_IN_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # a marker that ends a scan; FF00 is data, FFD0 to FFD7 restart
_IN_LS_SCAN = re.compile(rb"\xff[\x80-\xfe]")  # in JPEG-LS, FF00 to FF7F are data
_FILL = re.compile(rb"\xff+(?=\xff)")  # before a marker there may be any number of these
_MOST_SEGMENTS = 2**16
_BLOCK_VISITS = 2**27  # a scan visits each block: what decoding a progressive image may cost
_DAMAGE = ("Corrupt JPEG data", "Premature end")


@dataclass(frozen=True)
class JpegStream:
    """What the markers of one image say.

    Attributes:
        process: the frame's marker, such as 0xC0 for baseline.
        height, width, components: of the image.
        precision: bits of one value.
        scans: how many there are.
        segments: marker, start and end of each, without the data of scans; the last is the end marker.
        end: where the image ends, after its last marker.
    """

    process: int
    precision: int
    height: int
    width: int
    components: int
    scans: int
    segments: tuple[tuple[int, int, int], ...]
    end: int

    @property
    def ordinary(self) -> bool:
        """Baseline, extended or progressive, of 8 bits, grey or three channels: what simplejpeg is given."""
        return self.process in _BY_HUFFMAN and self.precision == 8 and self.components in (1, 3)


def walk_jpeg(data: bytes) -> JpegStream:
    """Follows the markers of a JPEG or JPEG-LS image from its start to its end.

    Raises:
        DataError: it is cut off, or something stands where a marker should.
    """
    segments = tuple(islice(_segments(data), _MOST_SEGMENTS))
    frames = [(marker, data[start + 4 : end]) for marker, start, end in segments if marker in _FRAMES]
    scans = sum(marker == _SCAN for marker, _, _ in segments)
    if segments[-1][0] != _END or len(frames) != 1 or len(frames[0][1]) < 6 or not scans:
        raise DataError("is damaged: its markers describe no image, or more than one")
    process, head = frames[0]
    height, width = int.from_bytes(head[1:3], "big"), int.from_bytes(head[3:5], "big")
    return JpegStream(process, head[0], height, width, head[5], scans, segments, segments[-1][2])


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment to the end of the image; the data of a scan lie after its segment."""
    if data[:2] != b"\xff\xd8":
        raise DataError("holds something else than JPEG data")
    place, in_scan, marker = 2, _IN_SCAN, 0
    while marker != _END:
        filled = _FILL.match(data, place)
        place = filled.end() if filled else place
        if len(data) < place + 2:
            raise DataError("is cut off: it has no end marker (truncated)")
        marker, end = data[place + 1], place + 2
        if data[place] != 0xFF or not (0xC0 <= marker < 0xD0 or 0xD8 < marker < 0xFF):
            raise DataError("is damaged: bytes that are no part of the image lie between its segments")
        if marker != _END:
            length = int.from_bytes(data[place + 2 : place + 4], "big")
            end += length
            if length < 2 or end > len(data):
                raise DataError("is cut off within a segment (truncated)")
        yield marker, place, end
        place, in_scan = end, _IN_LS_SCAN if marker == _JPEG_LS else in_scan
        if marker == _SCAN:
            found = in_scan.search(data, end)
            if found is None:
                raise DataError("is cut off: it has no end marker (truncated)")
            place = found.start()


def check_marks(data: bytes, stream: JpegStream) -> None:
    """Holds what JFIF and Adobe say of the components against what they can say; GDCM crashes over other values.

    Raises:
        DataError: the version of JFIF, or Adobe's transform, is none that exists.
    """
    jfif = [content[0] for content in _applications(data, stream, 0xE0, b"JFIF\0") if content]
    adobe = [content[6] for content in _applications(data, stream, 0xEE, b"Adobe") if len(content) > 6]
    if any(version != 1 for version in jfif) or any(transform > 1 for transform in adobe):
        raise DataError("is damaged: it names a version of JFIF, or a colour transform, that does not exist")


def check_entropy(data: bytes, stream: JpegStream) -> None:
    """Decodes an 8-bit image at an eighth of its size, to see whether it is whole; other kinds can't be checked.

    libjpeg fills what is missing with grey and only counts a warning, which Pillow and GDCM do not hand on. JPEG has no
    checksum: damage that leaves the codes readable is not noticed.

    Raises:
        DataError: codes that don't exist, or fewer or more than the image has.
    """
    if stream.ordinary:
        with suppress(ValueError):  # of a kind that is decoded elsewhere
            _decoded(data, stream, "GRAY", min_height=1, min_width=1, min_factor=8)


def _decoded(data: bytes, stream: JpegStream, colours: str, **scaled: int) -> npt.NDArray[np.uint8]:
    """(H, W, channels); a warning of damage is an error, and others, such as of odd parameters of a scan, are not."""
    assert stream.ordinary, "simplejpeg writes beyond its buffer where a lossless image is scaled"  # noqa: S101
    try:
        array: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colours, strict=True, **scaled)
    except ValueError as error:
        if str(error).startswith(_DAMAGE):
            raise DataError("is damaged: its compressed data are no whole image (truncated or changed)") from None
        array = simplejpeg.decode_jpeg(data, colours, strict=False, **scaled)
    return array


def read_jpeg(data: bytes, hold: Hold) -> Picture:
    """Decodes one JPEG picture: grey or colour of 8 bits.

    Raises:
        DataError: cut off, damaged, too large, several pictures, or of a kind that is not read.
    """
    stream = walk_jpeg(data)
    _check_kind(stream)
    _check_tail(data, stream)
    count = stream.height * stream.width * stream.components
    coefficients = 2 * count if stream.process == _PROGRESSIVE else 0
    hold.take_values((stream.height, stream.width, stream.components), 1, beside=len(data) + coefficients)
    if (stream.scans - stream.components) * count > 64 * _BLOCK_VISITS:
        raise DataError(f"has {stream.scans} scans of a large image, more than are read")
    try:
        array = _decoded(data, stream, "GRAY" if stream.components == 1 else "RGB")
    except ValueError:
        raise DataError("is a JPEG of unusual subsampling, or damaged; save it as PNG") from None
    exif = b"".join(_applications(data, stream, 0xE1, b"Exif\0\0"))
    xmp = b"".join(_applications(data, stream, 0xE1, b"http://ns.adobe.com/xap/1.0/\0"))
    return Picture(array[..., 0] if array.shape[-1] == 1 else array, 255.0, orientation=orientation_of(exif, xmp))


def _check_kind(stream: JpegStream) -> None:
    if stream.process not in _BY_HUFFMAN:
        raise DataError(
            "is a lossless, arithmetic-coded or hierarchical JPEG, which is read from DICOM files alone; save it as PNG"
        )
    if stream.precision != 8:
        raise DataError(f"is a JPEG of {stream.precision} bits, expected 8; save it as PNG or TIFF of 16 bits")
    if stream.components == 4:
        raise DataError("stores CMYK, which becomes RGB in more ways than one; save it as RGB or grey")
    if stream.components not in (1, 3):
        raise DataError(f"has {stream.components} channels, expected grey or RGB")


def _check_tail(data: bytes, stream: JpegStream) -> None:
    if not data[stream.end :].strip(b"\0\xff"):
        return
    if any(True for _ in _applications(data, stream, 0xE2, b"MPF\0")):
        raise DataError("holds several pictures (MPO), expected one; save the one that is meant")
    raise DataError("goes on after the end of the picture; it was damaged, or holds something else too")


def _applications(data: bytes, stream: JpegStream, marker: int, head: bytes) -> list[bytes]:
    """What stands in an application's segments after their head."""
    found = [data[start + 4 : end] for kind, start, end in stream.segments if kind == marker]
    return [content.removeprefix(head) for content in found if content.startswith(head)]
