"""TIFF: one page of grey, colour or palette, whose strips or tiles fit what its directory says; at any depth.

libtiff, through Pillow, only unpacks LZW, PackBits and JPEG. What the bytes mean is decided here, since Pillow drops
the lower half of 16-bit colour, the sign of 8-bit values and the range of 32-bit ones without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medharden.data.formats.directory import Directory, open_directory, orientation_of
from medharden.data.formats.image import slabs
from medharden.data.formats.limits import Hold
from medharden.data.formats.picture import TRANSPARENCY, Picture
from medharden.data.formats.tiff_parts import (
    Layout,
    keeps_differences,
    layout_of,
    parts_of,
    unpack,
    unpack_jpeg,
    uses_jpeg,
)
from medharden.errors import DataError

__all__ = ["read_tiff"]

_BITS, _PHOTOMETRIC, _FILL_ORDER, _ORIENTATION, _SAMPLES = 258, 262, 266, 274, 277
_PREDICTOR, _COLOUR_MAP, _EXTRA, _FORMAT, _XMP = 317, 320, 338, 339, 700
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _YCBCR: 3}
_OTHERS = {4: "a transparency mask", 5: "CMYK", 8: "CIE L*a*b*", 9: "CIE L*a*b*", 32803: "a colour filter array"}
_PACKED = (1, 2, 4, 12)
_DEPTHS = {"u": (*_PACKED, 8, 16, 32), "i": (8, 16, 32), "f": (16, 32, 64)}
_FORMS = {1: "u", 2: "i", 3: "f"}
_PREMULTIPLIED = 1
_MOST_PAGES = 1000


@dataclass(frozen=True)
class _Kind:
    """What the samples of a page mean.

    Attributes:
        photometric: as TIFF numbers it.
        samples: channels in all, at most one of them beside grey or colour.
        extra: what that one is, as TIFF numbers it; None where there is none.
        form: `u` unsigned, `i` signed, `f` floating point.
        bits: of one sample.
        predictor: 1 none, 2 differences of values, 3 differences of the bytes of floating-point values.
        order: `<` or `>`.
    """

    photometric: int
    samples: int
    extra: int | None
    form: str
    bits: int
    predictor: int
    order: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a sample in the file; packed ones become 16 bits."""
        return np.dtype("u2" if self.bits in _PACKED else f"{self.order}{self.form}{self.bits // 8}")


def read_tiff(data: bytes, hold: Hold) -> Picture:
    """Decodes the only page of a TIFF file, at the depth that it stores.

    Raises:
        DataError: several pages, strips that do not fit, a checksum that fails, or a kind that is not read.
    """
    directory = open_directory(data)
    _check_pages(directory)
    kind = _kind(directory)
    layout = layout_of(directory, kind.samples)
    outputs = 3 if kind.photometric == _PALETTE else kind.samples
    hold.take_values((layout.pixels, outputs), kind.dtype.itemsize, beside=2 * len(data))
    row_bytes = (layout.columns * (kind.samples // layout.planes) * kind.bits + 7) // 8
    planes = parts_of(directory, layout, row_bytes)
    if uses_jpeg(directory):
        if kind.photometric in (_WHITE_IS_ZERO, _PALETTE) or kind.extra is not None or layout.planes > 1:
            raise DataError("holds JPEG data of an unusual kind; expected grey, RGB or YCbCr in one plane")
        array = unpack_jpeg(directory, planes[0], layout, kind.samples).reshape(layout.height, layout.width, -1)
    elif kind.photometric == _YCBCR:
        raise DataError("stores YCbCr without JPEG, which is not read; save it as RGB")
    else:
        rows = (unpack(directory, parts, layout, row_bytes) for parts in planes)
        placed = [_placed(_values(plane, kind, layout), layout) for plane in rows]
        array = placed[0] if len(placed) == 1 else np.concatenate(placed, axis=-1)
    orientation = directory.number(_ORIENTATION, 0) or orientation_of(b"", bytes(directory.content(_XMP)))
    return _meant(array, kind, directory, orientation)


def _check_pages(directory: Directory) -> None:
    seen = 1
    while directory.following and seen < _MOST_PAGES:
        directory = open_directory(directory.data, directory.following)
        seen += 1
    if seen > 1:
        raise DataError(f"has {seen} pages{' or more' if seen == _MOST_PAGES else ''}, expected one")


def _kind(directory: Directory) -> _Kind:
    photometric = directory.number(_PHOTOMETRIC, -1)
    if photometric not in _COLOURS:
        name = _OTHERS.get(photometric, "values of a meaning that is not known")
        raise DataError(f"stores {name}; expected grey, RGB or a palette")
    bits, forms = set(directory.numbers(_BITS) or [1]), set(directory.numbers(_FORMAT) or [1])
    samples, extra = directory.number(_SAMPLES, 1), directory.numbers(_EXTRA)
    further = samples - _COLOURS[photometric]
    if len(bits) > 1 or len(forms) > 1 or not 0 <= further <= 1 or len(extra) > further:
        raise DataError(f"has {samples} channels, or channels of several kinds; expected grey or RGB, and one more")
    depth, form = bits.pop(), _FORMS.get(forms.pop(), "")
    if depth not in _DEPTHS.get(form, ()):
        raise DataError(f"stores values of {depth} bits in a form that is not read; expected whole or real numbers")
    narrow = {_RGB: (8, 16), _YCBCR: (8,), _PALETTE: (1, 2, 4, 8)}.get(photometric, (8, 16) if further else (depth,))
    if depth not in narrow or (form != "u" and (further or photometric in (_RGB, _YCBCR, _PALETTE))):
        raise DataError(f"stores colour or alpha of {depth} bits in a form that is not read; expected 8 or 16 bits")
    if directory.number(_FILL_ORDER, 1) != 1:
        raise DataError("stores its bits in reverse order (FillOrder), which is not read")
    number = (extra or [0])[0] if further else None
    return _Kind(photometric, samples, number, form, depth, _predictor(directory, form, depth), directory.order)


def _predictor(directory: Directory, form: str, depth: int) -> int:
    predictor = directory.number(_PREDICTOR, 1) if keeps_differences(directory) else 1
    if predictor == 1 or (predictor == 2 and depth not in _PACKED) or (predictor == 3 and form == "f"):
        return predictor
    raise DataError("stores differences (Predictor) of a kind that is not read")


def _values(rows: npt.NDArray[np.uint8], kind: _Kind, layout: Layout) -> npt.NDArray[Any]:
    """(rows, columns, channels) the samples of one plane, in the order in which its parts lie."""
    channels = kind.samples // layout.planes
    shape = len(rows), layout.columns, channels
    if kind.bits in _PACKED:
        return _unpacked_bits(rows, kind.bits, layout.columns * channels).reshape(shape)
    if kind.predictor == 3:
        rows = np.add.accumulate(rows.reshape(len(rows), -1, channels), axis=1, dtype=np.uint8)
        high_first = rows.reshape(len(rows), kind.bits // 8, -1).swapaxes(1, 2)
        return np.ascontiguousarray(high_first).view(f">f{kind.bits // 8}").reshape(shape)
    if kind.predictor == 2:
        whole = rows.view(f"{kind.order}u{kind.bits // 8}").reshape(shape)
        native = whole.dtype.newbyteorder("=")
        return np.add.accumulate(whole, axis=1, dtype=native).view(f"{kind.form}{kind.bits // 8}")
    return rows.view(kind.dtype).reshape(shape)


def _unpacked_bits(rows: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.uint16]:
    """(rows, count) values of a few bits each, the highest bit first; each row begins with a byte of its own."""
    values = np.empty((len(rows), count), dtype=np.uint16)
    weights = (1 << np.arange(bits)[::-1]).astype(np.uint16)
    for part in slabs((len(rows), count * bits)):
        digits = np.unpackbits(rows[part], axis=1, count=count * bits)
        values[part] = digits.reshape(-1, count, bits) @ weights
    return values


def _placed(values: npt.NDArray[Any], layout: Layout) -> npt.NDArray[Any]:
    """(H, W, channels) with tiles in their places; strips lie there already."""
    if not layout.tiled:
        return values
    tiles = values.reshape(layout.down, layout.across, layout.rows, layout.columns, -1).swapaxes(1, 2)
    whole = tiles.reshape(layout.down * layout.rows, layout.across * layout.columns, -1)
    return whole[: layout.height, : layout.width]


def _meant(array: npt.NDArray[Any], kind: _Kind, directory: Directory, orientation: int) -> Picture:
    """The picture that (H, W, samples) stand for, in the data types that are digested."""
    notes: tuple[str, ...] = ()
    if kind.extra is not None:
        if int(array[..., -1].min()) < np.iinfo(array.dtype).max:
            if kind.extra == _PREMULTIPLIED:
                raise DataError("stores colour multiplied by alpha, which can't be undone; save it without alpha")
            notes = (TRANSPARENCY,)
        array = array[..., :-1]
    if kind.photometric == _PALETTE:
        colours, most = _painted(array[..., 0], directory, kind.bits)
        return Picture(colours, most, orientation=orientation, notes=notes)
    if array.shape[-1] == 1:
        array = array[..., 0]
    array = np.ascontiguousarray(array)
    if kind.form == "f":
        return Picture(array, None, kind.photometric == _WHITE_IS_ZERO, orientation, notes)
    if kind.bits <= 8 and kind.form == "u":
        array = array if kind.bits == 8 else (array * (255 // (2**kind.bits - 1))).astype(np.uint8)
        array = 255 - array if kind.photometric == _WHITE_IS_ZERO else array
        return Picture(array, 255.0, orientation=orientation, notes=notes)
    if kind.form == "i" or (kind.bits == 32 and int(array.max()) < 2**31):
        array = array.astype(np.int32)
    top = float(2**kind.bits - 1) if kind.form == "u" and kind.bits <= 16 else None
    return Picture(array, top, kind.photometric == _WHITE_IS_ZERO, orientation, notes)


def _painted(places: npt.NDArray[Any], directory: Directory, bits: int) -> tuple[npt.NDArray[Any], float]:
    """(H, W, 3) colours, of 8 bits where the palette's 16 say no more than that."""
    palette = np.array(directory.numbers(_COLOUR_MAP), dtype=np.uint16)
    if len(palette) != 3 * 2**bits:
        raise DataError("has a palette of another length than its bits ask for")
    colours = palette.reshape(3, -1).T
    if (colours % 257 == 0).all() or (colours % 256 == 0).all():
        return (colours >> 8).astype(np.uint8)[places], 255.0
    return colours[places], 65535.0
